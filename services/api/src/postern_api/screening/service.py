"""Asks the screener what would come of mail under some rules. The api, which holds all powers, never parses the mail itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import structlog

from postern_api.asking import decode_answer
from postern_api.errors import ConflictError, TooLargeError, UnavailableError
from postern_api.policy.editing import Editor
from postern_api.policy.repository import PolicyRepository
from postern_api.screening.drafts import Draft, Drafts
from postern_core.bus import Bus
from postern_core.control import ControlError
from postern_core.envelope import Envelope
from postern_core.errors import TransientError
from postern_core.policy import ScreeningPolicy, encode_section
from postern_core.policy.why_not import RuleOutcome, explain
from postern_core.trial import TRIAL_TIMEOUT_S, ScreenerVerb, TrialAnswer, Tried, frame_trial, trial_subject
from postern_core.verdict import Verdict

log: structlog.stdlib.BoundLogger = structlog.get_logger()

Mail = Sequence[tuple[Envelope, bytes | memoryview]]


class ScreeningService:
    """UnavailableError when no screener answers; ConflictError when it refuses."""

    def __init__(self, bus: Bus, editor: Editor, policy: PolicyRepository) -> None:
        self._bus = bus
        self.drafts = Drafts(editor, policy)

    async def test(self, draft: Draft, envelope: Envelope, message: bytes) -> tuple[Tried, list[RuleOutcome] | None, float]:
        """What would come of one message, what of each rule (None when that cannot be told), and the milliseconds of compiling them."""
        section = await encoded(draft.policy)
        answer = await self.ask(section, [(envelope, message)], places=True)
        tried = answer.tried[0]
        return tried, await self._why_not(draft.policy, tried.verdict), answer.compile_ms

    async def ask(self, section: bytes, mail: Mail, *, places: bool = False) -> TrialAnswer:
        """TooLargeError when it does not fit one request."""
        try:
            payload = frame_trial(section, mail, places=places)
        except ValueError as error:
            raise TooLargeError("message_too_large", f"this cannot be tried: {error}") from error
        try:
            answer = await self._bus.request(trial_subject(ScreenerVerb.TRY), payload, timeout_s=TRIAL_TIMEOUT_S)
        except TransientError as error:
            log.warning("trial.unanswered", reason=error.reason)
            raise UnavailableError("screener_unavailable", "no screener answers: nothing can be tried now") from error
        try:
            decoded = decode_answer(answer, TrialAnswer)
        except msgspec.DecodeError as error:
            raise UnavailableError("screener_unreadable", f"the screener's answer cannot be read: {error}") from error
        if isinstance(decoded, ControlError):
            raise ConflictError("screener_refused", decoded.message)
        if len(decoded.tried) != len(mail):
            raise UnavailableError("screener_unreadable", "the screener answered about other mail than it was asked")
        return decoded

    async def _why_not(self, policy: ScreeningPolicy, verdict: Verdict | None) -> list[RuleOutcome] | None:
        if verdict is None or verdict.criteria_cut or not verdict.was_screened:
            return None
        return await asyncio.to_thread(
            explain, policy.rules, frozenset(verdict.criteria), frozenset(verdict.unasked), verdict.language
        )


async def encoded(policy: ScreeningPolicy) -> bytes:
    """As it travels. A hundred thousand phrases take a moment."""
    return await asyncio.to_thread(encode_section, policy)
