"""The authenticated gate over real sockets: TLS, then AUTH, then mail to anywhere; nothing before its turn."""

from __future__ import annotations

import asyncio
import base64
import signal
import ssl
import warnings

import msgspec
import pytest

from fixtures.gates import PATIENCE_S, GateUnderTest, Wire
from fixtures.ports import free_port
from postern_core.control import ServiceStatus
from postern_core.counters import CounterName
from postern_core.policy import Bind, ListenerBinds, ListenerPolicy, MailAuthentication

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
NAME, PASSWORD = "anna@example.com", "wörd pass"


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def plain(name: str = NAME, password: str = PASSWORD) -> str:
    return b64(f"\0{name}\0{password}")


async def secured(gate: GateUnderTest, tls: ssl.SSLContext) -> Wire:
    """Inside TLS, past EHLO."""
    wire = await gate.session()
    await wire.start_tls(tls)
    await wire.expect("EHLO client.example", "250 ")
    return wire


@pytest.mark.parametrize("implicit", [False, True])
async def test_after_tls_and_auth_mail_goes_anywhere(gate: GateUnderTest, client_tls: ssl.SSLContext, implicit: bool) -> None:
    wire = await (await gate.connect(1, client_tls)).greeted() if implicit else await secured(gate, client_tls)
    await wire.expect("MAIL FROM:<anna@example.com>", "530 5.7.0")
    await wire.expect(f"AUTH PLAIN {plain()}", "235 2.7.0")
    await wire.transaction("somebody@elsewhere.example", "a%b@third.example")
    await wire.expect("RCPT TO:<a@[127.0.0.1]>", "550 5.1.2")
    await wire.expect("DATA", "354")
    await wire.send(MESSAGE + b".\r\n")
    envelope, body = await gate.stored(await wire.reply())
    assert [recipient.address for recipient in envelope.recipients] == ["somebody@elsewhere.example", "a%b@third.example"]
    assert envelope.client.user == "Anna@example.com"
    assert envelope.client.tls.startswith("TLSv1.3 TLS_")
    assert b" with ESMTPSA (TLSv1.3 TLS_" in body
    assert b"nna@" not in body[: body.index(b"Subject:")]
    await wire.expect("QUIT", "221")
    assert await wire.is_closed()


async def test_before_tls_nothing_else_is_answered(gate: GateUnderTest) -> None:
    await gate.policy(max_errors=None, tls_deadline_commands=100)
    wire = await gate.session()
    for line in ("MAIL FROM:<a@b.example>", "RCPT TO:<a@b.example>", "DATA", "VRFY x", "FROB"):
        await wire.expect(line, "530 5.7.0")
    await wire.expect(f"AUTH PLAIN {plain()}", "538 5.7.11")
    await wire.expect("AUTH LOGIN", "538 5.7.11")
    for line in ("HELO x", "EHLO x", "NOOP", "RSET"):
        await wire.expect(line, "250")


async def test_a_client_that_does_not_start_tls_is_dropped(gate: GateUnderTest) -> None:
    wire = await gate.session()
    for _ in range(9):
        await wire.expect("NOOP", "250")
    await wire.expect("NOOP", "421 4.7.0")
    assert await wire.is_closed()


