"""Why a rule did not match: its first condition that failed, or the exception that held, in words and by its place in the rule.

Pure. It goes by what the screener wrote down of a message: the keys of the criteria that held. Everything else that is searched for did not hold. A
property of the envelope that no rule came to is not known, and nothing is said of it: the judging of that message is repeated here, step by
step, to tell those that were looked at. Of keywords that may stand in what nobody opened the screener says so.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from postern_core.policy.conditions import (
    AllOf,
    AnyOf,
    AttachmentCondition,
    AttachmentMatch,
    ClientCondition,
    Condition,
    DirectionCondition,
    KeywordCondition,
    KeywordScope,
    LanguageCondition,
    MalformedCondition,
    Not,
    RecipientCondition,
    SenderCondition,
    SizeCondition,
    UserCondition,
)
from postern_core.policy.expressions import Truth, expression
from postern_core.policy.languages import LEAST_LETTERS, named
from postern_core.policy.matching import CompiledRule, NumberedRules, is_lazy
from postern_core.policy.screening import Rule, RuleMode
from postern_core.verdict import Action, TextLanguage

_SHOWN_VALUES: Final = 3
_SHOWN_CHARACTERS: Final = 60  # of each value
_SHOWN_PARTS: Final = 5
_WHERE: Final = {
    KeywordScope.BOTH: "the header or body",
    KeywordScope.ALL: "the header, body, an attachment or something in it",
    KeywordScope.ATTACHMENTS: "an attachment or something in it",
}


class Outcome(enum.StrEnum):
    """What came of a rule."""

    DECIDED = "decided"  # the first in mode on that matched
    MATCHED = "matched"  # it would have decided, had an earlier one not
    CONTINUED = "continued"  # it matched, made its changes, and let later ones decide
    MONITORED = "monitored"  # it matched, and only records that
    EXCEPTED = "excepted"  # its condition held, and so did its exception
    FAILED = "failed"  # its condition did not hold
    UNKNOWN = "unknown"  # it depends on something that nobody asked


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """One rule. `path` is the place of the condition that kept it from matching, in the rule (`condition.of.1`), and `because` says it in
    words; both are empty for a rule that matched."""

    rule: Rule
    outcome: Outcome
    path: str = ""
    because: str = ""


def explain(
    rules: Sequence[Rule], held: Collection[str], unasked: Collection[str] = (), language: TextLanguage | None = None
) -> list[RuleOutcome]:
    """What came of each rule, in their order, for a message of which the criteria with the keys `held` held; of those in `unasked` it is
    not known. `language`: what was found when a rule asked for it."""
    numbered = NumberedRules(rules)
    keys = [numbered.key(n) for n in range(len(numbered.criteria))]
    true = {n for n, key in enumerate(keys) if key in held}
    unknown = {n for n, key in enumerate(keys) if key in unasked} - true
    lazy = {n for n, criterion in enumerate(numbered.criteria) if is_lazy(criterion)}
    looked_at: set[int] = set()

    def as_screened(n: int) -> bool | None:
        looked_at.add(n)
        return True if n in true else None if n in unknown else False

    for candidate in numbered.candidates((true | unknown) - lazy):
        candidate.matches(as_screened)
    unknown |= lazy - looked_at - true

    def truth(n: int) -> bool | None:
        return True if n in true else None if n in unknown else False

    outcomes, decided = [], False
    for rule in numbered.rules:
        outcome = _outcome(rule, truth, numbered, decided=decided, language=language)
        decided = decided or outcome.outcome is Outcome.DECIDED
        outcomes.append(outcome)
    return outcomes


def _outcome(
    compiled: CompiledRule, truth: Truth, numbered: NumberedRules, *, decided: bool, language: TextLanguage | None
) -> RuleOutcome:
    rule, matches = compiled.rule, compiled.matches(truth)
    if matches is None:
        return RuleOutcome(rule, Outcome.UNKNOWN)
    if matches:
        if rule.mode is RuleMode.MONITOR:
            return RuleOutcome(rule, Outcome.MONITORED)
        if decided:
            return RuleOutcome(rule, Outcome.MATCHED)
        return RuleOutcome(rule, Outcome.CONTINUED if rule.action is Action.CONTINUE else Outcome.DECIDED)
    if compiled.condition.judge(truth) is not False and rule.unless is not None:
        return RuleOutcome(rule, Outcome.EXCEPTED, "unless", f"the exception holds: {in_words(rule.unless)}")
    path, failed = _first_failed(rule.condition, truth, numbered, "condition")
    return RuleOutcome(rule, Outcome.FAILED, path, _complaint(failed, language))


def _first_failed(condition: Condition, truth: Truth, numbered: NumberedRules, path: str) -> tuple[str, Condition]:
    """The first condition, in the order in which they are written, that is known not to hold; inside `all` the part that failed."""
    if isinstance(condition, AllOf):
        for n, part in enumerate(condition.of):
            if expression(part, numbered.numbers.__getitem__).judge(truth) is False:
                return _first_failed(part, truth, numbered, f"{path}.of.{n}")
    return path, condition


def _complaint(failed: Condition, language: TextLanguage | None) -> str:
    if isinstance(failed, Not):
        return f"it must not be so that {in_words(failed.of)}, but it is"
    if isinstance(failed, AnyOf):
        shown = "; ".join(in_words(part) for part in failed.of[:_SHOWN_PARTS])
        more = len(failed.of) - _SHOWN_PARTS
        return f"none of these holds: {shown}{f'; and {more} more' if more > 0 else ''}"
    said = f"it is not so that {in_words(failed)}"
    return f"{said}: {_of_language(language)}" if isinstance(failed, LanguageCondition) and language is not None else said


def _of_language(found: TextLanguage) -> str:
    if found.code:
        return f"it is mostly {named(found.code)}, {found.percent} %"
    if found.letters < LEAST_LETTERS:
        return f"there is too little text to tell, {found.letters} letters of at least {LEAST_LETTERS}"
    return "no language is certain"


def in_words(condition: Condition) -> str:
    """A condition as half a sentence, of bounded length: long lists are cut."""
    match condition:
        case AllOf(of=parts):
            return "all of these hold: " + _joined(parts)
        case AnyOf(of=parts):
            return "one of these holds: " + _joined(parts)
        case Not(of=part):
            return f"it is not so that {in_words(part)}"
        case _:
            return _of_criterion(condition)


def _joined(parts: Sequence[Condition]) -> str:
    shown = [f"({in_words(part)})" for part in parts[:_SHOWN_PARTS]]
    return ", ".join(shown) + (f" and {len(parts) - len(shown)} more" if len(parts) > len(shown) else "")


def _of_criterion(criterion: msgspec.Struct) -> str:
    match criterion:
        case SenderCondition(patterns=patterns, lists=lists):
            return f"the sender is one of {_values(patterns, lists)}"
        case KeywordCondition(phrases=phrases, expressions=expressions, lists=lists, scope=scope, at_least=number):
            where = _WHERE.get(scope, f"the {scope.value}")
            return f"{where} has {'one' if number == 1 else number} of the phrases {_values((*phrases, *expressions), lists)}"
        case AttachmentCondition() as attachment:
            return _of_attachments(attachment)
        case RecipientCondition(patterns=patterns):
            return f"the recipient is one of {_values(patterns)}"
        case DirectionCondition(gates=gates):
            return f"it came in at one of the gates {_values([gate.value for gate in gates])}"
        case ClientCondition(networks=networks, lists=lists):
            return f"the client's address lies in one of {_values(networks, lists)}"
        case UserCondition(names=names, lists=lists):
            return f"one of these users sent it: {_values(names, lists)}" if names or lists else "a user sent it"
        case SizeCondition(larger_than_bytes=size):
            return f"the message is larger than {size} bytes"
        case LanguageCondition(languages=languages):
            return f"the text is in one of {_values([named(code) for code in languages])}"
        case MalformedCondition():
            return "the message has a defect"
        case _:
            return _of_any_kind(criterion)


def _of_any_kind(criterion: msgspec.Struct) -> str:
    """Of a kind without words of its own: what it says, field by field."""
    said = []
    for field in msgspec.structs.fields(criterion):
        value = getattr(criterion, field.name)
        if value != field.default:
            shown = _values([str(each) for each in value]) if isinstance(value, tuple) else str(value)[:_SHOWN_CHARACTERS]
            said.append(f"{field.name} {shown}")
    return f"{criterion.__struct_config__.tag} holds ({', '.join(said)})" if said else f"{criterion.__struct_config__.tag} holds"


def _of_attachments(condition: AttachmentCondition) -> str:
    subject = "an attachment or something in it" if condition.inside else "an attachment"
    match condition.match:
        case AttachmentMatch.SIZE:
            return f"{subject} is larger than {condition.larger_than_bytes} bytes"
        case AttachmentMatch.COUNT:
            return f"there are more than {condition.more_than} attachments"
        case AttachmentMatch.NESTING:
            return f"more than {condition.more_than} archives lie inside each other"
        case AttachmentMatch.ENCRYPTED:
            return "an attachment or something in it is encrypted"
        case AttachmentMatch.MACRO:
            return "an attachment or something in it has macros"
        case AttachmentMatch.TYPE_MISMATCH:
            return f"{subject} is not of the type that it is said to be"
        case AttachmentMatch.DECEPTIVE_NAME:
            return f"{subject} has a deceptive name"
        case AttachmentMatch.UNOPENED:
            return "an attachment or something in it could not be opened"
        case _:
            return f"the {condition.match.value} of {subject} is one of {_values(condition.values, condition.lists)}"


def _values(values: Sequence[str], lists: Sequence[str] = ()) -> str:
    if lists:
        named = f"those in the lists {_values(lists)}"
        return f"{_values(values)}, or {named}" if values else named
    shown = ", ".join(
        value if len(value) <= _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]}…" for value in values[:_SHOWN_VALUES]
    )
    return f"{shown} and {len(values) - _SHOWN_VALUES} more" if len(values) > _SHOWN_VALUES else shown
