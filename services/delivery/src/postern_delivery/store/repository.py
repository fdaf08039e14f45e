"""Reads and writes rows of the retry queue. Several replicas may do so at once: a row is worked on under a lease that expires.

Every write of a worker carries its lease, so that one that overran it changes nothing any more. All methods raise DatabaseAway.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, RowMapping, and_, delete, func, select, update

from postern_core.control import QueueAction, QueueState
from postern_delivery.outcome import RecipientResult, Results
from postern_delivery.store.database import Database
from postern_delivery.store.models import queue

_encode_results = msgspec.json.encode
_decode_results = msgspec.json.Decoder(tuple[RecipientResult, ...]).decode

WAITING: Final = QueueState.WAITING.value
FROZEN: Final = QueueState.FROZEN.value
REMOVE: Final = "delete"  # without a word to the sender
RETURN: Final = "bounce"  # with an NDR


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedJob:
    """One row."""

    job_id: str
    queue_id: str
    route: str
    reverse_path: str
    results: Results  # of every recipient of the job as it was deferred; the open ones are to be tried again
    attempts: int
    accepted_at: datetime
    queued_at: datetime  # from when delay and expiry count
    next_attempt_at: datetime
    expires_at: datetime
    size_bytes: int
    delay_notified: bool = False
    last_reply: str = ""
    state: str = WAITING
    lease_owner: str = ""
    lease_until: datetime | None = None
    removal: str = ""  # "", REMOVE or RETURN
    removal_actor: str = ""

    @property
    def open_results(self) -> Results:
        return tuple(result for result in self.results if result.is_open)


class QueueRepository:
    """See the module."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, row: QueuedJob) -> bool:
        """Add a row; False, and nothing is changed, when the job has one already."""
        statement = self._database.insert(queue).values(_values(row)).on_conflict_do_nothing(index_elements=[queue.c.job_id])
        async with self._database.write() as connection:
            return (await connection.execute(statement)).rowcount > 0

    async def routes_due(self, now: datetime) -> list[str]:
        """Routes with rows that may be leased now."""
        return [route for route, due in (await self._earliest()).items() if due <= now]

    async def lease(self, route: str, limit: int, *, owner: str, now: datetime, until: datetime) -> list[QueuedJob]:
        """Lease up to `limit` due rows of `route`, those that have waited longest first. No row goes to two owners."""
        chosen = (
            select(queue.c.job_id)
            .where(queue.c.route == route, queue.c.due_at <= now)
            .order_by(queue.c.due_at)
            .limit(limit)
            .with_for_update(skip_locked=True)  # PostgreSQL; SQLite has one writer at a time
            .cte("chosen")  # a subquery might be evaluated more than once, and then lease more than `limit`
        )
        statement = (
            update(queue)
            .where(queue.c.job_id.in_(select(chosen.c.job_id)), queue.c.due_at <= now)
            .values(lease_owner=owner, lease_until=until)
            .returning(queue)
        )
        async with self._database.write() as connection:
            rows = [_row(found) for found in (await connection.execute(statement)).mappings()]
        return sorted(rows, key=lambda row: row.next_attempt_at)

    async def renew(self, job_id: str, *, owner: str, until: datetime) -> bool:
        """Extend a lease; False when it is no longer ours."""
        return await self._change(_leased(job_id, owner), lease_until=until)

    async def give_back(self, job_id: str, *, owner: str) -> bool:
        """End a lease without an attempt; the row is due again at once."""
        return await self._change(_leased(job_id, owner), lease_owner="", lease_until=None)

    async def postpone(self, row: QueuedJob, *, owner: str) -> bool:
        """Write what an attempt changed and end the lease; False when that was lost. Leaves `state` and `removal` to administrators."""
        return await self._change(
            _leased(row.job_id, owner),
            results=_encode_results(row.results).decode(),
            attempts=row.attempts,
            next_attempt_at=row.next_attempt_at,
            expires_at=row.expires_at,
            delay_notified=row.delay_notified,
            last_reply=row.last_reply,
            lease_owner="",
            lease_until=None,
        )

    async def freeze(self, job_id: str, *, last_reply: str, end_removal: bool = False) -> bool:
        """Set a row aside until an administrator looks at it, lease or not. A removal that was asked for is still carried out,
        unless `end_removal`."""
        removal = {"removal": ""} if end_removal else {}
        return await self._change(
            queue.c.job_id == job_id, state=FROZEN, last_reply=last_reply, lease_owner="", lease_until=None, **removal
        )

    async def delete(self, job_id: str) -> bool:
        """Drop the row of a job that is settled."""
        async with self._database.write() as connection:
            return (await connection.execute(delete(queue).where(queue.c.job_id == job_id))).rowcount > 0

    async def next_due(self, *, excluding: Collection[str] = ()) -> datetime | None:
        """When the next row may be leased (perhaps in the past), but for these routes; None when none ever will."""
        return min((due for route, due in (await self._earliest()).items() if route not in excluding), default=None)

    async def _earliest(self) -> dict[str, datetime]:
        """When the first row of each route may be leased. From one route to the next by the index, never past all the rows of one."""
        first = select(func.min(queue.c.route).label("route"))
        routes = select(first.scalar_subquery().label("route")).cte("routes", recursive=True)
        following = first.where(queue.c.route > routes.c.route).scalar_subquery()
        routes = routes.union_all(select(following).where(routes.c.route.is_not(None)))
        earliest = (
            select(func.min(queue.c.due_at))
            .where(queue.c.route == routes.c.route, queue.c.due_at.is_not(None))
            .correlate(routes)
            .scalar_subquery()
        )
        async with self._database.read() as connection:
            rows = await connection.execute(select(routes.c.route, earliest).where(routes.c.route.is_not(None)))
            return {route: due for route, due in rows if due is not None}

    async def get(self, job_id: str) -> QueuedJob | None:
        async with self._database.read() as connection:
            found = (await connection.execute(select(queue).where(queue.c.job_id == job_id))).mappings().first()
        return _row(found) if found is not None else None

    async def page(self, condition: ColumnElement[bool], *, after: str, limit: int) -> tuple[list[QueuedJob], int]:
        """Up to `limit` rows behind job id `after`, in the order of job ids, and how many match in all."""
        wanted = select(queue).where(condition, queue.c.job_id > after).order_by(queue.c.job_id).limit(limit)
        async with self._database.read() as connection:
            rows = [_row(found) for found in (await connection.execute(wanted)).mappings()]
            total = (await connection.execute(select(func.count()).select_from(queue).where(condition))).scalar_one()
        return rows, total

    async def sizes(self) -> dict[tuple[str, str], int]:
        """How many rows there are, by route and state; read from the index alone. A frozen one that is to be removed counts as waiting."""
        is_frozen = queue.c.due_at.is_(None)
        query = select(queue.c.route, is_frozen, func.count()).group_by(queue.c.route, is_frozen)
        async with self._database.read() as connection:
            return {(route, FROZEN if frozen else WAITING): count for route, frozen, count in await connection.execute(query)}

    async def job_ids(self) -> set[str]:
        """Of all rows."""
        async with self._database.read() as connection:
            return set((await connection.execute(select(queue.c.job_id))).scalars())

    # -- an administrator's changes; each returns how many rows it changed

    async def retry_now(self, condition: ColumnElement[bool], now: datetime) -> int:
        return await self._change_many(and_(condition, queue.c.state == WAITING), next_attempt_at=now)

    async def hold(self, condition: ColumnElement[bool]) -> int:
        return await self._change_many(and_(condition, queue.c.state == WAITING), state=FROZEN)

    async def resume(self, condition: ColumnElement[bool]) -> int:
        return await self._change_many(and_(condition, queue.c.state == FROZEN), state=WAITING)

    async def remove(self, condition: ColumnElement[bool], *, with_ndr: bool, actor: str) -> int:
        """Mark for removal, frozen rows too; the retry loop carries it out, after an attempt that is under way."""
        return await self._change_many(condition, removal=RETURN if with_ndr else REMOVE, removal_actor=actor)

    async def _change(self, condition: ColumnElement[bool], **values: Any) -> bool:
        return await self._change_many(condition, **values) > 0

    async def _change_many(self, condition: ColumnElement[bool], **values: Any) -> int:
        async with self._database.write() as connection:
            return (await connection.execute(update(queue).where(condition).values(**values))).rowcount


def matching(action: QueueAction) -> ColumnElement[bool]:
    """The rows that an administrator means: one job, all jobs of a message, a route, or all."""
    if action.job_id:
        return queue.c.job_id == action.job_id
    if action.queue_id:
        return queue.c.queue_id == action.queue_id
    return on_route(action.route)


def on_route(route: str) -> ColumnElement[bool]:
    """Rows of a route, or all rows when it is ""."""
    return queue.c.route == route if route else queue.c.job_id != ""


def _leased(job_id: str, owner: str) -> ColumnElement[bool]:
    return and_(queue.c.job_id == job_id, queue.c.lease_owner == owner)


def _values(row: QueuedJob) -> dict[str, Any]:
    values = {name: getattr(row, name) for name in QueuedJob.__slots__}
    return values | {"results": _encode_results(row.results).decode()}


def _row(found: RowMapping) -> QueuedJob:
    values = {name: found[name] for name in QueuedJob.__slots__}
    return QueuedJob(**(values | {"results": _decode_results(found["results"])}))
