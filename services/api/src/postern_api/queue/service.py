"""Asks delivery about its queue: one request over the bus, which any replica answers."""

from __future__ import annotations

from typing import TypeVar

import msgspec
import structlog

from postern_api.asking import decode_answer
from postern_api.errors import ConflictError, UnavailableError
from postern_core.bus import Bus
from postern_core.control import (
    CONTROL_TIMEOUT_S,
    BadmailPage,
    ControlError,
    DeliveryVerb,
    QueueAction,
    QueueChanged,
    QueuePage,
    QueueQuery,
)
from postern_core.errors import TransientError

log: structlog.stdlib.BoundLogger = structlog.get_logger()

A = TypeVar("A", bound=msgspec.Struct)


class QueueService:
    """UnavailableError when no delivery replica answers; ConflictError when it refuses."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def page(self, query: QueueQuery) -> QueuePage:
        return await self._ask(DeliveryVerb.QUEUE_LIST, query, QueuePage)

    async def rows_of(self, queue_id: str) -> QueuePage:
        return await self._ask(DeliveryVerb.QUEUE_GET, QueueAction(queue_id=queue_id), QueuePage)

    async def act(self, verb: DeliveryVerb, action: QueueAction) -> int:
        """Carry out one of the queue's verbs; returns how many jobs it was done to."""
        return (await self._ask(verb, action, QueueChanged)).changed

    async def badmail(self, query: QueueQuery) -> BadmailPage:
        return await self._ask(DeliveryVerb.BADMAIL_LIST, query, BadmailPage)

    async def _ask(self, verb: DeliveryVerb, request: msgspec.Struct, kind: type[A]) -> A:
        try:
            answer = await self._bus.request(
                f"control.delivery.{verb.value}", msgspec.json.encode(request), timeout_s=CONTROL_TIMEOUT_S
            )
        except TransientError as error:
            log.warning("queue.unanswered", verb=verb.value, reason=error.reason)
            raise UnavailableError(
                "delivery_unavailable",
                "no delivery service answers: the queue cannot be shown or changed now; its mail is kept, and moves on by itself",
            ) from error
        try:
            decoded = decode_answer(answer, kind)
        except msgspec.DecodeError as error:
            raise UnavailableError("delivery_unreadable", f"delivery's answer to {verb.value} cannot be read: {error}") from error
        if isinstance(decoded, ControlError):
            raise ConflictError("delivery_refused", decoded.message)
        return decoded
