"""Alerts in the database. The row of a kind is the lock under which it is counted, so that of several replicas one makes the raise."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import Row, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from postern_api.alerts.objects import AlertChannels
from postern_api.alerts.thresholds import AlertState, Raise, Subject
from postern_api.store.database import Database
from postern_api.store.models import alert_alarms, alert_batches, alert_deliveries, alert_raises, alerts

_HOUR: Final = timedelta(hours=1)


class Channel(enum.StrEnum):
    """How somebody is told."""

    MAIL = "mail"
    WEBHOOK = "webhook"
    PAUSE = "pause"  # nobody is told: a gate is paused


class DeliveryState(enum.StrEnum):
    """What became of telling somebody."""

    WAITING = "waiting"  # for its first attempt, or another
    DONE = "done"  # handed over to delivery, or answered with 2xx
    FAILED = "failed"  # given up
    WITHHELD = "withheld"  # more came within an hour than he wants


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    raise_id: int
    channel: Channel
    target: str
    state: DeliveryState
    attempts: int
    last_error: str


@dataclass(frozen=True, slots=True)
class RaiseRow:
    """A raise, as it is kept."""

    id: int
    kind: str
    raised_at: datetime
    recorded_at: datetime
    first_at: datetime
    count: int
    subjects: tuple[Subject, ...]
    deliveries: tuple[DeliveryRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery that the caller has to carry out: nobody else will until `lease` is over. `withheld`: within the last hour, from the same."""

    id: int
    channel: Channel
    target: str
    attempts: int  # this one included
    alert: RaiseRow
    withheld: int
    pauses: tuple[str, ...] = ()  # gates that the same raise pauses


