"""What a reader sees of HTML: markup removed, entities decoded (HTML Living Standard section 13.2.5, as far as it hides text).

Every pattern consumes what it starts with, at the worst up to the end, so that the time is linear in the input whatever is in it.
Known gap: text hidden by style (display:none, tiny fonts) is seen like any other.
"""

from __future__ import annotations

import html
import re
from typing import Final

_BLOCKS: Final = (
    "address article aside blockquote br center dd div dl dt fieldset figure footer form h1 h2 h3 h4 h5 h6 header hr li main nav ol option p"
    " pre section select table tbody td textarea tfoot th thead title tr ul"
)


def _caseless(names: str) -> str:
    """The names as one alternation, grouped by a first letter in both cases: without the IGNORECASE flag the engine looks at the
    first letter before it tries a branch, which makes the whole pass eight times as fast."""
    by_letter: dict[str, list[str]] = {}
    for name in names.split():
        by_letter.setdefault(name[0], []).append(name[1:])
    return "|".join(f"[{letter}{letter.upper()}](?i:{'|'.join(rest)})" for letter, rest in by_letter.items())


_ATTRIBUTES: Final = r"""(?:[^>=]++|=\s*+(?:"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z))?+)*+(?:>|\Z)"""
_UNSEEN: Final = (
    r"<!--(?:-?>|.*?(?:--!?>|\Z))"  # a comment
    rf"|<(?P<raw>[sS](?i:cript|tyle))\b[^>]*+>?.*?(?:</(?i:(?P=raw))(?![a-zA-Z0-9-]){_ATTRIBUTES}|\Z)"
)
_BLOCK: Final = rf"</?(?:{_caseless(_BLOCKS)})(?![a-zA-Z0-9-])" + _ATTRIBUTES
_TAG: Final = r"<[a-zA-Z/!?]" + _ATTRIBUTES
_MARKUP: Final = re.compile(f"(?:{_UNSEEN})|(?P<block>{_BLOCK})|(?:{_TAG})", re.DOTALL)
_FIRST: Final = re.compile(f"(?:{_UNSEEN})", re.DOTALL)
_SECOND: Final = re.compile(_BLOCK, re.DOTALL)
_THIRD: Final = re.compile(_TAG, re.DOTALL)


def visible_text(source: str) -> str:
    """The text of an HTML source; a block element leaves a blank, any other markup nothing (`lot<b>tery</b>` is one word)."""
    if "<" in source:
        # three passes with a constant to put in cost a third of one pass that decides
        source = _THIRD.sub("", _SECOND.sub(" ", _FIRST.sub("", source)))
    return _decode_entities(source)


def source_index(source: str, visible_index: int) -> int:
    """Where in `source` the character stands that `visible_text` shows at `visible_index` (within the text between two tags
    it is exact unless entities come before it)."""
    seen, position, end = 0, 0, len(source)
    for match in _MARKUP.finditer(source):
        between = len(_decode_entities(source[position : match.start()]))
        if seen + between > visible_index:
            end = match.start()
            break
        seen += between + (match["block"] is not None)
        position = match.end()
    return position + _entity_index(source[position:end], visible_index - seen)


def _entity_index(source: str, visible_index: int) -> int:
    """Index into `source` of the character that stands at `visible_index` once entities are decoded."""
    if visible_index <= 0:
        return 0
    if "&" not in source:
        return min(visible_index, len(source))
    low, high = 0, len(source)
    while low < high:
        middle = (low + high) // 2
        if len(_decode_entities(source[:middle])) < visible_index:
            low = middle + 1
        else:
            high = middle
    return low


def _decode_entities(text: str) -> str:
    if "&" not in text:
        return text
    text = text.replace("&nbsp;", "\xa0")  # by far the most frequent one, and the slow path costs a call for each
    return html.unescape(text) if "&" in text else text
