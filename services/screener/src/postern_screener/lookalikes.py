"""Look-alike letters: `lоttеrу` with Cyrillic о, е and у is one word to its reader (Unicode Technical Standard 39, ADR 14).

The skeleton of UTS 39 maps whatever looks alike to one form, real Russian words too. Here letters are put back where somebody mixed them: a text
without a letter that only its own script has is Latin throughout; in one with such letters (real Greek or Cyrillic) a word is read again if it mixes
scripts or stands, made of nothing but look-alikes, beside a Latin word. What comes out is one more reading: the text as it stands is searched first,
and a phrase in Cyrillic goes on matching Cyrillic text.
Known gaps: digits and ASCII signs in place of letters (`l0ttery`), two letters that look like one (`rn`), accents that a language uses (`ó`).
"""

from __future__ import annotations

import re
import unicodedata
from itertools import islice
from typing import Final

# letter under letter; capitals apart from small ones, since Greek η looks like n and its capital Η like H
_PAIRS: Final = (
    # Cyrillic: these are the same shapes in every font
    ("АВЕЅІЈКМНОРСТУХҮԌԚԜҺӀ", "ABESIJKMHOPCTYXYGQWHl"),
    ("аеѕіјорсухһԁԛԝӏүґ", "aesijopcyxhdqwlyr"),
    # Cyrillic: small capitals, and what is read as Latin in the middle of a Latin word
    ("вкмнтгпьш", "bkmhtrnbw"),
    ("ЬШѴѵ", "bWVv"),
    # Greek
    ("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧϹϺ", "ABEZHIKMNOPTYXCM"),
    ("αβγεηικμνορστυχωϲϳςζ", "abyenikuvopotuxwcjcz"),
    # Armenian
    ("ԼՕՍՏ", "LOUS"),
    ("օոսհցյզքլ", "onuhgjqpl"),
    # Coptic
    ("ⲀⲂⲈⲎⲒⲔⲘⲚⲞⲢⲤⲦⲨⲬ", "ABEHIKMNOPCTYX"),
    ("ⲁⲃⲉⲏⲓⲕⲙⲛⲟⲣⲥⲧⲩⲭ", "abehikmnopctyx"),
    # Lisu: capitals turned and not turned, these are the ones that are not
    ("ꓐꓑꓓꓔꓖꓗꓙꓚꓜꓝꓟꓠꓡꓢꓣꓦꓧꓪꓫꓬꓮꓰꓲꓳꓴ", "BPDTGKJCZFMNLSRVHWXYAEIOU"),
    # Cherokee, whose small letters stand a fixed way off
    ("ᎠᎡᎢᎥᎪᎫᎬᎳᎷᎻᎽᏀᏃᏏᏒᏔᏙᏚᏞᏟᏢᏦᏧᏴᏵ", "DRTiAJEWMHYGZbRWVSLCPKdBG"),
    # Latin of phonetic alphabets and of no living language's own; ı is Turkish, and looks like i
    ("ɑɡɩıȷɐʋɯƅǀƖƗɾɿꞵꭓꭰ", "agiijavwblllrrBxD"),
)
_NAMED: Final = re.compile(
    r"(?:LATIN LETTER SMALL CAPITAL|NEGATIVE (?:CIRCLED|SQUARED) LATIN CAPITAL LETTER|REGIONAL INDICATOR SYMBOL LETTER) ([A-Z])"
)
_NAMED_BLOCKS: Final = (
    (0x250, 0x2B0),
    (0x1D00, 0x1D80),
    (0xA730, 0xA732),
    (0xA7AE, 0xA7B0),
    (0x1F150, 0x1F18A),
    (0x1F1E6, 0x1F200),
)


def _table() -> dict[int, str]:
    table: dict[int, str] = {}
    for first, end in _NAMED_BLOCKS:
        for point in range(first, end):
            if named := _NAMED.fullmatch(unicodedata.name(chr(point), "")):
                table[point] = named[1].lower()
    for odd, latin in _PAIRS:
        table.update(zip(map(ord, odd), latin, strict=True))
    for point in range(0x13A0, 0x13F0):
        if point in table:
            table[point + 0xAB70 - 0x13A0] = table[point]
    return table


_LATIN: Final = _table()
_CYRILLIC: Final = dict(zip(map(ord, "ABCEHIJKMOPSTXYaceijkmopstuxyh"), "АВСЕНІЈКМОРЅТХУасеіјкморѕтихуһ", strict=True))

