"""Content that is text, and which kind of text."""

from __future__ import annotations

import re
from typing import Final

_NOT_IN_TEXT: Final = bytes(byte for byte in range(32) if byte not in b"\t\n\v\f\r\x1a\x1b")
_MARKS: Final = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
_HTML: Final = re.compile(
    r"<(?:!doctype\s+html|html|head|body|script|iframe|meta|title|style|table|form|img|svg:|hta:|a\s|div|p>)", re.IGNORECASE
)
_BEGINNINGS: Final = (
    ("#!", "shell-script"),
    ("windows registry editor", "registry"),
    ("regedit4", "registry"),
    ("[internetshortcut", "internet-shortcut"),
    ("begin:vcalendar", "calendar"),
    ("begin:vcard", "vcard"),
    ("-----begin pgp", "pgp"),
)
_HEADER_LINES: Final = re.compile(
    r"(?:(?:received|from|to|subject|date|message-id|mime-version|return-path|delivered-to|content-type|dkim-signature|x-[a-z-]+)"
    r":[^\n]*\n(?:[ \t][^\n]*\n)*+){3}",
    re.IGNORECASE,
)


def text_type(head: bytes) -> str:
    """What kind of text begins like this; "" when it is none."""
    text = _decoded(head)
    if text is None:
        return ""
    begun = text.lstrip()
    lowered = begun[:40].lower()
    for beginning, kind in _BEGINNINGS:
        if lowered.startswith(beginning):
            return kind
    if begun.startswith("<"):
        markup = re.sub(r"<!--.*?(?:-->|\Z)|<\?.*?(?:\?>|\Z)", "", begun, flags=re.DOTALL).lstrip()
        if re.match(r"(?:<!doctype\s+svg|<svg)\b", markup, re.IGNORECASE):
            return "svg"
        if _HTML.match(markup):
            return "html"
        return "xml" if lowered.startswith("<?xml") or re.match(r"<[a-z_][\w.:-]*[\s/>]", markup, re.IGNORECASE) else "text"
    return "mail" if _HEADER_LINES.match(begun) else "text"


def _decoded(head: bytes) -> str | None:
    for mark, codec in _MARKS:
        if head.startswith(mark):
            return head[len(mark) :].decode(codec, "replace")
    if len(head) != len(head.translate(None, _NOT_IN_TEXT)):
        return None
    return head.decode("latin-1")
