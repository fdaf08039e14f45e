"""One session with a next hop, in good days and bad: every misfortune over real sockets."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fixtures.smart_host import SmartHost
from postern_core.envelope import BodyType, Recipient
from postern_core.policy import NextHop, RouteTls
from postern_smtp.client import ClientOptions, ConnectionFailed, ConnectionLost, RecipientOutcome, SmtpClient, Transaction

BODY = b"Subject: hello\r\n\r\n.one dot\r\n..two dots\r\nlast line\r\n"
OFFERS = [{"SIZE 10485760", "8BITMIME"}, {"PIPELINING", "SIZE 10485760", "8BITMIME"}]
both_ways = pytest.mark.parametrize("offer", OFFERS, ids=["step-by-step", "pipelined"])


def options(**changes: object) -> ClientOptions:
    defaults: dict[str, object] = {
        "helo_name": "relay.example",
        "tls": RouteTls.OFF,
        "connect_timeout_s": 5.0,
        "command_timeout_s": 5.0,
        "data_timeout_s": 5.0,
    }
    return ClientOptions(**(defaults | changes))  # type: ignore[arg-type]


def message(*to: str, body: bytes = BODY, **fields: object) -> Transaction:
    recipients = tuple(Recipient(n=n, address=address) for n, address in enumerate(to or ("a@relay.example",)))
    return Transaction("sender@example.org", recipients, body, **({"body_type": BodyType.SEVEN_BIT} | fields))  # type: ignore[arg-type]


@asynccontextmanager
async def session(host: SmartHost, **changes: object) -> AsyncIterator[SmtpClient]:
    client = await SmtpClient.connect(NextHop(host=host.host, port=host.port), options(**changes))
    try:
        yield client
    finally:
        await client.quit()
    assert not client.usable


def said(outcomes: tuple[RecipientOutcome, ...]) -> list[tuple[str, int, str, str]]:
    return [(o.recipient.address, o.reply.code, o.reply.status, o.stage) for o in outcomes]


@asynccontextmanager
async def wire_script(*lines: str) -> AsyncIterator[NextHop]:
    """A server that follows a script: `S:` lines are sent, `C:` lines are patterns that what comes has to match; `S-` sends
    without a line end, `!` hangs up. Whatever does not match fails the test."""
    faults: list[BaseException] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for line in lines:
                kind, text = line[:2], line[2:].strip()
                if kind == "S:":
                    writer.write(text.encode("latin-1") + b"\r\n")
                elif kind == "S-":
                    writer.write(text.encode("latin-1"))
                elif kind == "C:":
                    came = (await reader.readline()).decode("latin-1")
                    assert re.fullmatch(text, came.strip()), f"{came!r} is not {text!r}"
                else:
                    return
            await reader.read()
        except AssertionError as fault:
            faults.append(fault)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield NextHop(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
    finally:
        server.close()
    assert not faults


HELLO = ("S: 220 hi", "C: EHLO relay.example", "S: 250-hi\r\n250 PIPELINING")
GROUP = ("C: MAIL FROM:.*", "C: RCPT TO:.*", "C: RCPT TO:.*", "C: DATA")


async def converse(next_hop: NextHop, **changes: object) -> tuple[SmtpClient, tuple[RecipientOutcome, ...]]:
    client = await SmtpClient.connect(next_hop, options(**changes))
    try:
        return client, await client.send(message("a@relay.example", "b@relay.example"))
    finally:
        if not client.usable:
            client.discard()


# -- good days


@both_ways
async def test_messages_arrive_byte_for_byte_over_one_session(smart_host: SmartHost, offer: set[str]) -> None:
    smart_host.offer = offer
    async with session(smart_host) as client:
        for _ in range(3):
            outcomes = await client.send(message("a@relay.example", "b@relay.example"))
            assert said(outcomes) == [(f"{name}@relay.example", 250, "2.0.0", "end-of-data") for name in "ab"]
            assert client.usable
        assert client.messages_sent == 3
    assert [(m.reverse_path, m.recipients, m.data, m.session) for m in smart_host.messages] == [
        ("sender@example.org", ("a@relay.example", "b@relay.example"), BODY, 1)
    ] * 3
    assert smart_host.violations == []
    assert smart_host.commands[-1] == "QUIT"


@both_ways
@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 3_000_000])
async def test_any_size_arrives(smart_host: SmartHost, offer: set[str], size: int) -> None:
    smart_host.offer = offer
    body = memoryview((b".x" * 30 + b"\r\n") * (size // 62 + 1))[: size // 62 * 62] if size > 1 else b"\r\n" * size
    async with session(smart_host) as client:
        await client.send(message(body=body))  # type: ignore[arg-type]
    assert smart_host.messages[0].data == bytes(body)
    assert f"SIZE={len(body)}" in smart_host.messages[0].mail_parameters


async def test_bare_line_ends_never_go_out(smart_host: SmartHost) -> None:
    async with session(smart_host) as client:
        await client.send(message(body=b"a\n.\nMAIL FROM:<x@y>\r.\rb\r\n.\n"))
    assert [m.data for m in smart_host.messages] == [b"a\r\n.\r\nMAIL FROM:<x@y>\r\n.\r\nb\r\n.\r\n"]
    assert smart_host.violations == []


async def test_dsn_parameters_reach_a_peer_that_offers_dsn(smart_host: SmartHost) -> None:
    recipient = Recipient(n=0, address="a@relay.example", notify="NEVER", orcpt="rfc822;x@relay.example")
    transaction = Transaction("", (recipient,), "ä\r\n".encode(), BodyType.EIGHT_BIT_MIME, ret="FULL", envid="E1")
    async with session(smart_host) as client:
        await client.send(transaction)
    assert smart_host.messages[0].reverse_path == ""
    assert smart_host.messages[0].mail_parameters == "SIZE=4 BODY=8BITMIME RET=FULL ENVID=E1"
    assert smart_host.messages[0].rcpt_parameters == ("NOTIFY=NEVER ORCPT=rfc822;x@relay.example",)


# -- EHLO and HELO


@pytest.mark.parametrize("reply", ["500 what?", "502 5.5.1 not implemented", "504 no", "550 no"])
async def test_helo_follows_an_ehlo_that_is_not_understood(smart_host: SmartHost, reply: str) -> None:
    smart_host.reply_to("EHLO", reply)
    async with session(smart_host) as client:
        await client.send(message())
    assert smart_host.messages[0].helo_verb == "HELO"
    assert smart_host.messages[0].mail_parameters == ""


async def test_a_route_may_ask_for_helo_at_once(smart_host: SmartHost) -> None:
    async with session(smart_host, use_helo=True, tls=RouteTls.OPPORTUNISTIC) as client:
        await client.send(message())
    assert smart_host.commands[0] == "HELO relay.example"
    assert smart_host.messages[0].helo_verb == "HELO"


@pytest.mark.parametrize(
    ("stage", "reply", "seen"),
    [
        ("CONNECT", "554 5.3.2 no service here", ("connect", 554, "5.3.2")),
        ("CONNECT", "421 4.3.2 later", ("connect", 421, "4.3.2")),
        ("EHLO", "421 4.3.2 later", ("ehlo", 421, "4.3.2")),
        ("EHLO", "450 4.7.1 who are you", ("ehlo", 450, "4.7.1")),
    ],
)
async def test_a_session_that_is_refused_fails_with_the_reply(
    smart_host: SmartHost, stage: str, reply: str, seen: object
) -> None:
    smart_host.reply_to(stage, reply)
    with pytest.raises(ConnectionFailed) as failed:
        await SmtpClient.connect(NextHop(host="127.0.0.1", port=smart_host.port), options())
    assert failed.value.reply is not None
    assert (failed.value.stage, failed.value.reply.code, failed.value.reply.status) == seen
    assert failed.value.next_hop == NextHop(host="127.0.0.1", port=smart_host.port)


async def test_helo_refused_too_fails_with_its_reply(smart_host: SmartHost) -> None:
    smart_host.reply_to("EHLO", "502 no")
    smart_host.reply_to("HELO", "550 5.7.1 nor you")
    with pytest.raises(ConnectionFailed) as failed:
        await SmtpClient.connect(NextHop(host="127.0.0.1", port=smart_host.port), options())
    assert failed.value.stage == "ehlo"
    assert failed.value.reply is not None
    assert failed.value.reply.status == "5.7.1"


@pytest.mark.parametrize(("during", "stage"), [("CONNECT", "connect"), ("EHLO", "ehlo")])
async def test_a_peer_that_hangs_up_early_fails_without_a_reply(smart_host: SmartHost, during: str, stage: str) -> None:
    smart_host.hang_up(during=during)
    with pytest.raises(ConnectionFailed) as failed:
        await SmtpClient.connect(NextHop(host="127.0.0.1", port=smart_host.port), options())
    assert (failed.value.stage, failed.value.reply) == (stage, None)


async def test_nobody_there(smart_host: SmartHost) -> None:
    await smart_host.stop()
    for host in ("127.0.0.1", "no-such-host.invalid", "x" * 80 + ".invalid", ""):
        with pytest.raises(ConnectionFailed) as failed:
            await SmtpClient.connect(NextHop(host=host, port=smart_host.port), options())
        assert (failed.value.stage, failed.value.reply) == ("connect", None)
    await smart_host.start()
    async with session(smart_host) as client:
        await client.send(message())


@pytest.mark.parametrize(
    "lines",
    [("S: SSH-2.0-server",), ("S: 220-" + "x" * 3000,), ("S: " + "220-x\r\n" * 200,), ("S: 250 not a greeting",), ("S- 220",)],
)
async def test_a_peer_that_does_not_speak_smtp_is_left(lines: tuple[str, ...]) -> None:
    async with wire_script(*lines) as next_hop:
        with pytest.raises(ConnectionFailed) as failed:
            await SmtpClient.connect(next_hop, options(command_timeout_s=0.3))
    assert (failed.value.stage, failed.value.reply) == ("connect", None)


@asynccontextmanager
async def two_addresses(first: SmartHost, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[NextHop, SmartHost]]:
    """A name with two addresses: `first` listens at one, the host that is handed out at the other. Only the resolver is made up."""
    second = SmartHost(host="127.0.0.2", port=first.port)
    await second.start()
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host.host, host.port)) for host in (first, second)]
    resolve = socket.getaddrinfo

    def look_up(host: str, *args: object, **more: object) -> object:
        return found if host == "cluster.relay.example" else resolve(host, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    try:
        yield NextHop(host="cluster.relay.example", port=first.port), second
    finally:
        await second.stop()


@pytest.mark.parametrize(
    ("stage", "reply"),
    [
        ("CONNECT", "554 5.3.2 closed"),
        ("CONNECT", "421 4.3.2 busy"),
        ("CONNECT", None),
        ("EHLO", "421 4.3.2 busy"),
        ("EHLO", None),
    ],
)
async def test_the_next_address_of_a_name_is_tried_when_one_grants_no_session(
    smart_host: SmartHost, monkeypatch: pytest.MonkeyPatch, stage: str, reply: str | None
) -> None:
    async with two_addresses(smart_host, monkeypatch) as (next_hop, second):
        if reply is None:
            smart_host.hang_up(during=stage)
        else:
            smart_host.reply_to(stage, reply)
        client = await SmtpClient.connect(next_hop, options())
        await client.send(message())
        await client.quit()
        assert len(second.messages) == 1
        # when no address is left, what a peer said is told, and nothing of the others is lost
        await second.stop()
        with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.2") as failed:
            await SmtpClient.connect(next_hop, options())
    assert failed.value.next_hop == next_hop
    assert failed.value.stage == ("connect" if reply is None else stage.lower())
    assert (failed.value.reply.code if failed.value.reply else None) == (int(reply[:3]) if reply else None)


async def test_refused_credentials_are_not_tried_at_every_address(smart_host: SmartHost, monkeypatch: pytest.MonkeyPatch) -> None:
    smart_host.offer = {"STARTTLS", "AUTH PLAIN"}
    smart_host.users = {"relay": "secret"}
    async with two_addresses(smart_host, monkeypatch) as (next_hop, second):
        with pytest.raises(ConnectionFailed, match="535"):
            await SmtpClient.connect(next_hop, options(tls=RouteTls.REQUIRED, credentials=("relay", "wrong")))
        assert second.connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
async def test_a_smart_host_is_a_name_or_an_address_of_either_family(host: str) -> None:
    smart_host = SmartHost(host=host)
    await smart_host.start()
    client = await SmtpClient.connect(NextHop(host=host, port=smart_host.port), options(tls=RouteTls.OPPORTUNISTIC))
    await client.send(message())
    await client.quit()
    await smart_host.stop()
    assert len(smart_host.messages) == 1


# -- recipients


async def test_as_many_recipients_as_a_route_may_have_go_in_one_group(smart_host: SmartHost) -> None:
    """The peer's replies to a pipelined group of ten thousand come in at once; they are no flood."""
    async with session(smart_host) as client:
        outcomes = await client.send(message(*(f"u{n}@relay.example" for n in range(10_000))))
    assert {outcome.reply.code for outcome in outcomes} == {250}
    assert len(smart_host.messages[0].recipients) == 10_000


