"""Mail that could not be screened whole: what the policy says of it, and the header field that goes with what passes all the same.

Rules come first; this is asked when none decided. Of several obstacles the gravest answer counts: held before deleted before passed, since what
is held can still be deleted. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from postern_core.policy import UnscannableAction, UnscannablePolicy
from postern_core.verdict import Decision, Obstacle, Unscannable, Verdict
from postern_screener.defects import Defect

_QUOTE: Final = re.compile("['\"]")
UNSCANNABLE_FIELD: Final = "X-Postern-Unscannable"
UNSCANNED_FIELD: Final = "X-Postern-Unscanned"  # names engines that failed
MAX_OBSTACLES: Final = 10
_REASON_CHARACTERS: Final = 400
_FIELD_CHARACTERS: Final = 300  # of a reason, in the header field: a line may have 998 octets (RFC 5322 section 2.1.1)


def obstacles_of(defects: Sequence[Defect]) -> tuple[Obstacle, ...]:
    """The first of each kind, then others, in the order of the message."""
    if not defects:
        return ()
    first = {defect.kind: defect for defect in reversed(defects)}
    ordered = [*sorted(first.values(), key=defects.index), *(each for each in defects if first[each.kind] is not each)]
    told = dict.fromkeys(
        Obstacle(kind=each.kind, part=each.part, reason=one_line(each.reason, _REASON_CHARACTERS))
        for each in ordered[: 2 * MAX_OBSTACLES]
    )
    return tuple(told)[:MAX_OBSTACLES]


def by_policy(verdict: Verdict, policy: UnscannablePolicy) -> Verdict:
    """What becomes of a message with obstacles that no rule decided on. `verdict` is what it would get without them."""
    for action, decision in ((UnscannableAction.HOLD, Decision.HOLD), (UnscannableAction.DELETE, Decision.DELETE)):
        if decision is Decision.DELETE and verdict.decision is Decision.HOLD:
            break  # the gate wants it held for another reason
        for obstacle in verdict.obstacles:
            if policy.answer(obstacle.kind) is action:
                return msgspec.structs.replace(
                    verdict,
                    decision=decision,
                    hold_reason=obstacle.kind.hold_reason if decision is Decision.HOLD else None,
                    detail=_told(obstacle),
                )
    if verdict.decision is not Decision.PASS:
        return verdict
    return msgspec.structs.replace(verdict, detail=_told(verdict.obstacles[0]))


def poisoned(revision: int, reason: str, policy: UnscannablePolicy) -> Verdict:
    """The verdict on a message that broke its inspection again and again."""
    obstacle = Obstacle(kind=Unscannable.POISON, part="1", reason=one_line(reason, _REASON_CHARACTERS))
    verdict = by_policy(Verdict(revision=revision, decision=Decision.PASS, obstacles=(obstacle,)), policy)
    return msgspec.structs.replace(verdict, detail=reason)


def header_fields(verdict: Verdict) -> bytes:
    """What is put in front of a message that passes with obstacles, a field for each kind; nothing where a rule let it pass, or without obstacles."""
    if not verdict.obstacles or verdict.decision is not Decision.PASS or verdict.deciding is not None:
        return b""
    first: dict[Unscannable, Obstacle] = {}
    for obstacle in verdict.obstacles:
        first.setdefault(obstacle.kind, obstacle)
    return b"".join(_fields(first.values()))


def _fields(obstacles: Iterable[Obstacle]) -> Iterable[bytes]:
    for obstacle in obstacles:
        told = f"part {obstacle.part[:60]}: {obstacle.reason[:_FIELD_CHARACTERS]}".encode("ascii", "replace").decode("ascii")
        yield f"{UNSCANNABLE_FIELD}: {obstacle.kind.value}; {told}\r\n".encode("ascii")


def unquoted(text: str) -> str:
    """`text` up to where it quotes the message; a quotation may have been cut, so that nobody knows where it ends."""
    told = _QUOTE.split(text, maxsplit=1)
    return text if len(told) == 1 else f"{told[0]}..."


def detail_of_ours(verdict: Verdict) -> str:
    """The verdict's detail without what it quotes of the message."""
    # what a rule says is the administrator's, and so are its quotes
    by_rule = verdict.deciding is not None and verdict.detail == f"rule {verdict.deciding.rule_name}"
    return unquoted(verdict.detail) if verdict.obstacles and not by_rule else verdict.detail


def _told(obstacle: Obstacle) -> str:
    return one_line(f"part {obstacle.part}: {obstacle.reason}", 500)


def one_line(text: str, limit: int) -> str:
    """`text` without controls and direction marks, white space as single blanks, cut at `limit` characters."""
    line = " ".join(text[: limit * 4].split())
    return (line if line.isprintable() else "".join(character for character in line if character.isprintable()))[:limit]
