"""What an account may do at the authenticated gate: its senders, its rates, its app-passwords, and what happens when it is switched off."""

from __future__ import annotations

import base64
import ssl

import argon2
import msgspec
import pytest

from fixtures.auth_gate import HASHER, QUICK
from fixtures.gates import GateUnderTest, Wire
from postern_core.accounts import AccountVerb, PasswordUses, control_subject
from postern_core.credentials import AppPassword, SmtpUser, user_key
from postern_core.policy import ListenerPolicy, Rates, SenderRules, SendingRates
from postern_ingress_auth import users
from postern_ingress_auth.users import Users

PHONE = "abcdefgh-aaaaaa-bbbbbb-cccccc-dddddd-eeeeee"
TABLET = "bcdefghi-aaaaaa-bbbbbb-cccccc-dddddd-eeeeee"
ANNA = SmtpUser(name="Anna@example.com", password_hash=HASHER.hash("wörd pass"))


def plain(name: str, password: str) -> str:
    return "AUTH PLAIN " + base64.b64encode(f"\0{name}\0{password}".encode()).decode()


async def secured(gate: GateUnderTest, tls: ssl.SSLContext) -> Wire:
    return await (await gate.connect(1, tls)).greeted()


async def logged_in(gate: GateUnderTest, tls: ssl.SSLContext, password: str = "wörd pass") -> Wire:
    wire = await secured(gate, tls)
    await wire.expect(plain("anna@example.com", password), "235 2.7.0")
    return wire


async def put(gate: GateUnderTest, **changes: object) -> None:
    """Anna, changed."""
    user = msgspec.structs.replace(ANNA, **changes)
    await gate.api.kv_put("USERS", user_key(user.name), msgspec.json.encode(user))