async def test_a_250_at_great_length_is_a_250() -> None:
    long = "250-" + "x" * 3000 + "\r\n250 " + "y" * 3000
    script = (*HELLO, *GROUP, "S: 250 ok\r\n250 ok\r\n250 ok\r\n354 go", *["C: .*"] * 6, f"S: {long}", "C: QUIT", "S: 221 bye")
    async with wire_script(*script) as next_hop:
        client, outcomes = await converse(next_hop)
        assert [(code, stage) for _, code, _, stage in said(outcomes)] == [(250, "end-of-data")] * 2
        await client.quit()


@both_ways
async def test_some_recipients_refused(smart_host: SmartHost, offer: set[str]) -> None:
    smart_host.offer = offer
    smart_host.refuse_rcpt("b@relay.example", "550 5.1.1 unknown")
    smart_host.defer_rcpt("d@relay.example", "452 4.5.3 too many recipients")
    async with session(smart_host) as client:
        outcomes = await client.send(message(*(f"{name}@relay.example" for name in "abcd")))
        assert said(outcomes) == [
            ("a@relay.example", 250, "2.0.0", "end-of-data"),
            ("b@relay.example", 550, "5.1.1", "rcpt"),
            ("c@relay.example", 250, "2.0.0", "end-of-data"),
            ("d@relay.example", 452, "4.5.3", "rcpt"),
        ]
    assert smart_host.messages[0].recipients == ("a@relay.example", "c@relay.example")


