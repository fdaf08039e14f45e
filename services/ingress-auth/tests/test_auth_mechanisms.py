"""SCRAM-SHA-256 at the authenticated gate over real sockets, and which mechanisms it offers."""

from __future__ import annotations

import base64
import ssl

import argon2
import msgspec
import pytest

from fixtures.gates import GateUnderTest, Wire
from fixtures.scram_client import ScramClient
from postern_core.credentials import DECOY_KEY, SmtpUser, user_key
from postern_core.policy import ListenerAuthentication, ListenerPolicy, ListenerTls, Mechanism, TlsUse
from postern_core.scram import SALT_OCTETS, verifier_of

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
PASSWORD = "w\u00f6rd pass"
HASHER = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture
async def scram_gate(gate: GateUnderTest) -> GateUnderTest:
    """The gate, with users who have verifiers."""
    scram = verifier_of(PASSWORD, iterations=4096).text()
    for user in (
        SmtpUser(name="Anna@example.com", password_hash=HASHER.hash(PASSWORD), scram=scram),
        SmtpUser(name="gone", password_hash=HASHER.hash(PASSWORD), scram=scram, enabled=False),
        SmtpUser(name="broken", password_hash="no hash", scram="no verifier"),
        SmtpUser(name="old", password_hash=HASHER.hash(PASSWORD)),
    ):
        await gate.api.kv_put("USERS", user_key(user.name), msgspec.json.encode(user))
    await gate.api.kv_put("USERS", DECOY_KEY, b"d" * 32)
    return gate


async def secured(gate: GateUnderTest, tls: ssl.SSLContext) -> Wire:
    return await (await gate.connect(1, tls)).greeted()


async def offered(wire: Wire) -> list[str]:
    """The mechanisms that EHLO names."""
    await wire.send(b"EHLO client.example\r\n")
    lines = []
    while not lines or lines[-1][3:4] == "-":
        lines.append((await wire.reader.readline()).decode().rstrip("\r\n"))
    return next((line[4:].split(" ")[1:] for line in lines if line[4:].startswith("AUTH ")), [])


async def challenge(wire: Wire, line: str) -> bytes:
    """What the server says in the challenge that answers `line`."""
    answer = await wire.say(line)
    assert answer.startswith("334 "), answer
    return base64.b64decode(answer[4:])


async def prove(wire: Wire, client: ScramClient) -> str:
    """A whole exchange; the last reply."""
    server_first = await challenge(wire, f"AUTH SCRAM-SHA-256 {b64(client.first())}")
    answer = await wire.say(b64(client.final(server_first)))
    if not answer.startswith("334 "):
        return answer
    assert client.accepts(base64.b64decode(answer[4:]))
    return await wire.say("")


