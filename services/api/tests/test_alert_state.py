"""Alerts in the database, SQLite and PostgreSQL alike: counted once, raised once, told once, and forgotten in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import make_url, text

from postern_api.alarms.board import Alarm, AlarmBoard
from postern_api.alarms.kinds import Condition, Key, Kind, Severity
from postern_api.alerts.catalogue import AlertKind
from postern_api.alerts.objects import AlertChannels, AlertPolicy, Thresholds
from postern_api.alerts.repository import AlertRepository, DeliveryState
from postern_api.alerts.service import AlertService
from postern_api.alerts.thresholds import Raise
from postern_api.audit.repository import AuditRepository
from postern_api.errors import ConflictError
from postern_api.policy.objects import GeneralSettings, Snapshot
from postern_api.policy.repository import PolicyRepository
from postern_api.recorder import ToldNotices
from postern_api.store.database import Database
from postern_core.notices import Notice, NoticeKind

NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
LEASE = timedelta(minutes=2)
OVERFLOW = AlertKind.COMMAND_TOO_LONG
CHANNELS = AlertChannels(mail_to=("p@relay.example",), webhooks=("https://hook.example/",), most_per_hour=3)


def told(key: bytes, count: int = 1, at: datetime = NOW, about: str = "192.0.2.7\0") -> ToldNotices:
    notice = Notice(kind=NoticeKind.COMMAND_TOO_LONG, about=about, at=at, service="ingress-anon", instance="one", count=count)
    return ToldNotices(key, (notice,))


class Replica:
    """What one api has of alerts, over a database of its own connections."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.repository = AlertRepository(database)
        self.policy = PolicyRepository(database)
        self.service = AlertService(database, self.repository, self.policy, AuditRepository(database))
        self.board = AlarmBoard()

    async def set_policy(self, number: int, policy: AlertPolicy) -> None:
        snapshot = Snapshot(settings=GeneralSettings(hostname="mx.example"), alerts=policy)
        async with self.database.write() as connection:
            await self.policy.add(connection, number, "a test", "", snapshot)

    async def sees(self, condition: dict[Key, Condition], covered: bool = True) -> None:
        """A look, and what follows."""
        self.board.take(condition, lambda _: covered, NOW)
        await self.service.take_alarms(self.board, lambda _: covered)

    async def raises(self, kind: str = "") -> int:
        return len(await self.repository.raises(before=None, limit=1000, kind=kind))

    async def standing(self, kind: AlertKind = OVERFLOW) -> tuple[int, int, int]:
        """Events, pending ones, raises."""
        state = next(alert.state for alert in await self.service.alerts() if alert.kind is kind)
        return state.total, state.pending, state.raises


@pytest.fixture
async def replica(database: Database) -> Replica:
    made = Replica(database)
    await made.set_policy(1, AlertPolicy(thresholds={OVERFLOW.value: Thresholds()}, channels=CHANNELS))
    return made


@pytest.fixture
async def another(database: Database, database_url: str, replica: Replica) -> AsyncIterator[Replica]:
    second = Database(make_url(database_url))
    yield Replica(second)
    await second.close()


async def test_what_the_bus_tells_again_is_counted_once(replica: Replica) -> None:
    await replica.service.take([told(b"1", 3), told(b"1", 3)])
    await replica.service.take([told(b"1", 3), told(b"2", 4)])
    assert await replica.standing() == (7, 0, 2)
    assert await replica.raises() == 2


async def test_two_replicas_that_count_at_once_lose_nothing_and_raise_once(replica: Replica, another: Replica) -> None:
    policy = AlertPolicy(
        thresholds={OVERFLOW.value: Thresholds(events_before_raise=10, minutes_before_reraise=-1)}, channels=CHANNELS
    )
    await replica.set_policy(2, policy)
    batches = [told(bytes([n])) for n in range(40)]
    async with asyncio.TaskGroup() as tasks:
        for n, batch in enumerate(batches):
            tasks.create_task((replica, another)[n % 2].service.take([batch]))
            tasks.create_task((another, replica)[n % 2].service.take([batch]))  # and what was told to the other, too
    assert await replica.standing() == (40, 30, 1)
    assert await another.raises() == 1