@both_ways
async def test_all_recipients_refused_and_the_session_goes_on(smart_host: SmartHost, offer: set[str]) -> None:
    smart_host.offer = offer
    smart_host.refuse_rcpt("a@relay.example")
    async with session(smart_host) as client:
        assert said(await client.send(message("a@relay.example"))) == [("a@relay.example", 550, "5.1.1", "rcpt")]
        assert client.usable
        assert said(await client.send(message("b@relay.example"))) == [("b@relay.example", 250, "2.0.0", "end-of-data")]
    assert smart_host.connections == 1
    assert "RSET" in smart_host.commands
    if "PIPELINING" not in offer:
        assert smart_host.commands.count("DATA") == 1


async def test_354_although_no_recipient_was_accepted_gets_nothing_but_a_dot() -> None:
    script = (
        *HELLO,
        *GROUP,
        "S: 250 ok\r\n550 5.1.1 no\r\n550 5.1.1 no\r\n354 go",
        r"C: \.",
        "S: 554 no recipients",
        "C: QUIT",
        "S: 221 bye",
    )
    async with wire_script(*script) as next_hop:
        client, outcomes = await converse(next_hop)
        assert [(code, stage) for _, code, _, stage in said(outcomes)] == [(550, "rcpt")] * 2
        assert client.usable
        await client.quit()


