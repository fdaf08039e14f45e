"""Answers an administrator's requests about the retry queue and badmail (`control.delivery.<verb>`, postern_core.control).

Any replica answers, since the queue is shared. A change is one statement in the database; the retry loop carries it out, also for
a row that is being tried at this moment. What cannot be done is answered with a ControlError, never with silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import msgspec
import nats.errors
import structlog
from nats.aio.msg import Msg

from postern_core.bus import Bus
from postern_core.control import (
    ControlError,
    DeliveryVerb,
    QueueAction,
    QueueChanged,
    QueuePage,
    QueueQuery,
    QueueRow,
    QueueState,
)
from postern_core.errors import TransientError
from postern_delivery.badmail import BadmailStore
from postern_delivery.store.database import DatabaseAway
from postern_delivery.store.repository import QueuedJob, QueueRepository, matching, on_route

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_QUEUE_GROUP: Final = "delivery"
_MOST_ROWS: Final = 1000
_TIMEOUT_S: Final = 20.0

_decode_query = msgspec.json.Decoder(QueueQuery).decode
_decode_action = msgspec.json.Decoder(QueueAction).decode


class Control:
    """See the module. `retry_wanted(route)` is called when rows of a route (any, when "") were made due or changed."""

    def __init__(self, bus: Bus, repository: QueueRepository, badmail: BadmailStore, retry_wanted: Callable[[str], None]) -> None:
        self._bus = bus
        self._repository = repository
        self._badmail = badmail
        self._retry_wanted = retry_wanted
        self._tasks: set[asyncio.Task[None]] = set()
        self._verbs: dict[str, Callable[[bytes], Awaitable[msgspec.Struct]]] = {
            DeliveryVerb.QUEUE_LIST: self._list,
            DeliveryVerb.QUEUE_GET: self._get,
            DeliveryVerb.QUEUE_RETRY: self._retry,
            DeliveryVerb.QUEUE_DELETE: self._delete,
            DeliveryVerb.QUEUE_HOLD: self._hold,
            DeliveryVerb.QUEUE_RESUME: self._resume,
            DeliveryVerb.BADMAIL_LIST: self._list_badmail,
            DeliveryVerb.BADMAIL_DELETE: self._delete_badmail,
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Answer until `stop`."""
        subscription = await self._bus.client.subscribe("control.delivery.*", queue=_QUEUE_GROUP, cb=self._receive)
        try:
            await stop.wait()
        finally:
            if self._bus.connected:
                await subscription.unsubscribe()
            for task in self._tasks:
                task.cancel()

    async def _receive(self, msg: Msg) -> None:
        task = asyncio.create_task(self._answer(msg), name=msg.subject)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, msg: Msg) -> None:
        verb = msg.subject.rpartition(".")[2]
        answer: msgspec.Struct
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                answer = await self._verbs[verb](msg.data)
        except KeyError:
            answer = ControlError(message=f"delivery knows no {verb}")
        except msgspec.DecodeError as error:
            answer = ControlError(message=f"the request does not decode: {error}")
        except DatabaseAway as error:
            log.warning("control.failed", verb=verb, reason=str(error))
            answer = ControlError(message="the queue database does not answer; mail is kept, try again later")
        except (TransientError, TimeoutError) as error:
            log.warning("control.failed", verb=verb, reason=str(error))
            answer = ControlError(message="the broker does not answer in time, try again later")
        except Exception:  # the one handler of a request: whoever asked gets an answer, the log the rest
            log.exception("control.failed", verb=verb)
            answer = ControlError(message="internal error, see delivery's log")
        try:
            await msg.respond(msgspec.json.encode(answer))
        except (nats.errors.Error, OSError) as error:
            log.warning("control.unanswered", verb=verb, reason=f"{type(error).__name__}: {error}")

    async def _list(self, data: bytes) -> QueuePage:
        query = _decode_query(data)
        limit = min(max(query.limit, 1), _MOST_ROWS)
        rows, total = await self._repository.page(on_route(query.route), after=query.after, limit=limit)
        return _page(rows, total)

    async def _get(self, data: bytes) -> QueuePage:
        rows, total = await self._repository.page(matching(_decode_action(data)), after="", limit=_MOST_ROWS)
        return _page(rows, total)

    async def _retry(self, data: bytes) -> QueueChanged:
        action = _decode_action(data)
        return self._changed("queue.retried", action, await self._repository.retry_now(matching(action), datetime.now(UTC)))

    async def _delete(self, data: bytes) -> QueueChanged:
        action = _decode_action(data)
        changed = await self._repository.remove(matching(action), with_ndr=action.with_ndr, actor=action.actor)
        return self._changed("queue.deleted", action, changed)

    async def _hold(self, data: bytes) -> QueueChanged:
        action = _decode_action(data)
        return self._changed("queue.held", action, await self._repository.hold(matching(action)))

    async def _resume(self, data: bytes) -> QueueChanged:
        action = _decode_action(data)
        return self._changed("queue.resumed", action, await self._repository.resume(matching(action)))

    async def _list_badmail(self, data: bytes) -> msgspec.Struct:
        query = _decode_query(data)
        return await self._badmail.page(msgspec.structs.replace(query, limit=min(max(query.limit, 1), _MOST_ROWS)))

    async def _delete_badmail(self, data: bytes) -> QueueChanged:
        action = _decode_action(data)
        return QueueChanged(changed=await self._badmail.delete(action))

    def _changed(self, event: str, action: QueueAction, changed: int) -> QueueChanged:
        log.info(
            event,
            id=action.queue_id,
            job_id=action.job_id,
            route=action.route,
            rows=changed,
            actor=action.actor,
            with_ndr=action.with_ndr,
        )
        if changed:
            self._retry_wanted(action.route)
        return QueueChanged(changed=changed)


def _page(rows: list[QueuedJob], total: int) -> QueuePage:
    now = datetime.now(UTC)
    return QueuePage(rows=tuple(_row(row, now) for row in rows), total=total)


def _row(row: QueuedJob, now: datetime) -> QueueRow:
    leased = row.lease_until is not None and row.lease_until > now
    return QueueRow(
        job_id=row.job_id,
        queue_id=row.queue_id,
        route=row.route,
        # held wins: an attempt that is under way is the last one
        state=QueueState.LEASED if leased and row.state != QueueState.FROZEN else QueueState(row.state),
        reverse_path=row.reverse_path,
        recipients=tuple(result.recipient.address for result in row.open_results),
        attempts=row.attempts,
        accepted_at=row.accepted_at,
        next_attempt_at=row.next_attempt_at,
        expires_at=row.expires_at,
        last_reply=row.last_reply,
        size_bytes=row.size_bytes,
    )