async def listener(gate: GateUnderTest, **parts: object) -> None:
    policy: ListenerPolicy = msgspec.structs.replace(QUICK, **parts)
    gate.listener_policy = policy
    await gate.policy()


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends is read anew each time, as after thirty seconds."""
    monkeypatch.setattr(users, "RECENT_S", 0.0)


async def test_a_sender_that_is_not_the_users_own_is_refused(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    await put(gate, senders=("Anna@example.com", "news.example.com", "*.lists.example.com"))
    wire = await logged_in(gate, client_tls)
    for sender in ("anna@EXAMPLE.com", "any@news.example.com", "b@a.lists.example.com", ""):
        await wire.expect(f"MAIL FROM:<{sender}>", "250 2.1.0")
        await wire.expect("RSET", "250")
    for sender in ("boss@example.com", "anna@example.org", "a@lists.example.com", "a@x.news.example.com", "a@[127.0.0.1]"):
        await wire.expect(f"MAIL FROM:<{sender}>", "553 5.7.1")
        await wire.expect("RCPT TO:<a@elsewhere.example>", "503 5.5.1")
    await wire.expect("MAIL FROM:<anna@example.com>", "250 2.1.0")


async def test_who_has_no_list_of_senders_may_use_any_unless_the_listener_wants_one(
    gate: GateUnderTest, client_tls: ssl.SSLContext
) -> None:
    wire = await logged_in(gate, client_tls)
    await wire.expect("MAIL FROM:<anybody@elsewhere.example>", "250 2.1.0")
    await wire.expect("RSET", "250")
    await listener(gate, senders=SenderRules(listed_only=True))
    await wire.expect("MAIL FROM:<anna@example.com>", "553 5.7.1")
    await wire.expect("MAIL FROM:<>", "250 2.1.0")
    await wire.expect("RSET", "250")
    await listener(gate, senders=SenderRules(null_sender=False))
    await wire.expect("MAIL FROM:<>", "553 5.7.1")


async def test_a_users_messages_and_recipients_are_limited(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    await listener(gate, rates=Rates(user=SendingRates(messages_per_day=3, recipients_per_hour=5)))
    wire = await logged_in(gate, client_tls)
    await wire.transaction("a@one.example", "b@one.example", "c@one.example", "d@one.example", "e@one.example")
    await wire.expect("RCPT TO:<f@one.example>", "450 4.7.1")
    # those before it stay
    await wire.expect("DATA", "354")
    await wire.send(b"Subject: x\r\n\r\n.\r\n")
    envelope, _ = await gate.stored(await wire.reply())
    assert len(envelope.recipients) == 5
    await wire.expect("MAIL FROM:<x@sender.example>", "450 4.7.1")
    # his own rates count instead of the listener's
    await put(gate, rates=SendingRates(messages_per_day=2))
    again = await logged_in(gate, client_tls)
    await again.transaction()
    await again.expect("RSET", "250")
    await again.expect("MAIL FROM:<x@sender.example>", "450 4.7.1")


async def test_a_domains_messages_are_limited_whoever_sends_them(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    bert = SmtpUser(name="bert", password_hash=ANNA.password_hash)
    await gate.api.kv_put("USERS", user_key(bert.name), msgspec.json.encode(bert))
    await listener(gate, rates=Rates(domain=SendingRates(messages_per_hour=2)))
    wire = await logged_in(gate, client_tls)
    other = await secured(gate, client_tls)
    await other.expect(plain("bert", "wörd pass"), "235")
    for each in (wire, other):
        await each.expect("MAIL FROM:<x@sender.example>", "250")
        await each.expect("RSET", "250")
    for each in (wire, other):
        await each.expect("MAIL FROM:<x@SENDER.example>", "450 4.7.1")
        await each.expect("MAIL FROM:<x@other.example>", "250")
        await each.expect("RSET", "250")
        await each.expect("MAIL FROM:<>", "250")


async def test_each_app_password_logs_in_at_the_cost_of_one_verification(
    gate: GateUnderTest, client_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(
        gate,
        app_passwords=(
            AppPassword(id="abcdefgh", password_hash=HASHER.hash(PHONE)),
            AppPassword(id="bcdefghi", password_hash=HASHER.hash(TABLET)),
        ),
    )
    verified: list[str] = []
    verify = argon2.PasswordHasher.verify

    def recorded(hasher: argon2.PasswordHasher, password_hash: str, password: str) -> bool:
        verified.append(password_hash)
        return verify(hasher, password_hash, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", recorded)
    for password in ("wörd pass", PHONE, TABLET):
        await logged_in(gate, client_tls, password)
    wire = await secured(gate, client_tls)
    for wrong in (PHONE.replace("a", "z"), PHONE.replace("e-", "f-").replace("eeeeee", "eeeeef")):
        await wire.expect(plain("anna@example.com", wrong), "535 5.7.8 authentication credentials invalid")
    await wire.expect(plain("nobody", PHONE), "535 5.7.8 authentication credentials invalid")
    assert len(verified) == 6
    answer = await gate.api.request(control_subject(AccountVerb.PASSWORD_USES), b"", timeout_s=5)
    uses = msgspec.json.decode(answer, type=PasswordUses).uses
    assert [(use.user, use.id) for use in uses] == [("anna@example.com", "abcdefgh"), ("anna@example.com", "bcdefghi")]


@pytest.mark.usefixtures("no_memory")
async def test_a_revoked_password_ends_the_sessions_that_it_opened_and_no_others(
    gate: GateUnderTest, client_tls: ssl.SSLContext
) -> None:
    both = (
        AppPassword(id="abcdefgh", password_hash=HASHER.hash(PHONE)),
        AppPassword(id="bcdefghi", password_hash=HASHER.hash(TABLET)),
    )
    await put(gate, app_passwords=both)
    phone, tablet, main = [await logged_in(gate, client_tls, password) for password in (PHONE, TABLET, "wörd pass")]
    await put(gate, app_passwords=both[1:])
    await phone.expect("MAIL FROM:<x@sender.example>", "530 5.7.0")
    await phone.expect("RCPT TO:<a@relay.example>", "530 5.7.0")
    await phone.expect(plain("anna@example.com", PHONE), "535 5.7.8")
    for wire in (tablet, main):
        assert (await wire.message(b"Subject: x\r\n\r\n")).startswith("250")
    await put(gate, password_hash=HASHER.hash("another"), app_passwords=both[1:])
    await main.expect("MAIL FROM:<x@sender.example>", "530 5.7.0")
    assert (await tablet.message(b"Subject: x\r\n\r\n")).startswith("250")
    await put(gate, enabled=False, app_passwords=both[1:])
    await tablet.expect("MAIL FROM:<x@sender.example>", "530 5.7.0")
    # whoever logs in again goes on
    await put(gate)
    await tablet.expect(plain("anna@example.com", "wörd pass"), "235")
    await gate.api.kv_put("USERS", user_key(ANNA.name), b"")
    await tablet.expect("MAIL FROM:<x@sender.example>", "530 5.7.0")


async def test_who_sends_is_not_looked_up_for_each_message(
    gate: GateUnderTest, client_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = await logged_in(gate, client_tls)

    async def read(_: Users, name: str) -> None:
        raise AssertionError(name)

    monkeypatch.setattr(Users, "read", read)
    for _ in range(3):
        assert (await wire.message(b"Subject: x\r\n\r\n")).startswith("250")
