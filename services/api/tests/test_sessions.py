"""Live sessions and the session log through the API, with real gates: two replicas of one, and replicas that do not answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from fixtures.api import RunningApi, eventually
from fixtures.gates import GateUnderTest, Wire, gate_under_test
from postern_api.session_log.recording import SessionLogWriter
from postern_api.session_log.repository import LogQuery, Position, SessionLogRepository
from postern_api.session_log.w3c import FIELDS
from postern_api.store.database import Database
from postern_api.store.models import session_log
from postern_core.control import ServiceStatus
from postern_core.envelope import Gate
from postern_core.session_log import SessionBatch, SessionRecord
from postern_ingress_anon.app import gate_of
from postern_ingress_anon.settings import Settings

MESSAGE = b"Subject: hello\r\n\r\nHello.\r\n"
UNKNOWN = "s-01j9zq3v5k7wexamp1e0000000"
AT = datetime(2026, 3, 1, 9, 30, 0, 123456, tzinfo=UTC)


@dataclass
class Replicas:
    """Gates of one service beside the api, by their instance."""

    api: RunningApi
    stack: AsyncExitStack
    gates: dict[str, GateUnderTest] = field(default_factory=dict)

    async def start(self, instance: str) -> GateUnderTest:
        changes = {"listen": "127.0.0.1:0", "drain_s": 4, "instance": instance}
        settings = Settings(**self.api.broker.settings("ingress-anon").model_dump() | changes)
        gate = await self.stack.enter_async_context(
            gate_under_test(self.api.broker, Gate.ANON, lambda bus: gate_of(settings, bus))  # type: ignore[arg-type]
        )
        self.gates[instance] = gate
        await eventually(self._known)
        return gate

    async def _known(self) -> bool:
        replicas = (await self.api.get("/status"))["replicas"]
        revision = (await self.api.get("/status"))["revision"]
        known = {row["instance"] for row in replicas if row["service"] == "ingress-anon" and row["revision"] == revision}
        return known >= self.gates.keys()

    async def put(self, part: str, **body: Any) -> None:
        """Change a part of the listener; returns when every replica works by it."""
        answer = await self.api.client.put(f"/listeners/anon/{part}", json=body)
        revision = int(answer.raise_for_status().headers["Postern-Revision"])
        for gate in self.gates.values():
            await gate.wait_for(lambda g=gate: (rules := g.listener.newest_rules()) is not None and rules.revision >= revision)


@pytest.fixture
async def replicas(api: RunningApi) -> AsyncIterator[Replicas]:
    async with AsyncExitStack() as stack:
        yield Replicas(api, stack)


async def a_silent_replica(api: RunningApi, instance: str = "ghost") -> None:
    """It reported a moment ago, and answers nothing."""
    gate = await api.broker.connect("ingress-anon")
    now = datetime.now(UTC)
    status = ServiceStatus(service="ingress-anon", instance=instance, started_at=now, at=now, ready=True)
    await gate.kv_put("STATUS", "ingress-anon.ghost", msgspec.json.encode(status))
    await gate.close()
    await eventually(lambda: _reported(api, instance))


async def _reported(api: RunningApi, instance: str) -> bool:
    return any(row["instance"] == instance for row in (await api.get("/status"))["replicas"])


async def message(wire: Wire) -> str:
    reply = await wire.message(MESSAGE)
    assert reply.startswith("250 ")
    return reply.rpartition(" ")[2]


async def test_sessions_of_all_replicas_are_listed_in_pages(replicas: Replicas) -> None:
    api = replicas.api
    a, b = await replicas.start("a"), await replicas.start("b")
    first, second, third = await a.session("one.example"), await b.session("two.example"), await a.session("three.example")
    await message(first)
    found = await api.get("/sessions")
    rows = [(row["host"], row["gate"], row["instance"], row["client"], row["messages"]) for row in found["sessions"]]
    # by id, which says when it began, to the millisecond
    assert [row["id"] for row in found["sessions"]] == sorted(row["id"] for row in found["sessions"])
    assert sorted(rows) == [
        ("one.example", "anon", "a", "127.0.0.1", 1),
        ("three.example", "anon", "a", "127.0.0.1", 0),
        ("two.example", "anon", "b", "127.0.0.1", 0),
    ]
    assert (found["total"], found["next"]) == (3, "")
    assert found["replicas"] == [
        {"gate": "anon", "instance": "a", "answered": True, "sessions": 2},
        {"gate": "anon", "instance": "b", "answered": True, "sessions": 1},
    ]
    page = await api.get("/sessions", limit=2, gate="anon", client="127.0.0.0/8")
    assert [row["id"] for row in page["sessions"]] == [row["id"] for row in found["sessions"][:2]]
    page = await api.get("/sessions", limit=2, after=page["next"])
    assert ([row["id"] for row in page["sessions"]], page["next"]) == ([found["sessions"][2]["id"]], "")
    assert (await api.get("/sessions", client="192.0.2.7"))["total"] == 0
    assert (await api.get("/sessions", gate="auth"))["replicas"] == []
    for wire in (first, second, third):
        await wire.expect("QUIT", "221")


async def test_one_session_is_ended_wherever_it_is_and_the_audit_log_says_who_did_it(replicas: Replicas) -> None:
    api = replicas.api
    a, b = await replicas.start("a"), await replicas.start("b")
    stays, goes = await a.session(), await b.session()
    wanted = next(row["id"] for row in (await api.get("/sessions"))["sessions"] if row["instance"] == "b")
    ended = (await api.client.delete(f"/sessions/{wanted}")).raise_for_status().json()
    assert ended["ended"] == 1
    assert {row["instance"]: row["sessions"] for row in ended["replicas"]} == {"a": 0, "b": 1}
    assert (await goes.reply()).startswith("421 4.3.2")
    await message(stays)
    answer = await api.client.delete(f"/sessions/{wanted}")
    assert (answer.status_code, answer.json()["error"]) == (404, "session_not_found")
    entries = (await api.get("/audit", target="sessions/"))["entries"]
    assert [(entry["action"], entry["target"], entry["outcome"]) for entry in entries] == [
        ("session.end", f"sessions/{wanted}", "failed"),
        ("session.end", f"sessions/{wanted}", "done"),
    ]


async def test_all_sessions_of_a_gate_are_ended_at_every_replica(replicas: Replicas) -> None:
    api = replicas.api
    wires = [await (await replicas.start(instance)).session() for instance in ("a", "b")]
    assert (await api.client.delete("/sessions")).status_code == 422  # no gate named: that ends nothing
    assert (await api.client.delete("/sessions", params={"gate": "auth"})).json()["ended"] == 0
    ended = (await api.client.delete("/sessions", params={"gate": "anon"})).raise_for_status().json()
    assert ended["ended"] == 2
    for wire in wires:
        assert (await wire.reply()).startswith("421 4.3.2")


async def test_a_replica_that_does_not_answer_is_named(replicas: Replicas) -> None:
    api = replicas.api
    gate = await replicas.start("a")
    await a_silent_replica(api)
    wire = await gate.session()
    found = await api.get("/sessions")
    assert [row["instance"] for row in found["sessions"]] == ["a"]
    silent = {"gate": "anon", "instance": "ghost", "answered": False, "sessions": None}
    assert found["replicas"] == [{"gate": "anon", "instance": "a", "answered": True, "sessions": 1}, silent]
    answer = await api.client.delete(f"/sessions/{UNKNOWN}")
    assert (answer.status_code, answer.json()["error"]) == (503, "gate_unavailable")
    assert "ghost" in answer.json()["message"]
    ended = (await api.client.delete("/sessions", params={"gate": "anon"})).json()
    assert ended["ended"] == 1
    assert silent in ended["replicas"]
    assert (await wire.reply()).startswith("421")


async def test_a_replica_whose_name_is_no_part_of_a_subject_is_not_asked(replicas: Replicas) -> None:
    """A stolen gate's password lets one report any name."""
    await a_silent_replica(replicas.api, "a.>")
    assert (await replicas.api.get("/sessions"))["replicas"] == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/sessions?client=nonsense", "invalid_client"),
        ("/sessions?after=x", "invalid_session_id"),
        ("/session-log?after=x", "invalid_after"),
        ("/session-log?after=999999999999999999~s-1~0", "invalid_after"),
        ("/session-log?since=2026-03-02T00:00:00Z&until=2026-03-01T00:00:00Z", "invalid_period"),
        ("/session-log/w3c?until=0001-01-01T00:00:00Z", "invalid_period"),
    ],
)
async def test_what_makes_no_sense_is_refused(api: RunningApi, path: str, name: str) -> None:
    answer = await api.client.get(path)
    assert (answer.status_code, answer.json()["error"]) == (400, name)