@both_ways
async def test_mail_refused_settles_all(smart_host: SmartHost, offer: set[str]) -> None:
    smart_host.offer = offer
    smart_host.reply_to("MAIL", "550 5.7.1 not from you", times=1)
    async with session(smart_host) as client:
        outcomes = await client.send(message("a@relay.example", "b@relay.example"))
        assert said(outcomes) == [(f"{name}@relay.example", 550, "5.7.1", "mail") for name in "ab"]
        await client.send(message())
    assert (len(smart_host.messages), smart_host.connections) == (1, 1)


@both_ways
async def test_data_refused_settles_those_that_were_accepted(smart_host: SmartHost, offer: set[str]) -> None:
    smart_host.offer = offer
    smart_host.refuse_rcpt("b@relay.example")
    smart_host.reply_to("DATA", "451 4.3.0 not now", times=1)
    async with session(smart_host) as client:
        outcomes = await client.send(message("a@relay.example", "b@relay.example"))
        assert said(outcomes) == [("a@relay.example", 451, "4.3.0", "data"), ("b@relay.example", 550, "5.1.1", "rcpt")]
        await client.send(message())
    assert (len(smart_host.messages), smart_host.connections) == (1, 1)


@both_ways
async def test_message_refused_after_the_dot(smart_host: SmartHost, offer: set[str]) -> None:
    smart_host.offer = offer
    smart_host.reply_to("END-OF-DATA", "554-5.7.1 spam\r\n554 5.7.1 really", times=1)
    async with session(smart_host) as client:
        outcomes = await client.send(message())
        assert said(outcomes) == [("a@relay.example", 554, "5.7.1", "end-of-data")]
        assert outcomes[0].reply.text == "spam really"
        await client.send(message())
    assert (len(smart_host.messages), smart_host.connections) == (1, 1)


