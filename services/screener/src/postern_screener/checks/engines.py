"""Criteria that engines answer: each a look at what its engine said, asked only when a rule comes to it."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass

from postern_core.policy import Criterion, SpamCondition, VirusCondition, YaraCondition
from postern_core.verdict import Engine
from postern_screener.engines.answers import Answer, Spam, Viruses, YaraMatch, YaraMatches

Place = tuple[str, int, str]  # part, offset, excerpt


@dataclass(frozen=True, slots=True)
class EngineLook:
    """Whom a criterion asks, and where in the answer it holds; None: it does not."""

    engine: Engine
    find: Callable[[Answer], Place | None]


def engine_look(criterion: Criterion) -> EngineLook | None:
    """None for a criterion that no engine answers."""
    match criterion:
        case VirusCondition(names=names):
            wildcards = tuple(re.compile(fnmatch.translate(name), re.IGNORECASE) for name in names)
            return EngineLook(Engine.CLAMD, lambda answer: _virus(answer, wildcards))
        case SpamCondition(at_least=least, actions=actions):
            wanted = frozenset(action.casefold() for action in actions)
            return EngineLook(Engine.RSPAMD, lambda answer: _spam(answer, least, wanted))
        case YaraCondition(rules=rules, tags=tags):
            named, tagged = frozenset(rules), frozenset(tags)
            return EngineLook(Engine.YARA, lambda answer: _yara(answer, named, tagged))
        case _:
            return None


def _virus(answer: Answer, wildcards: tuple[re.Pattern[str], ...]) -> Place | None:
    names = answer.names if isinstance(answer, Viruses) else ()
    found = (name for name in names if not wildcards or any(wildcard.match(name) for wildcard in wildcards))
    return next((("message", 0, name) for name in found), None)


def _spam(answer: Answer, at_least: float | None, actions: frozenset[str]) -> Place | None:
    if not isinstance(answer, Spam):
        return None
    if (at_least is not None and answer.score >= at_least) or answer.action.casefold() in actions:
        return "message", 0, f"{answer.score:g} of {answer.required_score:g}, {answer.action}: {', '.join(answer.symbols)}"
    return None


def _yara(answer: Answer, rules: frozenset[str], tags: frozenset[str]) -> Place | None:
    def is_wanted(match: YaraMatch) -> bool:
        return not (rules or tags) or match.rule in rules or not tags.isdisjoint(match.tags)

    found = answer.matches if isinstance(answer, YaraMatches) else ()
    return next(((match.part, match.offset, f"{match.rule}: {match.excerpt}") for match in found if is_wanted(match)), None)