async def test_a_client_that_takes_too_long_to_start_tls_is_dropped(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    await gate.policy(tls_deadline_s=0.3)
    wire, in_time = await gate.session(), await secured(gate, client_tls)
    assert (await wire.reply()).startswith("421 4.7.0")
    assert await wire.is_closed()
    await in_time.expect("NOOP", "250")


async def test_what_is_pipelined_behind_starttls_is_discarded(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    wire = await gate.session()
    await wire.send(b"STARTTLS\r\nEHLO injected.example\r\nNOOP\r\n" + f"AUTH PLAIN {plain()}\r\n".encode())
    assert (await wire.reply()).startswith("220")
    await wire.writer.start_tls(client_tls, server_hostname="localhost")
    # HELO is forgotten, and nothing that was injected is answered
    await wire.expect("AUTH PLAIN", "503 5.5.1")
    await wire.expect("MAIL FROM:<a@b.example>", "530 5.7.0")
    await wire.expect("QUIT", "221")


async def test_a_failed_handshake_ends_the_session_and_nothing_else(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    wire = await gate.session()
    await wire.expect("STARTTLS", "220")
    await wire.send(b"NOOP\r\nthis is no TLS\r\n")
    assert await wire.is_closed()
    await gate.wait_for(lambda: gate.listener.connections == 0)
    assert (await (await secured(gate, client_tls)).say("NOOP")).startswith("250")


async def test_old_tls_is_refused(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    client_tls.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the client says itself that this is old
        client_tls.minimum_version = ssl.TLSVersion.TLSv1
        client_tls.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError):
        await gate.connect(1, client_tls)


async def test_every_form_of_auth(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    for script in (
        [f"AUTH PLAIN {plain()}"],
        ["AUTH PLAIN", plain()],
        ["auth login", b64(NAME), b64(PASSWORD)],
        [f"AUTH LOGIN {b64(NAME)}", b64(PASSWORD)],
        [f"AUTH PLAIN {plain('ANNA@EXAMPLE.COM')}"],
    ):
        wire = await secured(gate, client_tls)
        for line in script[:-1]:
            await wire.expect(line, "334 ")
        await wire.expect(script[-1], "235 2.7.0")
        await wire.expect("AUTH PLAIN", "503 5.5.1")
        await wire.expect("QUIT", "221")


@pytest.mark.parametrize(
    ("script", "refusal"),
    [
        (["AUTH PLAIN", "*"], "501 5.5.2"),
        (["AUTH LOGIN", "*"], "501 5.5.2"),
        (["AUTH PLAIN not,base64"], "501 5.5.2"),
        (["AUTH LOGIN", "%%%"], "501 5.5.2"),
        (["AUTH PLAIN", "A" * 20_000], "500 5.5.6"),
        (["AUTH PLAIN " + "A" * 20_000], "500 5.5.2"),
        (["AUTH CRAM-MD5"], "504 5.5.4"),
        ([f"AUTH PLAIN {plain(password='wrong')}"], "535 5.7.8"),
        ([f"AUTH PLAIN {plain(name='nobody')}"], "535 5.7.8"),
        ([f"AUTH PLAIN {plain(name='gone')}"], "535 5.7.8"),
        ([f"AUTH PLAIN {plain(name='broken')}"], "535 5.7.8"),
        ([f"AUTH PLAIN {plain(name='')}"], "535 5.7.8"),
    ],
)
async def test_refused_auth_leaves_the_session_in_step(
    gate: GateUnderTest, client_tls: ssl.SSLContext, script: list[str], refusal: str
) -> None:
    wire = await secured(gate, client_tls)
    for line in script[:-1]:
        await wire.expect(line, "334 ")
    await wire.expect(script[-1], refusal)
    await wire.expect("MAIL FROM:<a@b.example>", "530 5.7.0")
    await wire.expect(f"AUTH PLAIN {plain()}", "235 2.7.0")


async def test_attempts_are_limited_in_a_session_and_for_an_address(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    wrong = f"AUTH PLAIN {plain(password='wrong')}"
    for _ in range(2):
        wire = await secured(gate, client_tls)
        for _ in range(3):
            await wire.expect(wrong, "535 5.7.8")
        assert (await wire.reply()).startswith("421 4.7.0")
        assert await wire.is_closed()
    wire = await secured(gate, client_tls)
    await wire.expect(f"AUTH PLAIN {plain()}", "454 4.7.0")


async def test_without_a_broker_nobody_is_let_in_until_it_is_back(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    wire = await secured(gate, client_tls)
    gate.broker.stop(signal.SIGKILL)
    await gate.wait_for(lambda: gate.listener.unavailable() is not None)
    await wire.expect(f"AUTH PLAIN {plain()}", "454 4.7.0")
    await asyncio.to_thread(gate.broker.restart)
    await gate.wait_for(lambda: gate.listener.unavailable() is None)
    await wire.expect(f"AUTH PLAIN {plain()}", "235 2.7.0")
    assert (await wire.message(MESSAGE)).startswith("250")


async def test_a_large_message_inside_tls(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    wire = await secured(gate, client_tls)
    await wire.expect(f"AUTH PLAIN {plain()}", "235")
    envelope, _ = await gate.stored(await wire.message(b"Subject: big\r\n\r\n" + (b"x" * 70 + b"\r\n") * 20_000))
    assert envelope.body is not None
    assert envelope.body.name.startswith("ingress-auth.")


async def test_it_tells_where_it_listens(gate: GateUnderTest) -> None:
    starttls, tls = (f"127.0.0.1:{address.port}" for address in gate.listener.addresses)

    async def told() -> tuple[str, ...]:
        for subject in await gate.api.subjects("KV_STATUS", "$KV.STATUS.ingress-auth.*"):
            report = await gate.api.kv_get("STATUS", subject.removeprefix("$KV.STATUS."))
            return msgspec.json.decode(report or b"{}", type=ServiceStatus).listens
        return ()

    async with asyncio.timeout(PATIENCE_S):
        while not (listens := await told()):
            await asyncio.sleep(0.02)
    assert listens == (starttls, f"{tls} (TLS)")


async def test_chunks_before_tls_and_before_auth_are_thrown_away(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    hidden = b"EHLO evil.example\r\nAUTH PLAIN AGEAYg==\r\n"
    chunk = b"BDAT %d LAST\r\n" % len(hidden) + hidden + b"NOOP\r\n"
    wire = await gate.session()
    for refusal in ("530 5.7.0 must issue", "530 5.7.0 authentication"):
        await wire.send(chunk)
        assert (await wire.reply()).startswith(refusal)
        assert (await wire.reply()).startswith("250 2.0.0")
        if refusal.endswith("issue"):
            await (await wire.start_tls(client_tls)).expect("EHLO client.example", "250 ")
    assert await gate.intake_count() == 0


@pytest.mark.parametrize("enabled", [False, True])
async def test_our_own_people_cannot_say_that_we_found_their_mail_genuine(
    gate: GateUnderTest, client_tls: ssl.SSLContext, enabled: bool
) -> None:
    await gate.policy(listener=ListenerPolicy(mail_authentication=MailAuthentication(enabled=enabled)))
    wire = await secured(gate, client_tls)
    await wire.expect(f"AUTH PLAIN {plain()}", "235 2.7.0")
    forged = b"Authentication-Results: mx.example; dmarc=pass\r\n"
    _, stored = await gate.stored(await wire.message(forged + MESSAGE))
    assert stored.endswith(b"\r\n" + MESSAGE)
    assert (b"Authentication-Results" in stored) is not enabled


async def test_ports_move_while_it_runs_and_tls_begins_where_the_policy_says(
    gate: GateUnderTest, client_tls: ssl.SSLContext
) -> None:
    session = await gate.session()
    first, second = free_port(), free_port()

    async def moved(tls_at: int) -> None:
        binds = tuple(Bind(address="127.0.0.1", port=port, tls=port == tls_at) for port in (first, second))
        await gate.policy(listener=msgspec.structs.replace(gate.listener_policy, binds=ListenerBinds(binds=binds)))
        told = tuple(f"127.0.0.1:{port}{' (TLS)' if port == tls_at else ''}" for port in (first, second))
        await gate.status(lambda status: status.listens == told)

    # from one port to the other and back: each is plain and TLS in turn
    for tls_at, plain_at in ((second, 0), (first, 1), (second, 0)):
        await moved(tls_at)
        inside = await gate.connect(1 - plain_at, tls=client_tls)
        await inside.greeted()
        await inside.expect(f"AUTH PLAIN {plain()}", "235")
        outside = await (await gate.connect(plain_at)).greeted()
        await outside.start_tls(client_tls)
    await session.start_tls(client_tls)


async def test_a_handshake_at_a_port_that_goes_is_finished(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    address = gate.listener.addresses[1]
    reader, writer = await asyncio.open_connection(address.host, address.port)
    await gate.wait_for(lambda: gate.listener.ports.handshakes == 1)
    binds = ListenerBinds(binds=(Bind(address="127.0.0.1", port=free_port()),))
    await gate.policy(listener=msgspec.structs.replace(gate.listener_policy, binds=binds))
    await gate.wait_for(lambda: len(gate.listener.addresses) == 1)
    await writer.start_tls(client_tls, server_hostname="localhost")
    wire = Wire(reader, writer)
    await wire.greeted()
    writer.close()


async def test_logins_and_tls_are_counted_by_outcome_and_version(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    def counted(name: CounterName) -> dict[str, float]:
        return gate.listener.counted().get(name, {})

    inside = await (await gate.connect(1, client_tls)).greeted()
    await inside.expect(f"AUTH PLAIN {plain(password='wrong')}", "535")
    await inside.expect("AUTH PLAIN *", "501")
    await inside.expect(f"AUTH PLAIN {plain()}", "235")
    await secured(gate, client_tls)
    assert counted(CounterName.AUTHENTICATIONS) == {"failed": 1, "given-up": 1, "succeeded": 1}
    assert counted(CounterName.TLS_SESSIONS) == {"TLSv1.3": 2}
    assert counted(CounterName.SESSIONS) == {"": 2}
    assert counted(CounterName.REFUSALS) == {"535": 1, "501": 1}
    await gate.policy(max_connections=2)
    third = await gate.connect()
    assert (await third.reply()).startswith("421")
    assert counted(CounterName.CONNECTIONS_REFUSED) == {"421": 1}
    before = counted(CounterName.OCTETS)
    await inside.expect("QUIT", "221")
    assert await inside.is_closed()
    await gate.wait_for(lambda: gate.listener.connections == 1)
    assert all(octets >= before[direction] > 0 for direction, octets in counted(CounterName.OCTETS).items())