async def test_an_auditor_sees_sessions_and_ends_none(api: RunningApi) -> None:
    auditor, operator = await api.token("auditor"), await api.token("operator")
    assert (await api.client.get("/sessions", headers=auditor)).status_code == 200
    assert (await api.client.get("/session-log", headers=auditor)).status_code == 200
    assert (await api.client.delete("/sessions?gate=anon", headers=auditor)).status_code == 403
    assert (await api.client.delete(f"/sessions/{UNKNOWN}", headers=auditor)).status_code == 403
    assert (await api.client.delete("/sessions?gate=anon", headers=operator)).status_code == 200


async def test_a_gate_is_paused_and_resumed_at_every_replica_and_also_one_that_starts_then(replicas: Replicas) -> None:
    api = replicas.api
    a = await replicas.start("a")
    wire = await a.session()
    await replicas.put("state", state="paused")
    b = await replicas.start("b")
    for gate in (a, b):
        assert (await (await gate.connect()).reply()).startswith("421 4.3.2")
    await message(wire)

    async def paused() -> bool:
        rows = (await api.get("/status"))["replicas"]
        return all((row["detail"], row["ready"]) == ("paused", True) for row in rows if row["service"] == "ingress-anon")

    await eventually(paused)
    assert await api.get("/listeners/anon/state") == {"state": "paused", "by_alert": ""}
    await replicas.put("state", state="open")
    await message(await b.session())