async def test_thresholds_are_those_of_the_newest_revision(replica: Replica) -> None:
    await replica.service.take([told(b"1")])
    await replica.set_policy(2, AlertPolicy(thresholds={OVERFLOW.value: Thresholds(enabled=False)}))
    await replica.service.take([told(b"2")])
    assert await replica.standing() == (2, 1, 1)
    await replica.set_policy(3, AlertPolicy())  # the catalogue's: within an hour not again
    await replica.service.take([told(b"3")])
    assert await replica.standing() == (3, 2, 1)
    await replica.service.take([told(b"4", at=NOW + timedelta(hours=1))])
    assert await replica.standing() == (4, 0, 2)


async def test_acknowledged_reset_and_raised_again(replica: Replica) -> None:
    with pytest.raises(ConflictError):
        await replica.service.acknowledge(OVERFLOW, "somebody")
    await replica.service.take([told(b"1")])
    await replica.service.acknowledge(OVERFLOW, "somebody")
    await replica.service.acknowledge(OVERFLOW, "somebody else")
    [state] = (await replica.repository.states()).values()
    assert state.acknowledged_by == "somebody"
    await replica.service.reset(OVERFLOW, "somebody")
    assert await replica.standing() == (0, 0, 0)
    await replica.service.take([told(b"2")])
    assert await replica.standing() == (1, 0, 1)
    assert [entry.action for entry in await AuditRepository(replica.database).page(before=None, limit=9)] == [
        "alert.reset",
        "alert.acknowledged",
    ]


# -- alarms are events of the catalogue


FILLING = (Kind.STREAM_FILLING, "INTAKE")


def filling(severity: Severity = Severity.WARNING) -> dict[Key, Condition]:
    return {FILLING: Condition(severity, "INTAKE is 74% full", "start more screeners")}


async def test_an_alarm_is_one_event_however_many_replicas_see_it(replica: Replica, another: Replica) -> None:
    kind = AlertKind.STREAM_FILLING
    for _ in range(3):
        await asyncio.gather(replica.sees(filling()), another.sees(filling()))
    assert await replica.standing(kind) == (1, 0, 1)
    for _ in range(2):
        await asyncio.gather(replica.sees(filling(Severity.CRITICAL)), another.sees(filling(Severity.CRITICAL)))
    assert await replica.standing(kind) == (2, 0, 2)
    await replica.sees(filling())  # less bad is no news
    assert await replica.standing(kind) == (2, 0, 2)
    for one in (replica, another):
        await one.sees({})
    await replica.sees(filling())
    assert await replica.standing(kind) == (3, 0, 3)
    [newest, *_] = await replica.repository.raises(before=None, limit=1)
    assert newest.subjects[0].about == "INTAKE"
    assert newest.subjects[0].fields["summary"] == "INTAKE is 74% full"


async def test_an_alarm_that_is_over_while_no_api_runs_is_an_event_again_when_it_comes_again(
    replica: Replica, another: Replica
) -> None:
    await replica.sees(filling())
    await another.sees({}, covered=False)  # it could not tell
    await another.sees(filling())
    assert await replica.standing(AlertKind.STREAM_FILLING) == (1, 0, 1)
    await Replica(replica.database).sees({})  # a fresh start: its board never had the alarm
    await Replica(replica.database).sees(filling())
    assert await replica.standing(AlertKind.STREAM_FILLING) == (2, 0, 2)


async def test_an_alarm_that_another_replica_has_raised_is_not_over_while_this_one_still_waits(
    replica: Replica, another: Replica
) -> None:
    silent: dict[Key, Condition] = {(Kind.BROKER_SILENT, ""): Condition(Severity.CRITICAL, "silent", "look")}
    await replica.sees(silent)
    await replica.sees(silent)
    await another.sees(silent)  # its first look of two
    await another.sees(silent)
    assert await replica.standing(AlertKind.BROKER_SILENT) == (1, 0, 1)


