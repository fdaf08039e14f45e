"""Criteria about what a message is written in: charsets, scripts and languages, each a look at facts that are gathered when a rule first asks for them.

Which letters a text is made of is exact, the same for every message and cheap; the language is a guess, made only where it is sure (checks/language.py).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Final

from postern_core.policy import CharsetCondition, Criterion, LanguageCondition, Script, ScriptCondition
from postern_core.policy.languages import checked_languages
from postern_core.verdict import TextLanguage
from postern_screener.charsets import charset_name, named_charsets, text_readings
from postern_screener.checks.language import Told, load_identifier, tell
from postern_screener.hidden_text import cuts
from postern_screener.html_text import visible_text
from postern_screener.message_tree import Message, Part
from postern_screener.text import written

MAX_CHARACTERS: Final = 1_000_000  # of a message, whose letters are counted
_MAX_SOURCE: Final = 64 * 1024  # characters of a text, in which the beginning of what a reader sees is looked for
_UNICODE: Final = frozenset({"utf-8", "utf-16"})
_MAX_WRITTEN: Final = 16 * 1024  # characters of what he sees, with links and keys that are no words
Look = Callable[["Facts"], tuple[str, str] | None]  # part and text for the verdict; None: it does not hold

_SCRIPTS: Final = {
    Script.ARABIC: r"\u0620-\u064a\u066e-\u06d3\u06fa-\u06ff\u0750-\u077f\u08a0-\u08c9\ufb50-\ufdfb\ufe70-\ufefc",
    Script.ARMENIAN: r"\u0531-\u0556\u0560-\u0588\ufb13-\ufb17",
    Script.BENGALI: r"\u0985-\u09b9\u09ce-\u09e1\u09f0\u09f1",
    Script.CYRILLIC: r"\u0400-\u0481\u048a-\u052f\u1c80-\u1c8a\u2de0-\u2dff\ua640-\ua69d",
    Script.DEVANAGARI: r"\u0904-\u0939\u0950\u0958-\u0961\u0971-\u097f\ua8f2-\ua8fb",
    Script.ETHIOPIC: r"\u1200-\u135a\u1380-\u138f\u2d80-\u2dde\uab01-\uab2e",
    Script.GEORGIAN: r"\u10a0-\u10fa\u10fc-\u10ff\u1c90-\u1cbf\u2d00-\u2d2d",
    Script.GREEK: r"\u0370-\u0373\u0376-\u037d\u0386\u0388-\u03e1\u03f0-\u03ff\u1f00-\u1fbc\u1fc2-\u1ffc",
    Script.HAN: r"\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufad9\U00020000-\U000323af",
    Script.HANGUL: r"\u1100-\u11ff\u3131-\u318e\ua960-\ua97c\uac00-\ud7a3\ud7b0-\ud7fb",
    Script.HEBREW: r"\u05d0-\u05f2\ufb1d-\ufb4f",
    Script.KANA: r"\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fd-\u30ff\u31f0-\u31ff\uff66-\uff9d",
    Script.KHMER: r"\u1780-\u17b3\u17d7\u17dc",
    Script.LATIN: r"A-Za-z\xaa\xba\xc0-\xd6\xd8-\xf6\xf8-\u02b8\u1d00-\u1d25\u1e00-\u1eff\u2c60-\u2c7f\ua722-\ua7ca\uff21-\uff3a\uff41-\uff5a",
    Script.TAMIL: r"\u0b83-\u0bb9\u0bd0",
    Script.THAI: r"\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46",
}
_RUNS: Final = {script: re.compile(f"[{ranges}]+") for script, ranges in _SCRIPTS.items()}
_ASCII: Final = re.compile("[\x00-\x7f]+")
_NO_LETTERS: Final = bytes(byte for byte in range(256) if not chr(byte).isalpha() or byte > 0x7F)


class Facts:
    """What is known of one message, gathered once and only when asked for."""

    def __init__(self, message: Message) -> None:
        self._message = message
        self.told_language: TextLanguage | None = None  # None: nobody has asked

    @functools.cached_property
    def charsets(self) -> dict[str, str]:
        """Charsets that a text says or seems to be in, by their canonical names → the first part that does."""
        found: dict[str, str] = {}
        for part in self._message.parts:
            if part.is_text:
                for name in named_charsets(part.content(), part.charset):
                    found.setdefault(name, part.path)
        return found

    @functools.cached_property
    def letters(self) -> tuple[tuple[dict[Script, int], int], ...]:
        """How many letters of each script there are, and how many in all; as declared, and as the bytes suggest where that differs."""
        readings = [list(self._texts(0)), list(self._texts(-1))]
        return tuple(_letters(texts) for texts in (readings[:1] if readings[0] == readings[1] else readings))

    @functools.cached_property
    def language(self) -> Told:
        """What the message is mostly written in."""
        told = tell((part.path, _read(part)) for part in self._message.parts if part.is_text and not part.is_attachment)
        self.told_language = told.language
        return told

    def _texts(self, reading: int) -> Iterator[str]:
        left = MAX_CHARACTERS
        yield self._message.field("subject")
        for part in self._message.parts:
            if left > 0 and part.is_text and not part.is_attachment:
                text = _shown(part, reading)[:left]
                left -= len(text)
                yield text


def _shown(part: Part, reading: int) -> str:
    text = text_readings(part.content(), part.charset)[reading][0]
    return visible_text(text) if part.is_html else text


def _read(part: Part) -> str:
    """What a reader reads first: without what is hidden from him, and in Unicode, whatever the header says, where the bytes are of no other charset:
    UTF-8 that is read in another one looks like a language too."""
    content = part.content()
    readings = text_readings(content, part.charset)
    others = () if content.isascii() else readings[1:]
    text = next((other for other, codec in others if codec in _UNICODE), readings[0][0])[:_MAX_SOURCE]
    if part.is_html:
        without_hidden = cuts(text, text.encode("utf-8", "replace"))
        text = visible_text(without_hidden[0].rest if without_hidden else text)
    return written(text[:_MAX_WRITTEN])


def _letters(texts: list[str]) -> tuple[dict[Script, int], int]:
    counted = dict.fromkeys(Script, 0)
    whole = 0
    for text in texts:
        latin = len(text.encode("ascii", "ignore").translate(None, _NO_LETTERS))
        counted[Script.LATIN] += latin
        whole += latin
        rest = _ASCII.sub("", text)
        if rest:
            whole += sum(map(str.isalpha, rest))
            for script, run in _RUNS.items():
                counted[script] += sum(map(len, run.findall(rest)))
    return counted, whole


def look_of(criterion: Criterion) -> Look | None:
    """The look that `criterion` wants; None when it is of another kind. ValueError for a value that is none."""
    match criterion:
        case CharsetCondition(charsets=charsets):
            wanted = tuple(dict.fromkeys(charset_name(charset) for charset in charsets))
            if "" in wanted:
                raise ValueError("charset rule: a charset is empty")
            return lambda facts: _charset(facts, wanted)
        case ScriptCondition(scripts=scripts, more_than_percent=percent):
            return lambda facts: _script(facts, scripts, percent)
        case LanguageCondition(languages=languages):
            load_identifier()
            asked = checked_languages(languages)
            return lambda facts: _language(facts, asked)
        case _:
            return None


def _charset(facts: Facts, wanted: tuple[str, ...]) -> tuple[str, str] | None:
    return next(((part, f"charset {name}") for name in wanted if (part := facts.charsets.get(name)) is not None), None)


def _script(facts: Facts, scripts: tuple[Script, ...], percent: float) -> tuple[str, str] | None:
    for counted, whole in facts.letters:
        share = 100 * sum(counted[script] for script in dict.fromkeys(scripts)) / whole if whole else 0.0
        if share > percent:
            return "1", f"{share:.0f} % of the letters are {', '.join(scripts)}"
    return None


def _language(facts: Facts, asked: tuple[str, ...]) -> tuple[str, str] | None:
    told = facts.language
    found = told.language
    if found.code not in asked:
        return None
    return told.part, f"{found.code} {found.percent} % ({found.confidence}): {told.sample}"
