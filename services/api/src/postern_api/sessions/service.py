"""Asks the gates about their sessions: each replica that was heard of lately, all at the same time, with a short time-out.

A replica that does not answer is named, never passed over: its sessions are not known, and were not ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Generic, TypeVar

import msgspec
import structlog

from postern_api.asking import decode_answer
from postern_api.errors import ConflictError
from postern_api.status.board import StatusBoard
from postern_core.bus import Bus, instance_token
from postern_core.control import ControlError
from postern_core.envelope import Gate
from postern_core.errors import TransientError
from postern_core.sessions import (
    GATE_SERVICES,
    GATE_TIMEOUT_S,
    GateVerb,
    SessionPage,
    SessionQuery,
    SessionRow,
    SessionSelection,
    SessionsEnded,
)

log: structlog.stdlib.BoundLogger = structlog.get_logger()

A = TypeVar("A", bound=msgspec.Struct)
_GATES: Final = {service: gate for gate, service in GATE_SERVICES.items()}


@dataclass(frozen=True, slots=True)
class Answered(Generic[A]):
    """What one replica said; None: nothing."""

    gate: Gate
    instance: str
    answer: A | None


class SessionService:
    """ConflictError when a gate refuses a request; TransientError while the bus is away."""

    def __init__(self, bus: Bus, board: StatusBoard) -> None:
        self._bus = bus
        self._board = board

    async def pages(self, gate: Gate | None, query: SessionQuery) -> Sequence[Answered[SessionPage]]:
        """The sessions of each replica."""
        return await self._ask_all(gate, GateVerb.LIST, query, SessionPage)

    async def end(self, gate: Gate | None, chosen: SessionSelection) -> Sequence[Answered[SessionsEnded]]:
        """End these, wherever they are."""
        return await self._ask_all(gate, GateVerb.END, chosen, SessionsEnded)

    async def _ask_all(self, gate: Gate | None, verb: GateVerb, request: msgspec.Struct, kind: type[A]) -> list[Answered[A]]:
        if not self._bus.connected:
            raise TransientError(451, "4.3.0", "mail system temporarily unavailable", reason="the bus is away")
        replicas = [
            (_GATES[report.service], report.instance)
            for report in self._board.reports(datetime.now(UTC))
            if report.service in _GATES
            and gate in (None, _GATES[report.service])
            and report.instance == instance_token(report.instance)  # it becomes a part of a subject
        ]
        return list(await asyncio.gather(*(self._ask(of, instance, verb, request, kind) for of, instance in replicas)))

    async def _ask(self, gate: Gate, instance: str, verb: GateVerb, request: msgspec.Struct, kind: type[A]) -> Answered[A]:
        subject = f"control.{GATE_SERVICES[gate]}.{verb.value}.{instance}"
        try:
            answer = await self._bus.request(subject, msgspec.json.encode(request), timeout_s=GATE_TIMEOUT_S)
            decoded = decode_answer(answer, kind)
        except (TransientError, msgspec.DecodeError) as error:
            reason = error.reason if isinstance(error, TransientError) else f"its answer does not decode: {error}"
            log.warning("sessions.unanswered", gate=gate.value, instance=instance, verb=verb.value, reason=reason)
            return Answered(gate, instance, None)
        if isinstance(decoded, ControlError):
            raise ConflictError("gate_refused", decoded.message)
        return Answered(gate, instance, decoded)


def merged(pages: Sequence[Answered[SessionPage]], limit: int) -> list[tuple[Answered[SessionPage], SessionRow]]:
    """The first `limit` rows of all replicas, by their ids."""
    rows = [(page, row) for page in pages if page.answer is not None for row in page.answer.rows]
    return sorted(rows, key=lambda each: each[1].id)[:limit]
