"""What an earlier run over the same message did, as its dispositions tell, and what is left to do after it. Pure.

That run was cut short, or its acknowledgement was lost, and rules may be others now. Whoever has an end, or is known to go on elsewhere, is not
judged a second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import msgspec

from postern_core.disposition import Disposition, DispositionKind
from postern_core.envelope import Envelope
from postern_core.verdict import Decision, HoldReason
from postern_screener.judged import Judged, share_id
from postern_screener.screening import Outcome

_HELD: Final = frozenset({DispositionKind.HELD, DispositionKind.RELEASED})
HANDED_ON: Final = frozenset(
    {DispositionKind.DELIVERED, DispositionKind.BOUNCED, DispositionKind.EXPIRED, DispositionKind.BADMAIL}
)
STAYS_HELD: Final = "held by an earlier run, under rules that have changed since"


def was_handed_on(envelope: Envelope, known: Mapping[int, Disposition]) -> bool:
    """Whether the body of a message of which these ends are known is gone because somebody took it over: he may have used it up. That some of
    the recipients were deleted, forwarded or split off says nothing of that: it goes when this is written of all."""
    kinds = frozenset(end.kind for end in known.values())
    return bool(kinds & (_HELD | HANDED_ON)) or len(known) == len(envelope.recipients)


def beside(found: Judged, known: Mapping[int, Disposition], *, has_ended: bool) -> Judged | None:
    """What is to be done with a message in the light of what an earlier run did with it, as its dispositions tell; None for nothing."""
    if not known and not has_ended:
        return found
    earlier = frozenset(end.kind for end in known.values())
    if has_ended:
        return None if earlier & _HELD or not earlier & HANDED_ON else _going_along(found)
    # it is in quarantine with everybody, and is to be written down as held of the rest: a job beside that would take its body along
    if DispositionKind.HELD in earlier:
        return _staying_held(found)
    # one that was held was not handed on, and may have been released since: its first generation is then open to whoever looks it up
    if DispositionKind.RELEASED in earlier or not earlier & HANDED_ON:
        return _without_split_off(replace(found, known=known))
    return _going_along(found)


def _going_along(found: Judged) -> Judged:
    """With the others once more, whatever newer rules say of it: only the same batch is recognised as a copy, and another verdict would give those a
    second end who have one."""
    screened = found.screened
    if screened.verdict.decision is Decision.PASS and not screened.outcomes:
        return found
    verdict = msgspec.structs.replace(screened.verdict, decision=Decision.PASS, hold_reason=None)
    return replace(found, screened=msgspec.structs.replace(screened, verdict=verdict, outcomes=()))


def _staying_held(found: Judged) -> Judged:
    screened = found.screened
    if screened.verdict.decision is Decision.HOLD and not screened.outcomes:
        return found
    verdict = msgspec.structs.replace(
        screened.verdict, decision=Decision.HOLD, hold_reason=HoldReason.RULE, forward_to="", detail=STAYS_HELD
    )
    return replace(found, screened=msgspec.structs.replace(screened, verdict=verdict, edits=(), outcomes=()))


def _without_split_off(found: Judged) -> Judged:
    """An earlier run was cut short, and rules were others then: those who went on under another id are in no other share, whatever is said of
    them now. A share that is the same as then is kept whole, since that all of it went on may not have been written down yet."""
    envelope, screened = found.envelope, found.screened
    gone = {n: end.successor_id for n, end in found.known.items() if end.kind is DispositionKind.SPLIT}
    if not gone:
        return found
    everybody = tuple(recipient.n for recipient in envelope.recipients)
    outcomes: list[Outcome] = []
    for outcome in screened.outcomes or (Outcome(recipients=everybody, verdict=screened.verdict, edits=screened.edits),):
        went_on = {gone[n] for n in outcome.recipients if n in gone}
        if went_on - {share_id(envelope, outcome.recipients)}:
            left = tuple(n for n in outcome.recipients if n not in gone)
            outcome = msgspec.structs.replace(outcome, recipients=left)  # noqa: PLW2901  (the same one, with fewer)
        if outcome.recipients:
            outcomes.append(outcome)
    return replace(found, screened=msgspec.structs.replace(screened, outcomes=tuple(outcomes)))