async def test_after_a_reset_an_alarm_that_is_still_up_is_told_again(replica: Replica) -> None:
    await replica.sees(filling())
    await replica.service.reset(AlertKind.STREAM_FILLING, "somebody")
    await replica.sees(filling())
    assert await replica.standing(AlertKind.STREAM_FILLING) == (1, 0, 1)


def test_alarms_on_the_board_are_what_the_service_reads() -> None:
    board = AlarmBoard()
    board.take(filling(), lambda _: True, NOW)
    [alarm] = board.alarms
    assert isinstance(alarm, Alarm)
    assert board.is_seen(FILLING)


# -- deliveries


async def add(replica: Replica, at: datetime) -> None:
    async with replica.database.write() as connection:
        raised = Raise(at=at, first_at=at, count=1, subjects=())
        await replica.repository.add_raise(connection, OVERFLOW.value, raised, CHANNELS, at)


async def test_a_delivery_is_one_replicas_until_its_lease_is_over(replica: Replica, another: Replica) -> None:
    await add(replica, NOW)
    claims = await asyncio.gather(*(one.repository.claim(NOW, LEASE) for one in (replica, another, replica, another)))
    due = [claim for claim in claims if claim is not None]
    assert sorted(claim.target for claim in due) == ["https://hook.example/", "p@relay.example"]
    assert await replica.repository.claim(NOW + LEASE - timedelta(seconds=1), LEASE) is None
    again = await another.repository.claim(NOW + LEASE, LEASE)
    assert again is not None
    assert again.attempts == 2
    [late] = [claim for claim in due if claim.id == again.id]
    await replica.repository.settle(late, DeliveryState.FAILED, error="too late")  # it is the other's by now
    await another.repository.settle(again, DeliveryState.DONE)
    [row] = await replica.repository.raises(before=None, limit=1)
    assert {(told.state, told.last_error) for told in row.deliveries} == {(DeliveryState.DONE, ""), (DeliveryState.WAITING, "")}


async def test_more_than_somebody_wants_within_an_hour_is_withheld(replica: Replica) -> None:
    for n in range(5):
        await add(replica, NOW + timedelta(minutes=n))
    rows = await replica.repository.raises(before=None, limit=10)
    states = [[told.state.value for told in row.deliveries] for row in reversed(rows)]
    assert states == [["waiting", "waiting"]] * 3 + [["withheld", "withheld"]] * 2
    await add(replica, NOW + timedelta(minutes=61))  # the first is an hour old: one may go, and says what was withheld
    claim = await replica.repository.claim(NOW + timedelta(minutes=62), LEASE)
    assert claim is not None
    assert claim.withheld == 2
    assert await replica.repository.next_due() == NOW


async def test_raises_are_kept_for_a_bounded_time_and_number(replica: Replica) -> None:
    for n in range(6):
        await add(replica, NOW + timedelta(days=n))
    async with replica.database.write() as connection:
        await replica.repository.first_time(connection, [b"old", b"older"], NOW)
        await replica.repository.first_time(connection, [b"new"], NOW + timedelta(days=5))
    day = timedelta(days=1)
    await replica.repository.prune(raised_before=NOW + day, most=100, counted_before=NOW + day)
    assert [row.recorded_at.day for row in await replica.repository.raises(before=None, limit=10)] == [6, 5, 4, 3, 2]
    await replica.repository.prune(raised_before=NOW + day, most=2, counted_before=NOW + day)
    rows = await replica.repository.raises(before=None, limit=10)
    assert [row.recorded_at.day for row in rows] == [6, 5]
    async with replica.database.read() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM alert_deliveries"))).scalar() == 4
        assert (await connection.execute(text("SELECT count(*) FROM alert_batches"))).scalar() == 1
    newer = await replica.repository.raises(before=rows[0].id, limit=10, kind=OVERFLOW.value, since=NOW)
    assert [row.id for row in newer] == [rows[1].id]