_ODD: Final = "".join(map(re.escape, map(chr, sorted(_LATIN))))
# letters of scripts that have look-alikes; those of them that are left once look-alikes are Latin belong to real words
_OWN: Final = "\u0370-\u0373\u0376-\u037d\u0386-\u03ff\u0400-\u0482\u048a-\u052f\u0531-\u0586\u13a0-\u13fd\uab70-\uabbf\u2c80-\u2ce4\ua4d0-\ua4fd"
_ODD_LETTER: Final = re.compile(f"[{_ODD}]")
_REAL_LETTER: Final = re.compile(f"(?![{_ODD}])[{_OWN}]")
_MOST_RUNS: Final = 100_000  # of Latin letters beside real words of another script; those behind them stay as they are
_NEAR: Final = 5  # characters: four blanks and a letter
_LATIN_RUN: Final = re.compile("[A-Za-z0-9]++")
# what is to be read as Latin beside a run of Latin letters: the rest of the word, or words of look-alikes alone. Both are tried on the text turned round
# as well, and take what they take whole, so that the time is linear
_MIXED: Final = re.compile(f"(?=[{_ODD}])[A-Za-z0-9{_ODD}]++")
_BESIDE: Final = re.compile(f"(?:[ \\t]{{1,4}}+[{_ODD}]++)++(?![A-Za-z{_OWN}])")
_MIXED_CYRILLIC: Final = re.compile("(?=[\u0400-\u052f])[A-Za-z\u0400-\u052f]++")

# marks that strike letters out, circle them or pile up on them: what NFKC left by itself belongs to no letter of a language, or to few
_MARKS: Final = re.compile("[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")
_MARK_OCTETS: Final = tuple(
    re.compile(expression)
    for expression in (
        rb"\xcc",
        rb"\xcd[\x80-\xaf]",
        rb"\xd2[\x83-\x89]",
        rb"\xe1[\xaa\xab\xb7]",
        rb"\xe2\x83",
        rb"\xef\xb8[\xa0-\xaf]",
    )
)
# octets of UTF-8 that none of these letters and marks begins with
_OTHERS: Final = bytes(sorted({*range(256)} - {0xC4, *range(0xC6, 0xCB), *range(0xCC, 0xD7), 0xE1, 0xEA, 0xF0}))
_IN_SIGNS: Final = re.compile(rb"\xe2[\x83\xb2\xb3]")
_HALF_MARKS: Final = re.compile(rb"\xef\xb8[\xa0-\xaf]")


def may_have_lookalikes(data: bytes) -> bool:
    """Whether UTF-8 `data` holds any first octet of such a letter or mark. Costs next to nothing; ASCII need not be asked about."""
    return bool(data.translate(None, _OTHERS)) or _IN_SIGNS.search(data) is not None or _HALF_MARKS.search(data) is not None


def has_marks(data: bytes) -> bool:
    """Whether UTF-8 `data` may hold a mark."""
    return any(octets.search(data) for octets in _MARK_OCTETS)


def without_marks(text: str) -> str:
    """`text` in form NFKC without the marks that belong to no letter."""
    return _MARKS.sub("", text)


def undisguised(text: str) -> list[str]:
    """Readings of `text` (NFKC, any case, without marks) in which look-alikes are the letters that they look like; none if it has no need of one.
    Each has as many characters as `text`."""
    if not _ODD_LETTER.search(text) and not _MIXED_CYRILLIC.search(text):
        return []
    if not _REAL_LETTER.search(text):
        return [text.translate(_LATIN)]
    turned = text[::-1]
    latin: list[tuple[int, int]] = []
    cyrillic: list[tuple[int, int]] = []
    for run in islice(_LATIN_RUN.finditer(text), _MOST_RUNS):
        start, end = run.span()
        if not (_may_belong(text[end : end + _NEAR]) or _may_belong(turned[len(text) - start : len(text) - start + _NEAR])):
            continue
        for words, spans in (((_MIXED, _BESIDE), latin), ((_MIXED_CYRILLIC,), cyrillic)):
            if spans and start < spans[-1][1]:
                continue  # in a word that was seen to its end
            begin = len(text) - _reach(turned, len(text) - start, words)
            reached = _reach(text, end, words)
            if begin < start or reached > end:
                spans.append((max(begin, spans[-1][1] if spans else 0), reached))
    readings = [_put_back(text, latin, _LATIN), _put_back(text, cyrillic, _CYRILLIC)]
    return [reading for reading in dict.fromkeys(readings) if reading != text]


def _may_belong(beside: str) -> bool:
    """Whether what stands beside a run of Latin letters may be read in another way; spares most of them the expressions."""
    near = beside.lstrip(" \t")[:1]
    return ord(near) in _LATIN or (near == beside[:1] and "\u0400" <= near <= "\u052f") if near else False


def _reach(text: str, place: int, words: tuple[re.Pattern[str], ...]) -> int:
    """How far what is to be read in another way goes from `place`, in any number of steps."""
    for expression in words:
        if (found := expression.match(text, place)) is not None:
            place = found.end()
    return place


def _put_back(text: str, spans: list[tuple[int, int]], letters: dict[int, str]) -> str:
    pieces: list[str] = []
    position = 0
    for start, end in spans:
        pieces += (text[position:start], text[start:end].translate(letters))
        position = end
    return "".join([*pieces, text[position:]])
