"""The language that a text is mostly written in, told by CLD3, a small neural network whose model is compiled into its package.

A text is looked at in pieces, each by scripts apart, so that some foreign words, or a quoted answer in another language, do not decide of the whole. Said
is only what is sure: of texts of 80 letters and more under one in two hundred are taken for another language, nearly all of them Indonesian for Malay.
The same text always gets the same answer. Looked at are the first MAX_CHARACTERS, in two milliseconds at most, without the interpreter's lock.
The package is imported when a policy first asks for a language, never before: it takes some megabytes.
Known gaps: a language written in letters that are not its own (Russian in Latin ones) is told to be none.
"""

from __future__ import annotations

import functools
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from postern_core.policy.languages import LANGUAGES, LEAST_LETTERS
from postern_core.verdict import TextLanguage

MAX_CHARACTERS: Final = 4000  # of a message
PIECE_CHARACTERS: Final = 300  # about what the network needs to be sure
_LONGEST_WORD: Final = 40  # ASCII without a blank that is longer is a key, a path or base64
_LEAST_CONFIDENCE: Final = 0.85
_LEAST_OF_TWINS: Final = 0.5
_MOST_BYTES: Final = 4 * PIECE_CHARACTERS
_SCRIPTS: Final = 3  # told apart in a piece
# the network's names for what has another one in ISO 639-1; Croatian and Bosnian share its confidence between them
_CODES: Final = {"iw": "he", "fil": "tl", "bs": "hr"}
_TWINS: Final = frozenset({"hr"})
_EAST_ASIAN: Final = re.compile("[\u3041-\u30ff\u3400-\u9fff\uac00-\ud7a3\U00020000-\U000323af]")


class Told(NamedTuple):
    """What is known of a text, and where in it."""

    language: TextLanguage
    part: str = "1"  # the first in this language
    sample: str = ""  # how it begins


def tell(texts: Iterable[tuple[str, str]]) -> Told:
    """What the texts, each with its part, are together written in, for the greater part."""
    identifier, lock = load_identifier()
    shares: Counter[str] = Counter()
    sureness: Counter[str] = Counter()
    first: dict[str, tuple[str, str]] = {}
    letters = 0
    for part, piece in _pieces(texts):
        size = _letters(piece)
        if not size:
            continue
        letters += size
        # valid UTF-8 whatever is in the text: on anything else it reads beyond its tables, and a word is never cut in its octets (_MOST_BYTES)
        with lock:  # it keeps what it works on in itself
            found = identifier.FindTopNMostFreqLangs(piece.encode("utf-8", "replace"), _SCRIPTS)
        for each in found:
            code = _CODES.get(each.language, each.language)
            if code in LANGUAGES and each.proportion > 0:  # neither unknown nor written in the letters of another language
                shares[code] += size * each.proportion
                sureness[code] += size * each.proportion * each.probability
                if each is found[0]:
                    first.setdefault(code, (part, piece))
    if not shares:
        return Told(TextLanguage(letters=letters))
    code = max(sureness, key=lambda each: (sureness[each], each))
    share, confidence = shares[code] / letters, sureness[code] / shares[code]
    is_sure = confidence >= (_LEAST_OF_TWINS if code in _TWINS else _LEAST_CONFIDENCE)
    if letters < LEAST_LETTERS or share <= 0.5 or not is_sure:
        return Told(TextLanguage(letters=letters))
    language = TextLanguage(code=code, percent=round(100 * share), confidence=round(confidence, 2), letters=letters)
    return Told(language, *first.get(code, ()))


@functools.cache
def load_identifier() -> tuple[Any, threading.Lock]:
    """The network, and what keeps threads from using it at once. ValueError where the package is missing."""
    try:
        from gcld3 import NNetLanguageIdentifier  # loaded only where a policy asks for it
    except ImportError as error:
        raise ValueError("a rule asks for a language, and the package cld3-py is not installed") from error
    return NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=_MOST_BYTES), threading.Lock()


def _pieces(texts: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    left = MAX_CHARACTERS
    for part, text in texts:
        piece = ""
        for word in _words(text):
            if piece and len(piece) + len(word) >= PIECE_CHARACTERS:
                yield part, piece
                piece = ""
            piece = f"{piece} {word}" if piece else word
            left -= len(word) + 1
            if left <= 0:
                break
        if piece:
            yield part, piece
        if left <= 0:
            return


def _words(text: str) -> Iterator[str]:
    """What is written for people: without addresses, links, and what is too long to be a word. East Asian lines in handy lengths."""
    for word in text.split():
        if "@" in word or "://" in word or word.startswith("www.") or (len(word) > _LONGEST_WORD and word.isascii()):
            continue
        for start in range(0, len(word), PIECE_CHARACTERS):
            yield word[start : start + PIECE_CHARACTERS]


def _letters(piece: str) -> int:
    letters = sum(map(str.isalpha, piece))
    return letters if piece.isascii() else letters + 2 * len(_EAST_ASIAN.findall(piece))