# -- what cannot be sent at all


async def test_a_message_over_the_announced_size_is_not_begun(smart_host: SmartHost) -> None:
    smart_host.offer = {"PIPELINING", "SIZE 20"}
    async with session(smart_host) as client:
        assert said(await client.send(message())) == [("a@relay.example", 552, "5.3.4", "mail")]
        assert said(await client.send(message(body=b"short\r\n"))) == [("a@relay.example", 250, "2.0.0", "end-of-data")]
    assert len([c for c in smart_host.commands if c.startswith("MAIL")]) == 1


@pytest.mark.parametrize("use_helo", [False, True])
async def test_8bit_data_is_encoded_for_a_7bit_peer_or_returned(smart_host: SmartHost, use_helo: bool) -> None:
    """A route that asks for HELO is one to a 7-bit peer: without encoding, most of today's mail would come back from it."""
    smart_host.offer = {"PIPELINING"}
    async with session(smart_host, use_helo=use_helo) as client:
        in_a_field = message(body="Subject: ä\r\n\r\nx\r\n".encode(), body_type=BodyType.EIGHT_BIT_MIME)
        assert said(await client.send(in_a_field)) == [("a@relay.example", 554, "5.6.3", "mail")]
        await client.send(message(body_type=BodyType.EIGHT_BIT_MIME))  # declared so, but plain ASCII: fits
        head = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
        await client.send(message(body=head + b"Content-Transfer-Encoding: 8bit\r\n\r\nGr\xc3\xbc\xc3\x9fe\n.\n"))
    plain, encoded = smart_host.messages
    assert plain.data == BODY
    assert encoded.data == head + b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe\r\n=2E\r\n"
    assert {m.mail_parameters for m in smart_host.messages} == {""}
    assert smart_host.violations == []


async def test_an_address_that_fits_no_command_is_refused_alone(smart_host: SmartHost) -> None:
    async with session(smart_host) as client:
        outcomes = await client.send(message("a\r\nRSET@relay.example", "b@relay.example", "ü@relay.example", ""))
        assert [(code, status, stage) for _, code, status, stage in said(outcomes)] == [
            (553, "5.1.3", "rcpt"),
            (250, "2.0.0", "end-of-data"),
            (553, "5.6.7", "rcpt"),
            (553, "5.1.3", "rcpt"),
        ]
    assert "RSET" not in smart_host.commands


# -- connections that end


