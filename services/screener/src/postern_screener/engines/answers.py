"""What engines say of a message, as values: `screen` makes verdicts of them and asks nobody. They travel to the sandbox as JSON."""

from __future__ import annotations

from typing import Final

import msgspec

from postern_core.verdict import Engine, EngineAnswer

_DETAIL_CHARACTERS: Final = 200
_MOST_TOLD: Final = 10


class EngineError(Exception):
    """An engine could not judge a message. `lasting`: it would be the same next time, so that waiting does not help."""

    def __init__(self, reason: str, *, lasting: bool = False) -> None:
        self.reason, self.lasting = reason, lasting
        super().__init__(reason)


class Viruses(msgspec.Struct, frozen=True, tag="viruses"):
    """What clamd found; no name: it is clean."""

    names: tuple[str, ...] = ()
    ms: float = 0.0


class Spam(msgspec.Struct, frozen=True, tag="spam"):
    """What rspamd makes of it."""

    score: float
    required_score: float
    action: str
    symbols: tuple[str, ...] = ()  # the heaviest first
    ms: float = 0.0


class YaraMatch(msgspec.Struct, frozen=True):
    """One rule that matched in one place."""

    rule: str
    file: str
    tags: tuple[str, ...]
    part: str  # part number, or "message": the bytes as they came
    offset: int  # of its first pattern; 0 for a rule without
    excerpt: str


class YaraMatches(msgspec.Struct, frozen=True, tag="yara"):
    """What the rule files found."""

    matches: tuple[YaraMatch, ...] = ()
    ms: float = 0.0


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """It could not say."""

    reason: str
    lasting: bool = False
    ms: float = 0.0


ClamdAnswer = Viruses | Failure
RspamdAnswer = Spam | Failure
YaraAnswer = YaraMatches | Failure
Answer = Viruses | Spam | YaraMatches | Failure


class Answers(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Those of the daemons; None: not asked. YARA is asked inside the inspection, whose time and memory are bounded already."""

    clamd: ClamdAnswer | None = None
    rspamd: RspamdAnswer | None = None

    def of(self, engine: Engine) -> Answer | None:
        if engine is Engine.CLAMD:
            return self.clamd
        return self.rspamd if engine is Engine.RSPAMD else None


NOBODY_ASKED: Final = Answers()


def told(engine: Engine, answer: Answer) -> EngineAnswer:
    """An answer as the verdict records it."""
    match answer:
        case Failure(reason=reason):
            result, detail = "failed", reason
        case Viruses(names=names):
            result, detail = "found" if names else "clean", ", ".join(names[:_MOST_TOLD])
        case YaraMatches(matches=matches):
            names = tuple(dict.fromkeys(f"{match.file}:{match.rule}" for match in matches))
            result, detail = "found" if names else "clean", ", ".join(names[:_MOST_TOLD])
        case Spam(score=score, required_score=required, action=action):
            result, detail = action, f"{score:g} of {required:g}"
    printable = "".join(character for character in detail if character.isprintable())
    return EngineAnswer(engine=engine, result=result, detail=printable[:_DETAIL_CHARACTERS], ms=round(answer.ms, 3))
