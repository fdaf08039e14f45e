"""Accounts by the API: what an administrator sets at `/users` and the listener is what two replicas of the authenticated gate do."""

from __future__ import annotations

import base64
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from fixtures.api import BOOTSTRAP, ApiStarter, RunningApi, eventually
from fixtures.auth_gate import all_know, bare_gate, write_certificate
from fixtures.broker import Broker
from fixtures.gates import GateUnderTest, Wire
from postern_core.accounts import PasswordUse
from postern_core.credentials import APP_PASSWORD, SmtpUser, user_key
from postern_core.policy import SendingRates

QUICK = {"first_delay_s": 0.01, "longest_delay_s": 0.02, "network_limit": 4}


@pytest.fixture
async def api(broker: Broker, tmp_path: Path) -> AsyncIterator[RunningApi]:
    starter = ApiStarter(broker, tmp_path)
    try:
        yield await starter(BOOTSTRAP | {"listeners": {"auth": {"throttling": QUICK}}})
    finally:
        await starter.close()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    return write_certificate(tmp_path)


@pytest.fixture
async def gates(api: RunningApi, certificate: tuple[Path, Path]) -> AsyncIterator[tuple[GateUnderTest, GateUnderTest]]:
    """Two replicas, with the policy that the api has published."""
    broker = api.broker
    assert isinstance(broker, Broker)
    async with bare_gate(broker, certificate) as one, bare_gate(broker, certificate) as two:
        for gate in (one, two):
            await gate.wait_for(lambda gate=gate: gate.listener.newest_rules() is not None)  # type: ignore[misc]
        yield one, two


@pytest.fixture
def tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(certificate[0]))


async def login(gate: GateUnderTest, tls: ssl.SSLContext, name: str, password: str, expected: str) -> Wire:
    wire = await (await gate.connect(1, tls)).greeted()
    await wire.expect("AUTH PLAIN " + base64.b64encode(f"\0{name}\0{password}".encode()).decode(), expected)
    return wire


async def rows(api: RunningApi) -> dict[str, int]:
    return {row["key"]: row["count"] for row in (await api.get("/auth-failures"))["rows"]}


async def test_failed_logins_are_seen_and_cleared_by_the_api(
    api: RunningApi, gates: tuple[GateUnderTest, GateUnderTest], tls: ssl.SSLContext
) -> None:
    for gate in (*gates, *gates):
        await login(gate, tls, "demo", "wrong", "535 5.7.8")
    await all_know(gates, {"address:127.0.0.1": 4, "user:demo": 4})
    assert await rows(api) == {"address:127.0.0.1": 4, "user:demo": 4}
    shown = (await api.get("/auth-failures"))["rows"]
    assert [row["blocked_until"] is not None for row in shown if row["key"] == "address:127.0.0.1"] == [True]
    await login(gates[0], tls, "demo", "demo-password", "454 4.7.0 too many")
    assert (await api.client.delete("/auth-failures/address:127.0.0.1")).status_code == 204
    assert (await api.client.delete("/auth-failures/nonsense")).status_code == 422
    await all_know(gates, {"address:127.0.0.1": 0})
    assert (await api.client.delete("/auth-failures/address:127.0.0.1")).status_code == 404
    for gate in gates:
        await login(gate, tls, "demo", "demo-password", "235 2.7.0")
    await all_know(gates, {"user:demo": 0})  # he has logged in: his slips are forgotten
    assert (await api.client.delete("/auth-failures")).json() == {"cleared": 0}
    audit = [
        (entry["action"], entry["target"]) for entry in (await api.get("/audit"))["entries"] if "auth_failures" in entry["action"]
    ]
    assert ("auth_failures.cleared", "auth-failures/address:127.0.0.1") in audit


