"""One entry at a time from INTAKE to its outcome: load, inspect, carry out, let go. An entry is a message, or a batch of them.

A first delivery is inspected in this process, under a watchdog that ends it should the inspection hang. A message that comes again (it, or
one that was in flight beside it, ended a process) is a suspect and is inspected in the sandbox, which convicts only the culprit: after
`max_deliveries` it is held as poison; the others of its batch go on without it. Deliveries that failed for another reason (a full stream, a broker that was away) count among
those, so one conviction late in such a row is not enough. Whatever goes wrong on our side, the message is delivered again.

Where a verdict depends on engines, all members of an entry that need some ask at once, outside the inspection and its timer, and are then inspected
again with the answers. One that waits for an engine that failed has passed its inspection: it is no suspect when it comes again (waiting.py).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog

from postern_core.batch import unframe_all
from postern_core.bus import BodyMissing, BodyStore, Delivered, EventSink
from postern_core.counters import CounterName, Counters
from postern_core.disposition import Disposition
from postern_core.envelope import Envelope
from postern_core.errors import TransientError
from postern_core.events import EventKind
from postern_core.ids import QueueId
from postern_core.verdict import ChangeMade, Decision, HoldReason, Verdict
from postern_screener.actions import Actions
from postern_screener.archive import Archive
from postern_screener.companions import companions
from postern_screener.earlier_runs import HANDED_ON, beside, was_handed_on
from postern_screener.engines.answers import NOBODY_ASKED, Answers
from postern_screener.engines.asking import EngineDesk
from postern_screener.judged import Judged, shares
from postern_screener.ruleset import Ruleset
from postern_screener.sandbox import ConvictedError, Sandbox
from postern_screener.screening import Screened, to_be_kept
from postern_screener.unscannable import poisoned
from postern_screener.waiting import Waiting, pause_s
from postern_screener.watchdog import Watchdog

log: structlog.stdlib.BoundLogger = structlog.get_logger()

# over this size even a hostile message that ends well takes over 0.1 s: off the loop with it
THREAD_OVER_BYTES: Final = 128 * 1024
_THREAD_OVER_LOOKS: Final = 5_000  # at recipients, of two microseconds each
# of bodies below, all that a worker has in hand (64, as shipped) are no more than one of the largest
_LARGE_BYTES: Final = 1536 * 1024
_LARGE_AT_ONCE: Final = 2  # bodies of up to 100 MiB each
MAX_INSPECTION_S: Final = 20.0  # whatever the policy says: the work must end before the broker's ack-wait of 30 s
_UNREADABLE_RETRY_S: Final = 60.0
_CONVICTED_RETRY_S: Final = 1.0
_TOLD_CHARACTERS: Final = 500  # of all changes of a message, in its trace
_MAX_REMEMBERED: Final = 10_000  # convictions; the oldest go first

Inspect = Callable[[Envelope, bytes, Ruleset, Answers], Screened]


@dataclass(slots=True)
class _Found:
    """What became of the members of an entry so far."""

    judged: list[Judged] = field(default_factory=list)
    asking: list[Judged] = field(default_factory=list)  # a verdict on them needs engines
    convicted: int = 0
    postponed: TransientError | None = None


class Worker:
    """Handles deliveries of INTAKE. `ruleset` gives the one in force; `inspect` is `screening.screen`, or a test's."""

    def __init__(
        self,
        *,
        bodies: BodyStore,
        actions: Actions,
        events: EventSink,
        sandbox: Sandbox,
        watchdog: Watchdog,
        ruleset: Callable[[], Ruleset | None],
        inspect: Inspect,
        archive: Archive,
        engines: EngineDesk,
    ) -> None:
        self._bodies = bodies
        self._actions = actions
        self._events = events
        self._sandbox = sandbox
        self._watchdog = watchdog
        self._ruleset = ruleset
        self._inspect = inspect
        self._archive = archive
        self._engines = engines
        self._waiting = Waiting()
        self.counters = Counters()
        self._convictions: dict[QueueId, int] = {}  # in this worker, of messages without an outcome yet
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)

    async def handle(self, delivered: Delivered) -> None:
        """See the module. Raises TransientError when the outcome could not be made durable: nothing was let go."""
        ruleset = self._ruleset()
        if ruleset is None:
            raise TransientError(451, "4.3.5", "mail system not ready, try again later", reason="no policy yet")
        try:
            members = unframe_all(delivered.data, Envelope)
        except ValueError as error:
            # a newer contract, or not ours: it stays where it is, for a program that understands it
            log.error("message.unreadable", subject=delivered.subject, tries=delivered.tries, reason=str(error))
            await delivered.retry(_UNREADABLE_RETRY_S)
            return
        if members[0][0].size_bytes > _LARGE_BYTES:  # it is alone
            async with self._large:
                await self._process(delivered, members, ruleset)
        else:
            await self._process(delivered, members, ruleset)

    async def _process(self, delivered: Delivered, members: Sequence[tuple[Envelope, memoryview]], ruleset: Ruleset) -> None:
        batch = members[0][0].id if len(members) > 1 else ""
        known = {envelope.id: await self._actions.known(envelope, batch) for envelope, _ in members if delivered.repeated}
        if known and all(len(known[envelope.id]) == len(envelope.recipients) for envelope, _ in members):
            log.info("message.already_settled", id=members[0][0].id, members=len(members), tries=delivered.tries)
            await delivered.ack()
            return
        found = _Found()
        for envelope, inline in members:
            await self._look(delivered, envelope, inline, ruleset, batch, known.get(envelope.id, {}), found)
        await self._ask_engines(delivered, ruleset, batch, found)
        waiting = [each for each in found.judged if self._is_to_wait(each, ruleset)]
        judged = [each for each in found.judged if each not in waiting]
        await self._actions.carry_out(judged, ruleset, redelivered=delivered.repeated, batch=batch)
        for each in judged:
            for companion in companions(each.envelope, each.body, each.screened, ruleset):
                self._tell_accepted(companion.envelope, each.envelope.id)
            for share in shares(each):
                self._tell_accepted(share.envelope, each.envelope.id)
                self._tell(share.envelope, share.screened.verdict)
            if not each.screened.outcomes:
                self._tell(each.envelope, each.screened.verdict)
            self._engines.note(each.screened.verdict)
        if waiting:
            for each in waiting:
                self._tell_waiting(each, delivered.tries)
            self._waiting.begin((each.envelope.id for each in waiting), {each.envelope.id: each.screened for each in judged})
        if found.postponed is not None:
            raise found.postponed
        if found.convicted:
            await delivered.retry(_CONVICTED_RETRY_S)
        elif waiting:
            await delivered.retry(pause_s(delivered.tries))
        else:
            self._waiting.end(envelope.id for envelope, _ in members)
            await delivered.ack()
        self._keep_copies(judged, ruleset)

    def _keep_copies(self, judged: Sequence[Judged], ruleset: Ruleset) -> None:
        if ruleset.policy.archive:
            for each in judged:
                self._archive.offer(each)

    async def _look(
        self,
        delivered: Delivered,
        envelope: Envelope,
        inline: memoryview,
        ruleset: Ruleset,
        batch: str,
        earlier: Mapping[int, Disposition],
        found: _Found,
    ) -> None:
        """One member of an entry, judged as far as that goes without engines; `earlier` is what was written down of it before."""
        has_ended = len(earlier) == len(envelope.recipients)
        try:
            judged = await self._judge(delivered, envelope, inline, ruleset, batch)
        except ConvictedError as error:
            log.warning("message.inspection_failed", id=envelope.id, tries=delivered.tries, reason=str(error))
            # what was held as poison is poison still: it must not bring the others back, by turns with another one even for ever
            found.convicted += not has_ended
        except TransientError as error:  # the sandbox is busy: the others need not wait for that
            found.postponed = error
        else:
            if judged is None:
                return
            if judged.screened.asks and not has_ended and not any(end.kind in HANDED_ON for end in earlier.values()):
                found.asking.append(replace(judged, known=earlier))
            elif (judged := beside(judged, earlier, has_ended=has_ended)) is not None:
                found.judged.append(judged)

    async def _ask_engines(self, delivered: Delivered, ruleset: Ruleset, batch: str, found: _Found) -> None:
        """All that need engines at once: in turn, one connection to each engine would be all that a batch ever used."""
        if not found.asking:
            return
        judging = [self._judge_by_engines(delivered, each, ruleset, batch) for each in found.asking]
        for asked, outcome in zip(found.asking, await asyncio.gather(*judging, return_exceptions=True), strict=True):
            match outcome:
                case ConvictedError():
                    log.warning("message.inspection_failed", tries=delivered.tries, reason=str(outcome))
                    found.convicted += 1
                case TransientError():
                    found.postponed = outcome
                case BaseException():
                    raise outcome
                case Judged() if (judged := beside(outcome, asked.known, has_ended=False)) is not None:
                    found.judged.append(judged)

    async def _judge_by_engines(self, delivered: Delivered, first: Judged, ruleset: Ruleset, batch: str) -> Judged | None:
        """As `_judge`, of a message whose verdict depends on engines: with their answers."""
        body = bytes(first.body)
        answers = await self._engines.ask(first.screened.asks, first.envelope, body)
        return await self._judge(delivered, first.envelope, body, ruleset, batch, answers)

    def _is_to_wait(self, judged: Judged, ruleset: Ruleset) -> bool:
        """Whether it stays in INTAKE for an engine that failed: not for ever, lest it be forgotten there."""
        if not judged.screened.deferral:
            return False
        waited_s = (datetime.now(UTC) - judged.envelope.accepted_at).total_seconds()
        return waited_s < ruleset.policy.engines.hold_after_s

    async def _judge(
        self,
        delivered: Delivered,
        envelope: Envelope,
        inline: memoryview | bytes,
        ruleset: Ruleset,
        batch: str,
        answers: Answers | None = None,
    ) -> Judged | None:
        """What is to be done with one message; None when it has been done. ConvictedError when its inspection failed and it gets another.
        Without `answers` `inline` is what came with the envelope, with them the whole message."""
        started = time.perf_counter()
        body: bytes | memoryview = inline  # as far as it is at hand: to hold a message, a stored body stays where it is
        try:
            whole = await self._read(envelope, memoryview(inline)) if answers is None else bytes(inline)
            known = self._waiting.verdict(envelope.id) if answers is None else None
            screened = known or await self._screen(delivered, envelope, whole, ruleset, answers or NOBODY_ASKED)
            body = whole
        except BodyMissing as error:
            if was_handed_on(envelope, await self._actions.known(envelope, batch)):
                log.info("message.already_settled", id=envelope.id, tries=delivered.tries)
                return None
            log.error("message.body_missing", id=envelope.id, alarm=True, reason=str(error))
            body, screened = b"", Screened(verdict=_held(ruleset, HoldReason.BODY_MISSING, str(error)))
        except ConvictedError as error:
            if not self._is_poison(
                envelope.id, delivered.tries - self._waiting.times(envelope.id), ruleset.policy.max_deliveries
            ):
                raise
            log.error("message.poison", id=envelope.id, tries=delivered.tries, reason=str(error))
            detail = f"screening failed {delivered.tries} times, at last: {error}"
            screened = Screened(verdict=poisoned(ruleset.revision, detail, ruleset.policy.unscannable))
        self._convictions.pop(envelope.id, None)
        screened = to_be_kept(screened, ruleset)
        return Judged(envelope, body, _timed(screened, (time.perf_counter() - started) * 1000))

    async def _read(self, envelope: Envelope, inline: memoryview) -> bytes:
        """The whole message. ConvictedError when it does not fit into what memory there is: tried again for ever, it would never be
        judged, and cost everybody else theirs each time."""
        try:
            return bytes(await self._bodies.load(envelope, inline))
        except MemoryError as error:
            raise ConvictedError("it does not fit into the memory of this worker") from error

    def _is_poison(self, queue_id: QueueId, tries: int, max_deliveries: int) -> bool:
        """Counts a conviction. The first delivery, which ended a worker, and the one at hand are two; from three on, one more must be
        known to this worker."""
        self._convictions[queue_id] = self._convictions.pop(queue_id, 0) + 1
        if len(self._convictions) > _MAX_REMEMBERED:
            del self._convictions[next(iter(self._convictions))]
        return tries >= max_deliveries and (max_deliveries <= 2 or self._convictions[queue_id] > 1)

    async def _screen(
        self, delivered: Delivered, envelope: Envelope, body: bytes, ruleset: Ruleset, answers: Answers
    ) -> Screened:
        limit_s = min(ruleset.policy.screening_timeout_s, MAX_INSPECTION_S)
        if delivered.tries > 1 and not self._waiting.times(envelope.id):
            return await self._sandbox.inspect(envelope, body, ruleset, limit_s, wait_s=limit_s, answers=answers)
        many_looks = len(envelope.recipients) * len(ruleset.recipients) > _THREAD_OVER_LOOKS
        if len(body) > THREAD_OVER_BYTES or many_looks or ruleset.looks_inside:
            return await asyncio.to_thread(self._guarded, envelope, body, ruleset, answers, limit_s)
        return self._guarded(envelope, body, ruleset, answers, limit_s)

    def _guarded(self, envelope: Envelope, body: bytes, ruleset: Ruleset, answers: Answers, limit_s: float) -> Screened:
        with self._watchdog.guard(limit_s):
            return self._inspect(envelope, body, ruleset, answers)

    def _tell_waiting(self, judged: Judged, tries: int) -> None:
        reason = judged.screened.deferral
        log.warning("message.waits_for_engine", id=judged.envelope.id, tries=tries, reason=reason)
        if tries == 1:  # the trace need not tell each of a hundred tries
            self._events.tell(judged.envelope.id, EventKind.DEFERRED, reason=reason)
        self._engines.note(judged.screened.verdict)

    def _tell_accepted(self, share: Envelope, whole: QueueId) -> None:
        self._events.tell(
            share.id,
            EventKind.ACCEPTED,
            gate=share.gate.value,
            reverse_path=share.reverse_path,
            recipients=len(share.recipients),
            to=share.recipients[0].address,
            size_bytes=share.size_bytes,
            about=whole,
        )

    def _tell(self, envelope: Envelope, verdict: Verdict) -> None:
        self.counters.add(CounterName.SCREENED, verdict.decision)
        self.counters.add(CounterName.SCREENED_BYTES, by=envelope.size_bytes)
        self.counters.observe(CounterName.SCREENING_S, verdict.screening_ms / 1000)
        fields: dict[str, str | int | float | bool] = {
            "decision": verdict.decision,
            "revision": verdict.revision,
            "ms": round(verdict.screening_ms, 3),
        }
        if (deciding := verdict.deciding) is not None:
            fields |= {
                "rule_id": deciding.rule_id,
                "rule_name": deciding.rule_name,
                "part": deciding.part,
                "offset": deciding.offset,
            }
        if verdict.hold_reason is not None:
            fields["hold_reason"] = verdict.hold_reason.value
        for answer in verdict.answers:
            fields[answer.engine.value] = f"{answer.result} {answer.detail}".strip()
            fields[f"{answer.engine.value}_ms"] = answer.ms
        if verdict.unscanned:
            fields["unscanned"] = ", ".join(verdict.unscanned)
        log.info("message.screened", id=envelope.id, gate=envelope.gate, size_bytes=envelope.size_bytes, **fields)
        if verdict.obstacles:
            fields["unscannable"] = ",".join(dict.fromkeys(obstacle.kind.value for obstacle in verdict.obstacles))
        if verdict.decision is not Decision.PASS or verdict.obstacles:
            fields["detail"] = verdict.detail
        if verdict.changes:
            fields["changes"] = "; ".join(map(told_change, verdict.changes))[:_TOLD_CHARACTERS]
        # of an ordinary message nothing matched: there is no more to tell
        of_note = verdict.findings or verdict.criteria or verdict.obstacles or verdict.changes or verdict.language
        more = verdict if of_note else None
        self._events.tell(envelope.id, EventKind.SCREENED, verdict=more, **fields)


def told_change(made: ChangeMade) -> str:
    """A change in a few words: `tag-subject`, `strip-attachments 2`, `add-disclaimer (skipped)`."""
    words = (made.kind, made.part, made.address, "(monitored)" * made.monitored, "(skipped)" * made.skipped)
    return " ".join(word for word in words if word)


def _held(ruleset: Ruleset, reason: HoldReason, detail: str) -> Verdict:
    return Verdict(revision=ruleset.revision, decision=Decision.HOLD, hold_reason=reason, detail=detail)


def _timed(screened: Screened, milliseconds: float) -> Screened:
    def timed(verdict: Verdict) -> Verdict:
        return msgspec.structs.replace(verdict, screening_ms=milliseconds)

    outcomes = tuple([msgspec.structs.replace(each, verdict=timed(each.verdict)) for each in screened.outcomes])
    return msgspec.structs.replace(screened, verdict=timed(screened.verdict), outcomes=outcomes)