@both_ways
@pytest.mark.parametrize(
    ("stage", "seen"), [("MAIL", "mail"), ("RCPT", "rcpt"), ("DATA", "data"), ("END-OF-DATA", "end-of-data")], ids=str.lower
)
async def test_421_settles_everybody_who_is_open(smart_host: SmartHost, offer: set[str], stage: str, seen: str) -> None:
    smart_host.offer = offer
    smart_host.reply_to(stage, "421 4.3.2 shutting down", times=1)
    async with session(smart_host) as client:
        outcomes = await client.send(message("a@relay.example", "b@relay.example"))
        assert said(outcomes) == [(f"{name}@relay.example", 421, "4.3.2", seen) for name in "ab"]
        assert not client.usable
        with pytest.raises(ConnectionLost):
            await client.send(message())


@both_ways
@pytest.mark.parametrize(
    ("during", "stage"), [("MAIL", "mail"), ("RCPT", "rcpt"), ("DATA", "data"), ("END-OF-DATA", "end-of-data")], ids=str.lower
)
async def test_a_peer_that_hangs_up(smart_host: SmartHost, offer: set[str], during: str, stage: str) -> None:
    smart_host.offer = offer
    smart_host.hang_up(during=during)
    transaction = message("a@relay.example", "b@relay.example", body=BODY * 200_000 if during == "DATA" else BODY)
    async with session(smart_host) as client:
        with pytest.raises(ConnectionLost) as lost:
            await client.send(transaction)
        assert not client.usable
    assert lost.value.stage == stage
    assert lost.value.outcomes == ()
    assert lost.value.in_doubt == (transaction.recipients if stage == "end-of-data" else ())
    assert lost.value.next_hop == NextHop(host="127.0.0.1", port=smart_host.port)
    assert smart_host.messages == []


async def test_what_was_refused_before_the_loss_stays_refused(smart_host: SmartHost) -> None:
    smart_host.refuse_rcpt("a@relay.example")
    smart_host.hang_up(during="END-OF-DATA")
    async with session(smart_host) as client:
        with pytest.raises(ConnectionLost) as lost:
            await client.send(message("a@relay.example", "b@relay.example"))
    assert said(lost.value.outcomes) == [("a@relay.example", 550, "5.1.1", "rcpt")]
    assert [r.address for r in lost.value.in_doubt] == ["b@relay.example"]


async def test_loss_after_everybody_is_settled_is_no_loss(smart_host: SmartHost) -> None:
    smart_host.refuse_rcpt("a@relay.example")
    smart_host.hang_up(during="RSET")
    async with session(smart_host) as client:
        assert said(await client.send(message())) == [("a@relay.example", 550, "5.1.1", "rcpt")]
        assert not client.usable


@pytest.mark.parametrize(
    ("replies", "stage"),
    [
        ("", "mail"),
        ("250 ok", "rcpt"),
        ("250 ok\r\n250 ok\r\n250 ok", "data"),
        ("250 ok\r\n250 ok\r\n250 ok\r\n250-half", "data"),
        ("250 ok\r\nwhat is this", "rcpt"),
        ("250 ok\r\n354 out of step", "rcpt"),
        ("250 ok\r\n250 ok\r\n250 ok\r\n250 no", "data"),
        ("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 already", "data"),
    ],
)
async def test_silence_and_nonsense_end_the_session(replies: str, stage: str) -> None:
    async with wire_script(*HELLO, *GROUP, f"S: {replies}" if replies else "S-") as next_hop:
        with pytest.raises(ConnectionLost) as lost:
            await converse(next_hop, command_timeout_s=0.3)
    assert (lost.value.stage, lost.value.in_doubt) == (stage, ())


async def test_a_reply_that_drips_in_for_ever_runs_into_the_time_out() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(b"220-x\r\n")
                await asyncio.sleep(0.1)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ConnectionFailed, match="no reply within"):
        await SmtpClient.connect(NextHop(host="127.0.0.1", port=port), options(command_timeout_s=0.35))
    server.close()