async def test_an_app_password_works_until_it_is_revoked_and_tells_when_it_was_used(
    api: RunningApi, gates: tuple[GateUnderTest, GateUnderTest], tls: ssl.SSLContext
) -> None:
    path = "/users/demo/app-passwords"
    phone, tablet = [(await api.client.post(path, json={"name": name})).json() for name in ("phone", "tablet")]
    assert APP_PASSWORD.fullmatch(phone["password"])
    assert phone["password"].startswith(phone["id"])
    listed = await api.get(path)
    assert [(each["id"], each["name"], each["last_used_at"]) for each in listed] == [
        (phone["id"], "phone", None),
        (tablet["id"], "tablet", None),
    ]
    assert phone["password"] not in str(listed) + str(await api.get("/audit")) + str(await api.get("/users"))
    wire = await login(gates[1], tls, "DEMO", phone["password"], "235 2.7.0")
    await wire.expect("MAIL FROM:<x@sender.example>", "250")
    await login(gates[0], tls, "demo", tablet["password"][:-1], "535 5.7.8")

    async def used() -> datetime | None:
        at = {each["id"]: each["last_used_at"] for each in await api.get(path)}
        assert at[tablet["id"]] is None
        return datetime.fromisoformat(at[phone["id"]]) if at[phone["id"]] else None

    noted = await eventually(used)
    assert noted is not None
    assert abs(noted - datetime.now(UTC)) < timedelta(minutes=1)
    repository = api.api.context.policy.app_passwords
    for later, stored in ((timedelta(minutes=59), noted), (timedelta(minutes=61), noted + timedelta(minutes=61))):
        await repository.note_uses([PasswordUse("demo", phone["id"], noted + later)])
        assert [each.last_used_at for each in await repository.of("Demo")] == [stored, None]
    assert (await api.client.delete(f"{path}/{phone['id']}")).status_code == 204
    assert (await api.client.delete(f"{path}/{phone['id']}")).status_code == 404
    assert [each["name"] for each in await api.get(path)] == ["tablet"]
    await login(gates[1], tls, "demo", phone["password"], "535 5.7.8")
    await login(gates[1], tls, "demo", tablet["password"], "235 2.7.0")
    # they go with their user, and no rollback brings them back
    revision = (await api.get("/revisions"))["newest"]
    assert (await api.client.delete("/users/demo")).status_code == 204
    assert (await api.client.post(f"/revisions/{revision}/rollback")).is_success
    assert await api.get(path) == []
    assert (await api.client.post(path, json={"name": "phone"})).json()["error"] == "password_missing"
    assert (await api.client.get("/users/nobody/app-passwords")).status_code == 404


async def test_senders_and_rates_of_a_user_reach_the_gate(
    api: RunningApi, gates: tuple[GateUnderTest, GateUnderTest], tls: ssl.SSLContext
) -> None:
    senders = ["Demo@EXAMPLE.com", "@news.example.com", "*.lists.example.com", "demo@example.com"]
    body = {"name": "demo", "senders": senders, "rates": {"messages_per_day": 2}}
    shown = (await api.client.put("/users/demo", json=body)).raise_for_status().json()
    assert shown["senders"] == ["Demo@example.com", "@news.example.com", "@*.lists.example.com", "demo@example.com"]
    assert (await api.client.put("/users/demo", json=shown)).json() == shown  # what was read can be written back
    stored = msgspec.json.decode(await api.bus.kv_get("USERS", user_key("demo")) or b"", type=SmtpUser)
    assert (stored.senders[1:3], stored.rates) == (("news.example.com", "*.lists.example.com"), SendingRates(messages_per_day=2))
    wire = await login(gates[0], tls, "demo", "demo-password", "235 2.7.0")
    await wire.expect("MAIL FROM:<boss@example.com>", "553 5.7.1")
    for sender in ("demo@example.com", "x@a.lists.example.com"):
        await wire.expect(f"MAIL FROM:<{sender}>", "250 2.1.0")
        await wire.expect("RSET", "250")
    await wire.expect("MAIL FROM:<demo@example.com>", "450 4.7.1")
    for wrong in ({"senders": ["a b@x.example"]}, {"senders": ["*"]}, {"rates": {"messages_per_day": 0}}):
        assert (await api.client.put("/users/demo", json={"name": "demo"} | wrong)).status_code in (400, 422)


async def test_without_a_gate_the_api_says_so_and_lists_app_passwords_all_the_same(api: RunningApi) -> None:
    answer = await api.client.get("/auth-failures")
    assert (answer.status_code, answer.json()["error"]) == (503, "gate_unavailable")
    assert await api.get("/users/demo/app-passwords") == []


async def test_parts_of_the_listener_that_cannot_be_are_refused(api: RunningApi) -> None:
    for part, body in (
        ("throttling", {"first_delay_s": 20, "longest_delay_s": 10}),
        ("throttling", {"first_block_s": 20, "longest_block_s": 10}),
        ("rates", {"user": {"messages_per_hour": 0}}),
        ("senders", {"listed_only": "yes"}),
    ):
        assert (await api.client.put(f"/listeners/auth/{part}", json=body)).status_code in (400, 422), (part, body)