async def records(api: RunningApi, count: int, **query: Any) -> list[dict[str, Any]]:
    """The session log, when it has so many records."""

    async def enough() -> list[dict[str, Any]] | None:
        rows = (await api.get("/session-log", limit=1000, **query))["rows"]
        return rows if len(rows) >= count else None

    found = await eventually(enough)
    assert found is not None
    return found


async def test_the_session_log_of_a_gate_is_read_and_exported(replicas: Replicas) -> None:
    api = replicas.api
    gate = await replicas.start("a")
    await (await gate.session()).expect("QUIT", "221")
    await replicas.put("logging", level="commands")
    wire = await gate.session()
    queue_id = await message(wire)
    await wire.expect("QUIT", "221")
    rows = await records(api, 7)
    assert [(row["verb"], row["code"]) for row in rows] == [
        ("SESSION", 0),
        ("EHLO", 250),
        ("MAIL", 250),
        ("RCPT", 250),
        ("DATA", 250),
        ("QUIT", 221),
        ("SESSION", 0),
    ]
    assert {(row["gate"], row["instance"], row["client"]) for row in rows} == {("anon", "a", "127.0.0.1")}
    session = rows[-1]["session"]
    assert len(await records(api, 6, session=session)) == 6
    assert (await api.get("/session-log", gate="auth"))["rows"] == []
    assert (await api.get("/session-log", client="192.0.2.7"))["rows"] == []
    assert (await api.get("/session-log", until="2026-01-01T00:00:00Z"))["rows"] == []

    answer = await api.client.get("/session-log/w3c", params={"session": session})
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    software, version, _, fields, *lines = answer.text.splitlines()
    assert (software, version, fields) == ("#Software: Postern", "#Version: 1.0", f"#Fields: {' '.join(FIELDS)}")
    parsed = [dict(zip(FIELDS, line.split(" "), strict=True)) for line in lines]
    assert [line["cs-method"] for line in parsed] == ["EHLO", "MAIL", "RCPT", "DATA", "QUIT", "SESSION"]
    mail, data = parsed[1], parsed[3]
    assert (mail["cs-uri-query"], mail["sc-status"], mail["sc-win32-status"]) == ("FROM:<x@sender.example>", "250", "-")
    assert (mail["c-ip"], mail["s-sitename"], mail["s-computername"], mail["cs-username"]) == ("127.0.0.1", "anon", "a", "-")
    address = gate.listener.addresses[0]
    assert (mail["s-ip"], mail["s-port"], mail["cs-host"]) == (address.host, str(address.port), "client.example")
    assert (data["cs-uri-query"], data["cs-bytes"]) == (queue_id, str(6 + len(MESSAGE)))
    assert parsed[-1]["cs-uri-query"].startswith("commands=5+errors=0+messages=1+recipients=1+end=")