async def test_no_reply_to_the_dot_leaves_the_recipients_in_doubt() -> None:
    script = (*HELLO, *GROUP, "S: 250 ok\r\n250 ok\r\n550 5.1.1 no\r\n354 go", *["C: .*"] * 6)
    async with wire_script(*script) as next_hop:
        with pytest.raises(ConnectionLost) as lost:
            await converse(next_hop, data_timeout_s=0.2)
    assert lost.value.stage == "end-of-data"
    assert [r.address for r in lost.value.in_doubt] == ["a@relay.example"]
    assert said(lost.value.outcomes) == [("b@relay.example", 550, "5.1.1", "rcpt")]


@pytest.mark.parametrize("reply", ["552 5.3.4 too much", "421 4.3.1 disk full"])
async def test_a_refusal_in_the_middle_of_the_data_counts_and_the_rest_is_not_sent(reply: str) -> None:
    """The peer stops reading after a first block: back-pressure holds us until its reply comes."""
    got = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        writer.write(b"220 hi\r\n")
        await reader.readline()
        writer.write(b"250-hi\r\n250 PIPELINING\r\n")
        await reader.readuntil(b"DATA\r\n")
        writer.write(b"250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n")
        got += len(await reader.read(65536))
        await asyncio.sleep(0.1)
        writer.write(reply.encode() + b"\r\n")
        await writer.drain()
        while data := await reader.read(65536):
            got += len(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=65536)
    client = await SmtpClient.connect(NextHop(host="127.0.0.1", port=server.sockets[0].getsockname()[1]), options())
    body = b"x" * 62 + b"\r\n"
    outcomes = await client.send(message("a@relay.example", "b@relay.example", body=body * 1_000_000))
    server.close()
    assert [(o.reply.code, o.stage) for o in outcomes] == [(int(reply[:3]), "data")] * 2
    assert not client.usable
    assert got < 40_000_000


async def test_a_peer_that_takes_no_data_runs_into_the_time_out() -> None:
    stuck = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hi\r\n")
        await reader.readline()
        writer.write(b"250-hi\r\n250 PIPELINING\r\n")
        await reader.readuntil(b"DATA\r\n")
        writer.write(b"250 ok\r\n250 ok\r\n354 go\r\n")
        await stuck.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1024)
    client = await SmtpClient.connect(
        NextHop(host="127.0.0.1", port=server.sockets[0].getsockname()[1]), options(command_timeout_s=0.3)
    )
    with pytest.raises(ConnectionLost, match="took no data") as lost:
        await client.send(message(body=(b"x" * 62 + b"\r\n") * 500_000))
    stuck.set()
    server.close()
    assert (lost.value.stage, lost.value.in_doubt) == ("data", ())


async def test_a_session_that_the_peer_ends_while_idle_is_not_usable(smart_host: SmartHost) -> None:
    async with session(smart_host) as client:
        assert client.usable
        await smart_host.stop()
        while client.usable:
            await asyncio.sleep(0.001)


async def test_a_421_out_of_the_blue_makes_the_session_unusable() -> None:
    async with wire_script(*HELLO, "S: 421 4.4.2 idle for too long") as next_hop:
        client = await SmtpClient.connect(next_hop, options())
        while client.usable:
            await asyncio.sleep(0.001)
        with pytest.raises(ConnectionLost):
            await client.send(message())


@pytest.mark.parametrize("during", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "END-OF-DATA"])
async def test_cancelled_at_any_wait_the_connection_is_closed(smart_host: SmartHost, during: str) -> None:
    """The peer takes its time for each reply; we are cancelled while it does."""
    smart_host.offer = {"SIZE"}
    smart_host.slow(0.02)
    reached = {"CONNECT": 0, "EHLO": 1, "MAIL": 2, "RCPT": 3, "DATA": 4, "END-OF-DATA": 4}[during]

    async def converse_with_it() -> None:
        client = await SmtpClient.connect(NextHop(host="127.0.0.1", port=smart_host.port), options())
        await client.send(message())

    task = asyncio.create_task(converse_with_it())
    while smart_host.connections == 0 or len(smart_host.commands) < reached:
        await asyncio.sleep(0)
    if during == "END-OF-DATA":
        await asyncio.sleep(0.03)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(2):
        while smart_host.open_connections:
            await asyncio.sleep(0.001)


async def test_options_do_not_show_the_password() -> None:
    assert "hunter2" not in repr(options(credentials=("user", "hunter2")))
