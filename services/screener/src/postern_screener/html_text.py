"""What a reader sees of HTML: markup removed, entities decoded (HTML Living Standard section 13.2.5, as far as it hides text).

Every pattern consumes what it starts with, at the worst up to the end, so that the time is linear in the input whatever is in it.
Known gap: text hidden by style (display:none, tiny fonts) is seen like any other.
"""

from __future__ import annotations

import html
import re
from html.entities import html5
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

_ENTITY: Final = re.compile(r"&(?:#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)")  # what html.unescape looks at


def visible_text(source: str) -> str:
    """The text of an HTML source; a block element leaves a blank, any other markup nothing (`lot<b>tery</b>` is one word)."""
    if "<" in source:
        # three passes with a constant to put in cost a third of one pass that decides
        source = _THIRD.sub("", _SECOND.sub(" ", _FIRST.sub("", source)))
    return _decode_entities(source)


def source_index(source: str, visible_index: int) -> int:
    """Where in `source` the character stands that `visible_text` shows at `visible_index`."""
    seen, position, end = 0, 0, len(source)
    for match in _MARKUP.finditer(source):
        between = len(_decode_entities(source[position : match.start()]))
        if seen + between > visible_index:
            end = match.start()
            break
        seen += between + (match["block"] is not None)
        position = match.end()
    return position + _entity_index(source[position:end], visible_index - seen)


def source_end(source: str, visible_index: int) -> int:
    """Behind the character that stands at `visible_index` of what is seen: an entity is one."""
    begins = source_index(source, visible_index)
    entity = _ENTITY.match(source, begins)
    return min(begins + (max(_entity_length(entity.group()), 1) if entity else 1), len(source))


def _entity_index(source: str, visible_index: int) -> int:
    """Index into `source` of the character that stands at `visible_index` once entities are decoded."""
    seen = position = 0
    for found in _ENTITY.finditer(source):
        length = _entity_length(found.group())
        if not length:
            continue
        between = found.start() - position
        if seen + between > visible_index:
            break
        seen += between
        shown = len(html.unescape(found.group()[:length]))
        if seen + shown > visible_index:
            return found.start()
        seen, position = seen + shown, found.start() + length
    return min(position + max(visible_index - seen, 0), len(source))


def _entity_length(text: str) -> int:
    """How much of `text`, which begins like an entity, is one: the longest name counts, its semicolon may be missing. 0: it is none."""
    if text.startswith("&#"):
        return len(text)
    name = text[1:]
    return next((end + 1 for end in range(len(name), 1, -1) if name[:end] in html5), 0)


def _decode_entities(text: str) -> str:
    if "&" not in text:
        return text
    text = text.replace("&nbsp;", "\xa0")  # by far the most frequent one, and the slow path costs a call for each
    return html.unescape(text) if "&" in text else text
