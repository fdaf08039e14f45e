"""The verdict of one message, and why each rule did not match: from what the screener told, what quarantine holds, and the revision that it names.

Nothing of the mail is read here. A message is judged again by the criteria that the screener wrote down (postern_core.policy.why_not).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
import structlog

from postern_api.errors import ConflictError, NotFoundError
from postern_api.messages.recording import VERDICT
from postern_api.messages.repository import TraceRepository
from postern_api.policy.compiling import compile_policy
from postern_api.policy.repository import PolicyRepository
from postern_api.quarantine.service import QuarantineService
from postern_core.errors import TransientError
from postern_core.events import EventKind
from postern_core.ids import QueueId
from postern_core.policy.why_not import RuleOutcome, explain
from postern_core.verdict import Decision, HoldReason, Verdict

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Told:
    """A verdict as it is known. `at`: when the screener told it, None when only quarantine has it."""

    verdict: Verdict
    at: datetime | None


class VerdictService:
    def __init__(self, trace: TraceRepository, policy: PolicyRepository, quarantine: QuarantineService) -> None:
        self._trace = trace
        self._policy = policy
        self._quarantine = quarantine

    async def find(self, queue_id: QueueId) -> Told:
        """The newest verdict. NotFoundError when none is known: it was not screened yet, the telling got lost, or its trace is no longer kept."""
        trace = await self._trace.trace(queue_id)
        told = [event for event in trace.events if event.kind == EventKind.SCREENED.value]
        try:
            entry = await self._quarantine.find(queue_id)
        except (TransientError, ConflictError):
            entry = None  # what was told is left
        if entry is not None:
            at = told[-1].at if told else None
            return Told(entry.held.verdict, at)
        if not told:
            raise NotFoundError("verdict", queue_id)
        try:
            return Told(_verdict(told[-1].fields), told[-1].at)
        except (ValueError, msgspec.ValidationError) as error:
            raise ConflictError("unreadable", f"the verdict cannot be read: {error}") from error

    async def why_not(self, verdict: Verdict) -> list[RuleOutcome]:
        """What came of each rule. ConflictError when that cannot be told."""
        if not verdict.was_screened:
            raise ConflictError("not_explained", f"its inspection did not come to an end ({verdict.detail})")
        if verdict.criteria_cut:
            raise ConflictError("not_explained", "so much matched in it that not everything was written down")
        revision = await self._policy.get(verdict.revision)
        compiled = None if revision is None else compile_policy(revision.snapshot, revision.number)
        if compiled is None:
            raise ConflictError("not_explained", f"revision {verdict.revision} is not known here any more")
        return await asyncio.to_thread(
            explain, compiled.screening.rules, frozenset(verdict.criteria), frozenset(verdict.unasked), verdict.language
        )


def _verdict(fields: dict[str, object]) -> Verdict:
    """From the fields of a `screened` event: the whole one where something matched, else what there is to say."""
    whole = fields.get(VERDICT)
    if whole is not None:
        return msgspec.convert(whole, Verdict)
    reason = fields.get("hold_reason")
    return Verdict(
        revision=_whole(fields.get("revision")),
        decision=Decision(str(fields.get("decision", Decision.PASS.value))),
        hold_reason=HoldReason(str(reason)) if reason else None,
        detail=str(fields.get("detail", "")),
        screening_ms=float(str(fields.get("ms", 0))),
    )


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def of_rules(outcomes: Sequence[RuleOutcome], rule_id: str) -> list[RuleOutcome]:
    """All of them, or the one of this rule. NotFoundError when it was not in that revision, or off."""
    if not rule_id:
        return list(outcomes)
    found = [outcome for outcome in outcomes if outcome.rule.id == rule_id]
    if not found:
        raise NotFoundError("rule", rule_id)
    return found