class AlertRepository:
    """What takes a connection takes part in the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- counting

    async def first_time(self, connection: AsyncConnection, keys: Iterable[bytes], now: datetime) -> set[bytes]:
        """Those of `keys` that were never counted; from now on they were."""
        new = set()
        for key in sorted(keys):
            insert = self._database.insert(alert_batches).values(key=key, at=now)
            added = await connection.execute(insert.on_conflict_do_nothing(index_elements=["key"]).returning(alert_batches.c.key))
            if added.first() is not None:
                new.add(key)
        return new

    async def locked(self, connection: AsyncConnection, kinds: Iterable[str]) -> dict[str, AlertState]:
        """The states of these kinds, which are the caller's until his transaction ends."""
        names = sorted(set(kinds))  # in one order everywhere, so that two replicas do not wait for each other in a circle
        for name in names:
            insert = self._database.insert(alerts).values(kind=name, state=_encoded(AlertState()))
            await connection.execute(insert.on_conflict_do_nothing(index_elements=["kind"]))
        query = select(alerts).where(alerts.c.kind.in_(names)).order_by(alerts.c.kind).with_for_update()
        return {row.kind: _state(row.state) for row in await connection.execute(query)}

    async def put(self, connection: AsyncConnection, kind: str, state: AlertState) -> None:
        await connection.execute(update(alerts).where(alerts.c.kind == kind).values(state=_encoded(state)))

    async def states(self) -> dict[str, AlertState]:
        """Of every kind of which something was ever counted."""
        async with self._database.read() as connection:
            return {row.kind: _state(row.state) for row in await connection.execute(select(alerts))}

    # -- alarms that were counted and are not over

    async def alarms(self, connection: AsyncConnection) -> dict[tuple[str, str], str]:
        """Severity by kind and subject."""
        return {(row.kind, row.about): row.severity for row in await connection.execute(select(alert_alarms))}

    async def remember_alarm(self, connection: AsyncConnection, key: tuple[str, str], severity: str, now: datetime) -> None:
        insert = self._database.insert(alert_alarms).values(kind=key[0], about=key[1], severity=severity, at=now)
        changes = {"severity": insert.excluded.severity, "at": insert.excluded.at}
        await connection.execute(insert.on_conflict_do_update(index_elements=["kind", "about"], set_=changes))

    async def forget_alarm(self, connection: AsyncConnection, kind: str, about: str | None = None) -> None:
        """Of one subject, or of all."""
        statement = delete(alert_alarms).where(alert_alarms.c.kind == kind)
        await connection.execute(statement if about is None else statement.where(alert_alarms.c.about == about))

    # -- raises, and whom they are told

    async def add_raise(
        self,
        connection: AsyncConnection,
        kind: str,
        raised: Raise,
        channels: AlertChannels | None,
        now: datetime,
        *,
        pause: Iterable[str] = (),
    ) -> None:
        """With a delivery for everybody in `channels` (None: nobody is to be told), and one for each gate that it is to `pause`."""
        values = {
            "kind": kind,
            "raised_at": raised.at,
            "recorded_at": now,
            "first_at": raised.first_at,
            "events": raised.count,
            "subjects": msgspec.json.encode(raised.subjects).decode(),
        }
        added = await connection.execute(alert_raises.insert().values(values).returning(alert_raises.c.id))
        raise_id: int = added.scalar_one()
        for gate in pause:
            row = {"raise_id": raise_id, "channel": Channel.PAUSE.value, "target": gate, "state": DeliveryState.WAITING.value}
            await connection.execute(alert_deliveries.insert().values(**row, made_at=now, due_at=now, attempts=0, last_error=""))
        if channels is None:
            return
        targets = [(Channel.MAIL, to) for to in channels.mail_to] + [(Channel.WEBHOOK, url) for url in channels.webhooks]
        for channel, target in targets:
            told = await self._within_hour(connection, target, now, withheld=False)
            state = DeliveryState.WAITING if told < channels.most_per_hour else DeliveryState.WITHHELD
            row = {"raise_id": raise_id, "channel": channel.value, "target": target, "state": state.value}
            times = {"made_at": now, "due_at": now}
            await connection.execute(alert_deliveries.insert().values(**row, **times, attempts=0, last_error=""))

    async def _within_hour(self, connection: AsyncConnection, target: str, now: datetime, *, withheld: bool) -> int:
        is_withheld = alert_deliveries.c.state == DeliveryState.WITHHELD.value
        query = select(func.count()).where(
            alert_deliveries.c.target == target,
            alert_deliveries.c.made_at > now - _HOUR,
            is_withheld if withheld else ~is_withheld,
        )
        return int((await connection.execute(query)).scalar_one())

    async def raises(self, *, before: int | None, limit: int, kind: str = "", since: datetime | None = None) -> list[RaiseRow]:
        """Newest first, those with an id below `before`, recorded from `since` on."""
        query = select(alert_raises)
        if before is not None:
            query = query.where(alert_raises.c.id < before)
        if kind:
            query = query.where(alert_raises.c.kind == kind)
        if since is not None:
            query = query.where(alert_raises.c.recorded_at >= since)
        async with self._database.read() as connection:
            rows = (await connection.execute(query.order_by(alert_raises.c.id.desc()).limit(limit))).all()
            of = alert_deliveries.c.raise_id
            told = await connection.execute(
                select(alert_deliveries).where(of.in_([row.id for row in rows])).order_by(alert_deliveries.c.id)
            )
            deliveries: dict[int, list[DeliveryRow]] = {}
            for row in told:
                deliveries.setdefault(row.raise_id, []).append(_delivery(row))
        return [_raise(row, deliveries.get(row.id, ())) for row in rows]

    # -- telling

    async def next_due(self) -> datetime | None:
        """When the next delivery is due; None when none waits."""
        query = select(func.min(alert_deliveries.c.due_at)).where(alert_deliveries.c.state == DeliveryState.WAITING.value)
        async with self._database.read() as connection:
            found: datetime | None = (await connection.execute(query)).scalar()
            return found

    async def claim(self, now: datetime, lease: timedelta) -> Due | None:
        """A delivery that is due, for the caller alone until `lease` is over; None when there is none."""
        table = alert_deliveries.c
        query = (
            select(alert_deliveries)
            .where(table.state == DeliveryState.WAITING.value, table.due_at <= now)
            .order_by(table.due_at, table.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        async with self._database.write() as connection:
            row = (await connection.execute(query)).first()
            if row is None:
                return None
            mine = {"attempts": row.attempts + 1, "due_at": now + lease}
            await connection.execute(update(alert_deliveries).where(table.id == row.id).values(mine))
            about = (await connection.execute(select(alert_raises).where(alert_raises.c.id == row.raise_id))).one()
            withheld = await self._within_hour(connection, row.target, now, withheld=True)
            pausing = select(table.target).where(table.raise_id == row.raise_id, table.channel == Channel.PAUSE.value)
            pauses = tuple((await connection.execute(pausing.order_by(table.target))).scalars())
            return Due(row.id, Channel(row.channel), row.target, row.attempts + 1, _raise(about), withheld, pauses)

    async def settle(self, due: Due, state: DeliveryState, *, error: str = "", next_at: datetime | None = None) -> None:
        """What became of the attempt. Nothing, when the lease was over and somebody else has begun another."""
        values: dict[str, Any] = {"state": state.value, "last_error": error}
        if next_at is not None:
            values["due_at"] = next_at
        mine = (alert_deliveries.c.id == due.id, alert_deliveries.c.attempts == due.attempts)
        async with self._database.write() as connection:
            await connection.execute(update(alert_deliveries).where(*mine).values(values))

    # -- the end

    async def prune(self, *, raised_before: datetime, most: int, counted_before: datetime) -> None:
        """Forget old raises, all but the `most` newest, and that batches were counted which cannot come again."""
        async with self._database.write() as connection:
            oldest = select(alert_raises.c.id).order_by(alert_raises.c.id.desc()).offset(most).limit(1)
            last = (await connection.execute(oldest)).scalar()
            old = alert_raises.c.recorded_at < raised_before
            await connection.execute(delete(alert_raises).where(old if last is None else old | (alert_raises.c.id <= last)))
            await connection.execute(
                delete(alert_deliveries).where(alert_deliveries.c.raise_id.not_in(select(alert_raises.c.id)))
            )
            await connection.execute(delete(alert_batches).where(alert_batches.c.at < counted_before))


def _encoded(state: AlertState) -> str:
    return msgspec.json.encode(state).decode()  # a NUL is \u0000 in there, which PostgreSQL's text can hold


def _state(text: str) -> AlertState:
    return msgspec.json.decode(text, type=AlertState)


def _delivery(row: Row[Any]) -> DeliveryRow:
    return DeliveryRow(row.raise_id, Channel(row.channel), row.target, DeliveryState(row.state), row.attempts, row.last_error)


def _raise(row: Row[Any], deliveries: Sequence[DeliveryRow] = ()) -> RaiseRow:
    subjects = msgspec.json.decode(row.subjects, type=tuple[Subject, ...])
    return RaiseRow(row.id, row.kind, row.raised_at, row.recorded_at, row.first_at, row.events, subjects, tuple(deliveries))