async def tell(api: RunningApi, *told: SessionRecord, msg_id: str) -> None:
    gate = await api.broker.connect("ingress-anon")
    payload = msgspec.json.encode(SessionBatch(gate=Gate.ANON, instance="a", records=told))
    await gate.publish("EVENTS", "event.ingress-anon.session", payload, msg_id)
    await gate.close()


def a_record(n: int = 1, **more: Any) -> SessionRecord:
    values = {"session": "s-1", "at": AT + timedelta(seconds=n), "client": "192.0.2.7", "verb": "NOOP", "n": n} | more
    return SessionRecord(**values)


async def test_what_a_client_sends_makes_no_line_and_no_field_of_the_export(api: RunningApi) -> None:
    evil = "x y\r\n#Fields: evil\t\x1b\x85\u2028 é"
    await tell(api, a_record(argument=evil, host=evil, verb="EHLO"), msg_id="evil")
    await records(api, 1, since=AT.isoformat())
    text = (await api.client.get("/session-log/w3c", params={"since": AT.isoformat()})).text
    assert len(text.splitlines()) == 5
    line = dict(zip(FIELDS, text.splitlines()[-1].split(" "), strict=True))
    assert line["cs-uri-query"] == "x+y++#Fields:+evil+?+++é"
    assert line["cs-host"] == line["cs-uri-query"]


async def test_a_batch_that_comes_twice_counts_once_and_one_that_cannot_be_read_holds_nothing_up(api: RunningApi) -> None:
    told = [a_record(n, argument="a NUL \0") for n in range(5)]
    await tell(api, *told, msg_id="one")
    gate = await api.broker.connect("ingress-anon")
    await gate.publish("EVENTS", "event.ingress-anon.session", b"nonsense", "two")
    of_another = SessionBatch(gate=Gate.AUTH, instance="a", records=(a_record(6),))
    await gate.publish("EVENTS", "event.ingress-anon.session", msgspec.json.encode(of_another), "of another gate")
    await gate.close()
    await tell(api, *told, a_record(5), msg_id="three")
    rows = await records(api, 6, since=AT.isoformat())
    assert [(row["gate"], row["n"]) for row in rows] == [("anon", n) for n in range(6)]


async def test_pages_of_the_log_have_each_record_once_also_those_of_one_moment(api: RunningApi) -> None:
    told = [a_record(n, at=AT, session=f"s-{session}") for session in "ab" for n in range(5)]
    await tell(api, *told, msg_id="many")
    await records(api, 10, since=AT.isoformat())
    found, after = [], ""
    while True:
        page = await api.get("/session-log", since=AT.isoformat(), limit=3, after=after)
        found += [(row["session"], row["n"]) for row in page["rows"]]
        after = page["next"]
        if not after:
            break
    assert found == [(each.session, each.n) for each in told]


async def test_old_records_are_forgotten_by_age_and_by_number(database: Database) -> None:
    log, writer = SessionLogRepository(database), SessionLogWriter(database)
    told = [a_record(n) for n in range(100)] + [a_record(k, at=AT + timedelta(seconds=50)) for k in range(200, 220)]
    async with database.write() as connection:
        await writer.write(connection, [SessionBatch(gate=Gate.ANON, instance="a", records=tuple(told))])

    async def left() -> int:
        async with database.read() as connection:
            return int((await connection.execute(select(func.count()).select_from(session_log))).scalar_one())

    async def forget(before: datetime) -> None:
        async with asyncio.timeout(20):
            while await log.prune(before, 7):
                pass

    assert await log.cut(AT, 1000) == AT
    await forget(AT + timedelta(seconds=20))
    assert await left() == 100
    rows = await log.page(LogQuery(since=AT, until=AT + timedelta(days=1)), None, 1)
    assert rows[0]["at"] == AT + timedelta(seconds=20)
    # the thirtieth from the end and all behind it stay
    await forget(await log.cut(AT, 30))
    assert await left() == 31
    await forget(AT + timedelta(days=1))
    assert await left() == 0
    assert await log.page(LogQuery(since=AT, until=AT + timedelta(days=1)), Position(AT, "s-1", 0), 1) == []