async def test_both_sides_prove_that_they_know_the_password(scram_gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    wire = await secured(scram_gate, client_tls)
    assert await offered(wire) == ["PLAIN", "LOGIN", "SCRAM-SHA-256"]
    assert await prove(wire, ScramClient("ANNA@example.com", PASSWORD)) == "235 2.7.0 authentication succeeded"
    envelope, _ = await scram_gate.stored(await wire.message(MESSAGE))
    assert envelope.client.user == "Anna@example.com"
    await wire.expect("AUTH SCRAM-SHA-256", "503 5.5.1")


async def test_without_initial_response_and_in_the_form_that_the_keyboard_made(
    scram_gate: GateUnderTest, client_tls: ssl.SSLContext
) -> None:
    wire, client = await secured(scram_gate, client_tls), ScramClient("anna@example.com", PASSWORD)
    assert await challenge(wire, "AUTH SCRAM-SHA-256") == b""
    server_first = await challenge(wire, b64(client.first()))
    assert client.accepts(await challenge(wire, b64(client.final(server_first))))
    await wire.expect("", "235 2.7.0")


@pytest.mark.parametrize(
    ("name", "password"), [("anna@example.com", "wrong"), ("gone", PASSWORD), ("broken", PASSWORD), ("old", PASSWORD), ("x", "y")]
)
async def test_who_proves_nothing_is_refused_at_the_end_and_may_go_on(
    scram_gate: GateUnderTest, client_tls: ssl.SSLContext, name: str, password: str
) -> None:
    wire = await secured(scram_gate, client_tls)
    client = ScramClient(name, password)
    assert await prove(wire, client) == "535 5.7.8 authentication credentials invalid"
    assert len(client.salt) == SALT_OCTETS
    await wire.expect("MAIL FROM:<a@b.example>", "530 5.7.0")
    assert (await prove(wire, ScramClient("anna@example.com", PASSWORD))).startswith("235 ")


async def test_who_does_not_exist_has_the_same_salt_everywhere_and_always(
    scram_gate: GateUnderTest, client_tls: ssl.SSLContext
) -> None:
    salts = []
    for name in ("nobody", "NOBODY", "old", "somebody"):
        wire, client = await secured(scram_gate, client_tls), ScramClient(name, "x")
        await prove(wire, client)
        salts.append((client.salt, client.iterations))
        # as another replica would: with nothing but what is in KV USERS
        credentials = scram_gate.listener.profile.authenticator
        credentials._decoy_secret, credentials._own_secret = b"", b"another process"  # type: ignore[union-attr]
    assert salts[0] == salts[1]
    assert len({*salts}) == 3


@pytest.mark.parametrize(
    ("script", "refusal"),
    [
        (["AUTH SCRAM-SHA-256", "*"], "501 5.5.2 authentication cancelled"),
        (["AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9eA==", "*"], "501 5.5.2 authentication cancelled"),
        (["AUTH SCRAM-SHA-256", "%%%"], "501 5.5.2"),
        (["AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9eA==", "%%%"], "501 5.5.2"),
        (["AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9eA==", "A" * 20_000], "500 5.5.6"),
        (["AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9eA==", b64(b"c=biws,r=other,p=AAAA")], "535 5.7.8"),
        ([f"AUTH SCRAM-SHA-256 {b64(b'p=tls-exporter,,n=user,r=x')}"], "535 5.7.8"),
        (["AUTH SCRAM-SHA-256 ="], "501 5.5.2"),
        (["AUTH SCRAM-SHA-256-PLUS"], "504 5.5.4"),
        (["AUTH EXTERNAL ="], "504 5.5.4"),
    ],
)
async def test_a_broken_exchange_leaves_the_session_in_step(
    scram_gate: GateUnderTest, client_tls: ssl.SSLContext, script: list[str], refusal: str
) -> None:
    wire = await secured(scram_gate, client_tls)
    for line in script[:-1]:
        await wire.expect(line, "334 ")
    await wire.expect(script[-1], refusal)
    assert (await prove(wire, ScramClient("anna@example.com", PASSWORD))).startswith("235 ")


async def test_cancelled_when_the_server_has_proved_itself_is_no_login(
    scram_gate: GateUnderTest, client_tls: ssl.SSLContext
) -> None:
    wire, client = await secured(scram_gate, client_tls), ScramClient("anna@example.com", PASSWORD)
    server_first = await challenge(wire, f"AUTH SCRAM-SHA-256 {b64(client.first())}")
    await challenge(wire, b64(client.final(server_first)))
    await wire.expect("*", "501 5.5.2")
    await wire.expect("MAIL FROM:<a@b.example>", "530 5.7.0")


async def test_failed_proofs_count_as_failed_passwords_do(scram_gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    for _ in range(2):
        wire = await secured(scram_gate, client_tls)
        for _ in range(3):
            assert (await prove(wire, ScramClient("anna@example.com", "wrong"))).startswith("535 ")
        assert (await wire.reply()).startswith("421 4.7.0")
    wire, right = await secured(scram_gate, client_tls), b64(f"\0anna@example.com\0{PASSWORD}".encode())
    await wire.expect(f"AUTH SCRAM-SHA-256 {b64(b'n,,n=anna@example.com,r=x')}", "454 4.7.0")
    await wire.expect(f"AUTH PLAIN {right}", "454 4.7.0")


async def test_the_policy_says_which_mechanisms_there_are_also_in_open_sessions(
    scram_gate: GateUnderTest, client_tls: ssl.SSLContext
) -> None:
    wire = await secured(scram_gate, client_tls)
    only_scram = ListenerAuthentication(mechanisms=(Mechanism.SCRAM_SHA_256,))
    scram_gate.listener_policy = ListenerPolicy(authentication=only_scram)
    await scram_gate.policy()
    assert await offered(wire) == ["SCRAM-SHA-256"]
    await wire.expect("AUTH PLAIN AGEAYg==", "504 5.5.4")
    await wire.expect("AUTH LOGIN", "504 5.5.4")
    assert (await prove(wire, ScramClient("anna@example.com", PASSWORD))).startswith("235 ")


@pytest.mark.parametrize(
    ("listener", "reason"),
    [
        (ListenerPolicy(authentication=ListenerAuthentication(mechanisms=())), "no mechanism"),
        (ListenerPolicy(tls=ListenerTls(use=TlsUse.OFF)), "TLS cannot be off"),
    ],
)
async def test_a_policy_by_which_nobody_could_log_in_is_refused(
    scram_gate: GateUnderTest, client_tls: ssl.SSLContext, listener: ListenerPolicy, reason: str
) -> None:
    assert reason in await scram_gate.refused_policy(listener=listener)
    wire = await secured(scram_gate, client_tls)
    assert (await prove(wire, ScramClient("anna@example.com", PASSWORD))).startswith("235 ")


async def test_auth_stays_inside_tls_where_the_policy_makes_tls_optional(
    scram_gate: GateUnderTest, client_tls: ssl.SSLContext
) -> None:
    scram_gate.listener_policy = ListenerPolicy(tls=ListenerTls(use=TlsUse.OPTIONAL))
    await scram_gate.policy(tls_deadline_commands=2)
    wire = await scram_gate.session()
    assert await offered(wire) == []
    await wire.expect("HELP", "214")
    await wire.expect("MAIL FROM:<a@b.example>", "530 5.7.0 authentication required")
    await wire.expect("AUTH PLAIN AGEAYg==", "538 5.7.11")
    await wire.start_tls(client_tls)
    assert await offered(wire) == ["PLAIN", "LOGIN", "SCRAM-SHA-256"]
    assert (await prove(wire, ScramClient("anna@example.com", PASSWORD))).startswith("235 ")
