"""Which rule decides, and what stands in the way: rules that depend on an engine that was not asked yet, or that failed.

Pure. Rules are walked in their order, and only so far as they matter: behind the first one that decides nobody is asked anything. A rule in mode
monitor is never a reason to wait for an engine that failed, nor to hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from postern_core.policy import OnFailure, RuleMode
from postern_core.policy.matching import CompiledRule
from postern_core.verdict import Action, Engine
from postern_screener.engines.answers import Failure, Viruses
from postern_screener.inspection import Inspection, Share


@dataclass(frozen=True, slots=True)
class Blocked:
    """Why nothing can be decided. `may_wait`: it is to be tried again."""

    reason: str
    may_wait: bool = False


@dataclass(slots=True)
class Walk:
    """What came of the walk through the rules."""

    matched: list[CompiledRule] = field(default_factory=list)
    deciding: CompiledRule | None = None
    blocked: Blocked | None = None
    virus: str = ""  # found, and no rule has decided
    asks: tuple[Engine, ...] = ()
    unscanned: tuple[Engine, ...] = ()  # failed, and mail passes without by policy

    @property
    def is_over(self) -> bool:
        """Rules behind this one decide nothing."""
        return self.deciding is not None or self.blocked is not None


def decide(share: Share, candidates: Iterable[CompiledRule]) -> Walk:
    """Walk the rules for some of the recipients, then look at what is done without any."""
    inspection = share.inspection
    has_engines = bool(inspection.ruleset.engines)
    walk = Walk()
    unscanned: dict[Engine, None] = {}
    asks: dict[Engine, None] = {}
    for rule in candidates:
        matches = rule.matches(share.holds_so_far if walk.is_over else share.holds)
        if matches:
            walk.matched.append(rule)
        if walk.is_over:
            continue
        is_on = rule.rule.mode is RuleMode.ON
        if matches is None:
            engines = _engines(inspection, rule.undecided(share.holds))
            asks |= dict.fromkeys(engine for engine in engines if inspection.answer(engine) is None)
            if is_on:
                walk.blocked = _blocked(inspection, engines)
        if is_on and has_engines and rule.matches(share.is_answered) is None:
            failed = _engines(inspection, rule.undecided(share.is_answered))
            unscanned |= dict.fromkeys(engine for engine in failed if _is_passed(inspection, engine))
        if matches and is_on and rule.rule.action is not Action.CONTINUE:
            walk.deciding = rule
    if not walk.is_over and inspection.ruleset.policy.engines.clamd.enabled:
        _look_for_viruses(inspection, walk, asks, unscanned)
    walk.asks, walk.unscanned = tuple(asks), tuple(unscanned)
    if asks:
        walk.blocked, walk.deciding = Blocked(f"{', '.join(asks)} not asked yet"), None
    return walk


def _look_for_viruses(inspection: Inspection, walk: Walk, asks: dict[Engine, None], unscanned: dict[Engine, None]) -> None:
    """What no rule decides on is scanned all the same."""
    match inspection.answer(Engine.CLAMD):
        case None:
            asks[Engine.CLAMD] = None
        case Failure():
            if _is_passed(inspection, Engine.CLAMD):
                unscanned[Engine.CLAMD] = None
            else:
                walk.blocked = _blocked(inspection, [Engine.CLAMD])
        case Viruses(names=names):
            walk.virus = ", ".join(names)


def _engines(inspection: Inspection, criteria: Iterable[int]) -> list[Engine]:
    looks = inspection.ruleset.engines
    return list(dict.fromkeys(looks[criterion].engine for criterion in criteria))


def _is_passed(inspection: Inspection, engine: Engine) -> bool:
    passes = inspection.ruleset.policy.engines.of(engine).on_failure is OnFailure.PASS
    return passes and isinstance(inspection.answer(engine), Failure)


def _blocked(inspection: Inspection, engines: Iterable[Engine]) -> Blocked | None:
    """By the first of the engines that failed, and without which mail does not pass."""
    for engine in engines:
        answer = inspection.answer(engine)
        on_failure = inspection.ruleset.policy.engines.of(engine).on_failure
        if isinstance(answer, Failure) and on_failure is not OnFailure.PASS:
            return Blocked(f"{engine} failed: {answer.reason}", on_failure is OnFailure.DEFER and not answer.lasting)
    return None
