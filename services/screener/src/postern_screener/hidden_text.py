"""Text of an HTML source that a reader does not see: `lot<span style="display:none">xyz</span>tery` shows one word (CSS Display, CSS 2.1, HTML section 6.1).

Looked for are elements that hide their content by their own style, by an attribute, or by a class, id or name that a `<style>` in the source hides. Whether
they really do depends on all other styles, so what is left without them is one more reading beside all text: nothing goes unsearched.
Known gaps: styles that are fetched, escapes in styles, selectors of more than one name, a colour like the background of another element,
sources of more than MAX_CHARACTERS or with more than _MOST_HINTS places to look at.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from postern_screener.words import Words

# where none of these stands nothing is hidden
_HIDING_WORDS: Final = Words(
    *(b"style", b"hidden", b"color"),
    *(b"<template", b"<iframe", b"<noembed", b"<noframes", b"<datalist", b"<dialog", b"<audio", b"<video", b"<canvas", b"<rp"),
)
_S: Final = r"(?:\s|/\*[^*]{0,200}\*/)*+"
_ZERO: Final = r"0*+(?:\.0*+)?(?:px|pt|em|rem|ex|%|vw|vh)?+(?![.\d])"
_FAR: Final = r"(?:calc\()?-(?:\d{3,9}|\d{2}(?:em|rem|vw|vh|in|cm))"
_TINY: Final = r"(?:[0-2](?:\.\d{1,9})?(?:px|pt)|0?\.\d{1,9}(?:px|pt|em|rem|%)|[0-9](?:\.\d{1,9})?%)"
_CLEAR: Final = rf"{_S}(?:[,/]){_S}(?:0|0?\.0\d*|0%){_S}\)"  # the last of a colour's numbers
_NEARLY_WHITE: Final = r"#f[a-f]?f[a-f]?f[a-f]?(?![0-9a-f])"
_HIDES: Final = re.compile(
    rf"(?<![\w-])(?:display{_S}:{_S}none"
    rf"|visibility{_S}:{_S}(?:hidden|collapse)|content-visibility{_S}:{_S}hidden"
    rf"|(?:font-size|opacity|max-height|max-width|height|width|line-height|zoom){_S}:{_S}(?=0|\.0){_ZERO}"
    rf"|opacity{_S}:{_S}(?:0?\.0\d|[0-9]%)"
    rf"|filter{_S}:{_S}(?:opacity\({_S}0|alpha\(opacity{_S}={_S}0\))"
    rf"|font-size{_S}:{_S}{_TINY}"
    rf"|font{_S}:[^;\"'}}]{{0,60}}?(?<![\w.-])(?:{_TINY}|0(?:px|pt|em|rem|%)?)(?=[\s/])"
    rf"|(?:text-indent|left|top|right|bottom|inset|margin-left|margin-top){_S}:{_S}{_FAR}"
    rf"|transform{_S}:[^;\"'}}]{{0,60}}?(?:scale[xy]?\({_S}0(?:\.0*)?{_S}[,)]|translate[xy]?\([^)]{{0,40}}?{_FAR})"
    rf"|clip{_S}:{_S}rect\({_S}0|clip-path{_S}:{_S}(?:inset\({_S}(?:50|100)%|circle\({_S}0)"
    rf"|mso-hide{_S}:{_S}all"
    rf"|color{_S}:{_S}(?:transparent|(?:white|snow|ivory|ghostwhite|whitesmoke|floralwhite|azure|mintcream)\b|{_NEARLY_WHITE}"
    rf"|#[0-9a-f]{{3}}0(?![0-9a-f])|#[0-9a-f]{{6}}0[0-9a-f](?![0-9a-f])|#fff[0-9a-f](?![0-9a-f])|#ffffff[0-9a-f]{{2}}(?![0-9a-f])"
    rf"|rgba?\({_S}(?:25\d|100%){_S},?{_S}(?:25\d|100%){_S},?{_S}(?:25\d|100%)|(?:rgb|hsl)a?\([^)]{{1,40}}?{_CLEAR}"
    rf"|hsla?\([^)]{{1,30}}?[, ]{_S}(?:9[5-9]|100)%{_S}[,/)]))",
    re.IGNORECASE,
)
_COLOURS: Final = re.compile(
    rf"(?<![\w-])(?:(color)|background(?:-color)?|bgcolor){_S}[:=]{_S}[\"']?(\#?\w{{1,20}}|rgba?\([^)]{{1,40}}\))", re.IGNORECASE
)
_TAG: Final = re.compile(r"""<([a-zA-Z][^\s/>]*)((?:[^>="']++|=\s*+(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z))?+|["'])*+)(?:>|\Z)""")
_UNSHOWN_ELEMENTS: Final = (
    "template|iframe|noembed|noframes|datalist|dialog|audio|video|canvas|rp"  # what is in them no mail client shows
)
# a style that is written with escapes or entities is decoded before anybody looks at it
_HINT: Final = re.compile(
    rf"{_HIDES.pattern}|(?<![\w-])hidden(?![\w-])|(?<![\w-])color{_S}[:=]"
    rf"|(?<![\w-])style{_S}={_S}(?=\"[^\"&\\]*+[&\\]|'[^'&\\]*+[&\\]|[^\s>\"'&\\]*+[&\\])|(?<=<)(?:{_UNSHOWN_ELEMENTS})(?![\w-])",
    re.IGNORECASE,
)
_UNSHOWN: Final = re.compile(rf"(?:{_UNSHOWN_ELEMENTS})\Z", re.IGNORECASE)
_ESCAPE: Final = re.compile(r"\\(?:([0-9a-fA-F]{1,6})\s?|([^\n0-9a-fA-F]))")
_CSS_COMMENT: Final = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_PSEUDO: Final = re.compile(r":{1,2}[\w-]+(?:\([^)]{0,80}\))?$")
_QUOTED: Final = re.compile(r"""=\s*+(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z))""")
_HIDDEN_ATTRIBUTE: Final = re.compile(r"(?:^|[\s\"'/])hidden(?![\w-])", re.IGNORECASE)
_WHITE: Final = re.compile(
    r"(?<![\w-])color\s*+=\s*+[\"']?(?:(?:white|snow|ivory|ghostwhite|whitesmoke)\b|\#?f[a-f]?f[a-f]?f[a-f]?\b)", re.IGNORECASE
)
_STYLE_SHEET: Final = re.compile(r"<style\b[^>]*+(?:>|\Z)(.*?)(?:</style|\Z)", re.IGNORECASE | re.DOTALL)
_SELECTOR: Final = re.compile(r"(?:^|[\s>+~])([\w-]*)(?:\[[^\]]{0,80}\])?(?:[.#]([\w-]+))*$")
_NAMED: Final = re.compile(r"""(?<![\w-])(?:class|id)\s*+=\s*+("[^"]*"|'[^']*'|[^\s>"']++)""", re.IGNORECASE)
_NO_CONTENT: Final = frozenset(
    (
        "area",
        "base",
        "br",
        "col",
        "embed",
        "hr",
        "img",
        "input",
        "link",
        "meta",
        "param",
        "source",
        "track",
        "wbr",
        "style",
        "script",
    )
)
# a start tag of one of these ends a paragraph that was not closed (HTML section 13.2.6.4.7)
_ENDS_PARAGRAPH: Final = (
    "address|article|blockquote|center|div|dl|fieldset|footer|form|h[1-6]|header|hr|li|main|nav|ol|p|pre|section|table|td|tr|ul"
)
MAX_CHARACTERS: Final = 2_000_000  # real ones have a tenth
_MOST_HINTS: Final = 20_000  # in a source; a newsletter has a few hundred
_MOST_BRACKETS: Final = 8  # in the attributes of a tag
_MOST_READ: Final = 8  # times the source: hidden elements in hidden elements, to find where each ends
_MOST_ELEMENTS: Final = 50  # kinds of them that a style sheet hides by their name


@dataclass(frozen=True, slots=True)
class Cut:
    """A source without some of its elements."""

    rest: str
    starts: tuple[int, ...]  # of what was taken out, as indexes into `rest`
    shifts: tuple[int, ...]  # how much was taken out up to and with that

    def index_before(self, index: int) -> int:
        """The index into the whole source of the character at `index` of `rest`."""
        taken = bisect_right(self.starts, index)
        return index + (self.shifts[taken - 1] if taken else 0)


def cuts(source: str, data: bytes) -> list[Cut]:
    """`source` without its hidden elements. Two readings where they nest: without the outermost, and without the innermost, since the outer one may
    be there to hide from us what it shows. None where nothing is hidden. `data`: the source in UTF-8, in any case."""
    if not _HIDING_WORDS.occur_in(data) or len(source) > MAX_CHARACTERS:
        return []
    spans = sorted(_hidden(source))
    if not spans:
        return []
    outer: list[tuple[int, int]] = []
    for span in spans:
        if not outer or span[0] >= outer[-1][1]:
            outer.append(span)
    inner = [span for k, span in enumerate(spans) if k + 1 == len(spans) or spans[k + 1][0] >= span[1]]
    return [without(source, outer)] if inner == outer else [without(source, outer), without(source, inner)]


def without(source: str, spans: Iterable[tuple[int, int]]) -> Cut:
    """`source` without these spans, which are in order of where they begin."""
    pieces, starts, shifts, position, kept, taken = [], [], [], 0, 0, 0
    for start, end in spans:
        if end <= position:
            continue
        begin = max(start, position)
        pieces.append(source[position:begin])
        kept += begin - position
        taken += end - begin
        starts.append(kept)
        shifts.append(taken)
        position = end
    return Cut("".join([*pieces, source[position:]]), tuple(starts), tuple(shifts))


def _hidden(source: str) -> Iterator[tuple[int, int]]:
    """Where hidden elements begin and end, their tags with them."""
    budget = _MOST_READ * len(source)
    ends: dict[str, re.Pattern[str]] = {}
    tags = {
        tag.start(): tag
        for tag in _tags_at(source, (hint.start() for hint in islice(_HINT.finditer(source), _MOST_HINTS)))
        if _UNSHOWN.match(tag[1]) or _is_hidden(_plain(tag[2]))
    }
    tags.update((tag.start(), tag) for tag in _hidden_by_sheets(source))
    for start, tag in sorted(tags.items()):
        name = tag[1].lower()
        if name in _NO_CONTENT:
            continue
        end, read = _end(source, tag.end(), name, ends, budget)
        budget -= read
        if end:
            yield start, end
        if budget <= 0:
            return


def _tags_at(source: str, places: Iterable[int]) -> Iterator[re.Match[str]]:
    """The tags in which these places lie, each once. Places are in order; what was looked at before is not looked at again."""
    done = 0
    for place in places:
        if place < done:
            continue
        start = place
        for _ in range(_MOST_BRACKETS):
            start = source.rfind("<", done, start)
            if start < 0:
                break
            tag = _TAG.match(source, start)
            if tag is not None and tag.end() > place:
                yield tag
                done = tag.end()
                break
        done = max(done, place)


def _is_hidden(attributes: str) -> bool:
    if _HIDES.search(attributes) or _WHITE.search(attributes) or _hides_by_colour(attributes):
        return True
    return "hidden" in attributes.lower() and _HIDDEN_ATTRIBUTE.search(_QUOTED.sub("", attributes)) is not None


def _plain(written: str) -> str:
    """Attributes or a style with its entities and escapes (CSS Syntax section 4.3.7) decoded: `d\\69splay&#58;none`."""
    if "&" in written:
        written = html.unescape(written)
    return _ESCAPE.sub(_unescaped, written) if "\\" in written else written


def _unescaped(found: re.Match[str]) -> str:
    point = int(found[1], 16) if found[1] else 0
    return (chr(point) if 0 < point < 0x110000 else "\ufffd") if found[1] else found[2]


def _hides_by_colour(style: str) -> bool:
    colours: dict[bool, str] = {bool(kind): colour.lower() for kind, colour in _COLOURS.findall(style)}
    return len(colours) == 2 and colours[True] == colours[False]


def _hidden_by_sheets(source: str) -> Iterator[re.Match[str]]:
    names: set[str] = set()
    elements: dict[str, None] = {}
    for sheet in _STYLE_SHEET.finditer(source):
        for rule in _CSS_COMMENT.sub(" ", sheet[1]).split("}"):
            before, _, style = rule.rpartition("{")
            style = _plain(style)
            if not (_HIDES.search(style) or _hides_by_colour(style)):
                continue
            for selector in before.rpartition("{")[2].rpartition(";")[2].split(","):
                found = _SELECTOR.search(_PSEUDO.sub("", _plain(selector.strip())))
                if found and found[2]:
                    names.add(found[2].lower())  # in any case of letters, where there is no doctype
                elif found and found[1]:
                    elements[re.escape(found[1])] = None
    if names:
        using = (
            found.start()
            for found in islice(_NAMED.finditer(source), _MOST_HINTS)
            if not names.isdisjoint(_plain(found[1].strip("\"'")).lower().split())
        )
        yield from _tags_at(source, using)
    if elements:
        listed = "|".join(list(elements)[:_MOST_ELEMENTS])
        yield from _tags_at(source, (found.end() - 1 for found in re.finditer(rf"<(?:{listed})(?![\w-])", source, re.IGNORECASE)))


def _end(source: str, position: int, name: str, ends: dict[str, re.Pattern[str]], budget: int) -> tuple[int, int]:
    """Where the element that begins before `position` ends, 0 if it does not, and how much was read to know that."""
    if name not in ends:
        others = rf"|(?:{_ENDS_PARAGRAPH})(?![^\s/>])" if name == "p" else ""
        ends[name] = re.compile(rf"<(?:(/)?{re.escape(name)}(?![^\s/>]){others})[^>]*+>?", re.IGNORECASE)
    depth = 1
    for found in ends[name].finditer(source, position, min(len(source), position + budget)):
        if name == "p":
            end = found.end() if found[1] else found.start()
            return end, end - position
        depth += -1 if found[1] else 1
        if depth == 0:
            return found.end(), found.end() - position
    return 0, len(source) - position
