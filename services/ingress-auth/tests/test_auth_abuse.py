"""Clients of the authenticated gate that guess, or hold on to what they get: what they learn and cost is bounded."""

from __future__ import annotations

import asyncio
import base64
import ssl

import argon2
import pytest

from fixtures.gates import GateUnderTest, Wire
from postern_core.notices import NoticeKind
from postern_ingress_auth.credentials import UserCredentials


def plain(name: str, password: str) -> str:
    return "AUTH PLAIN " + base64.b64encode(f"\0{name}\0{password}".encode()).decode()


async def secured(gate: GateUnderTest, tls: ssl.SSLContext) -> Wire:
    return await (await gate.connect(1, tls)).greeted()


def credentials_of(gate: GateUnderTest) -> UserCredentials:
    credentials = gate.listener.profile.authenticator
    assert isinstance(credentials, UserCredentials)
    return credentials


async def test_an_unknown_user_costs_what_a_user_costs(
    gate: GateUnderTest, client_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified: list[argon2.Parameters] = []
    verify = argon2.PasswordHasher.verify

    def recorded(hasher: argon2.PasswordHasher, password_hash: str, password: str) -> bool:
        verified.append(argon2.extract_parameters(password_hash))
        return verify(hasher, password_hash, password)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", recorded)
    wire = await secured(gate, client_tls)
    for name in ("anna@example.com", "nobody", "gone"):
        answer = await wire.say(plain(name, "wrong"))
        assert answer == "535 5.7.8 authentication credentials invalid"
    assert len(verified) == 3
    assert verified[0] == verified[1] == verified[2]


async def test_before_any_user_was_seen_nobody_costs_what_the_api_makes_users_cost(gate: GateUnderTest) -> None:
    # the parameters of postern_api.policy.credentials, which this package may not import
    assert "$argon2id$v=19$m=19456,t=2,p=1$" in credentials_of(gate)._nobody.password_hash


async def test_a_network_has_one_budget_of_guesses_however_many_addresses_it_has(gate: GateUnderTest) -> None:
    credentials = credentials_of(gate)
    for n in range(6):
        assert "535" in str(await credentials.verify("nobody", "wrong", f"2001:db8:1:2::{n:x}"))
    assert "454" in str(await credentials.verify("nobody", "wrong", "2001:db8:1:2:ffff::1"))
    assert "535" in str(await credentials.verify("nobody", "wrong", "2001:db8:1:3::1"))


async def test_who_is_turned_away_unheard_cannot_ask_for_ever(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    for _ in range(6):
        await credentials_of(gate).verify("nobody", "wrong", "127.0.0.1")
    wire = await secured(gate, client_tls)
    for _ in range(3):
        await wire.expect(plain("anna@example.com", "wörd pass"), "454 4.7.0")
    assert (await wire.reply()).startswith("421 4.7.0")
    assert await wire.is_closed()


async def test_auth_has_its_place(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    wire = await secured(gate, client_tls)
    await wire.expect("EHLO again.example", "250")
    await wire.expect(plain("anna@example.com", "wörd pass"), "235 2.7.0")
    await wire.expect("MAIL FROM:<anna@example.com>", "250")
    await wire.expect("AUTH LOGIN", "503 5.5.1")
    await wire.expect("RCPT TO:<a@elsewhere.example>", "250")
    wire = await secured(gate, client_tls)
    await wire.expect("AUTH LOGIN =", "334 UGFzc3dvcmQ6")
    await wire.expect("eA==", "535 5.7.8")
    await wire.expect("AUTH PLAIN =", "501 5.5.2")


async def test_handshakes_that_nobody_finishes_count_as_connections(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    await gate.policy(max_connections_per_client=2)
    silent = [await gate.connect(1), await gate.connect(1)]
    await gate.wait_for(lambda: gate.listener._in_handshake.total() == 2)
    refused = await gate.connect(1)
    assert await refused.is_closed()
    with pytest.raises(OSError):
        await gate.connect(1, client_tls)
    for wire in silent:
        assert not wire.reader.at_eof()
        wire.writer.close()
    await gate.wait_for(lambda: gate.listener._in_handshake.total() == 0)
    first, second = await secured(gate, client_tls), await secured(gate, client_tls)
    assert await (await gate.connect(1)).is_closed()
    for wire in (first, second):
        await wire.expect("NOOP", "250")


async def test_a_handshake_that_fails_is_told_and_one_that_is_only_begun_is_not(
    gate: GateUnderTest, client_tls: ssl.SSLContext
) -> None:
    for sent in (b"", b"\x16\x03\x01\x02\x00\x01\x00", b"EHLO plain.example\r\n"):
        wire = await gate.connect(1)
        await gate.wait_for(lambda: gate.listener._in_handshake.total() == 1)
        await wire.send(sent)
        wire.writer.close()
        await gate.wait_for(lambda: gate.listener._in_handshake.total() == 0)
    notice = await gate.notice(NoticeKind.TLS_FAILED)
    assert (notice.about, notice.count, notice.fields) == ("127.0.0.1", 1, {"reason": "wrong version number"})


async def test_draining_gives_up_handshakes(gate: GateUnderTest) -> None:
    silent = await gate.connect(1)
    await gate.wait_for(lambda: gate.listener._in_handshake.total() == 1)
    gate.stop.set()
    assert await silent.is_closed()
    await gate.wait_for(lambda: gate.listener._in_handshake.total() == 0)


async def test_no_tls_on_the_tls_port_harms_nobody(gate: GateUnderTest, client_tls: ssl.SSLContext) -> None:
    for nonsense in (b"EHLO plain.example\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b""):
        wire = await gate.connect(1)
        await wire.send(nonsense)
        wire.writer.write_eof()
        assert await wire.is_closed()
    await gate.wait_for(lambda: gate.listener._in_handshake.total() == 0)
    async with asyncio.timeout(20):
        await (await secured(gate, client_tls)).expect("NOOP", "250")
