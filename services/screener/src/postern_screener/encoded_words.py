"""Encoded words (RFC 2047) where the parser leaves them alone and mail clients do not.

The parser decodes what the RFC allows. Clients also decode a word that touches other text (`lot=?utf-8?q?tery?=`), has blanks inside, no
padding, or a charset that nobody knows, and two words with nothing between them, which the parser takes for one.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

from postern_screener.charsets import decode_base64, decode_text

_WORD: Final = re.compile(r"=\?([^?\s]{1,80})\?([bBqQ])\?([^?]*)\?=(?:\s+(?==\?))?")
_SEAM: Final = re.compile(r"\?==\?[^?\s]{1,80}\?[qQ]\?")  # left in the middle of what it took for one
_MAX_WORDS: Final = 2000  # a text


def decode_leniently(text: str) -> str:
    """`text` with every encoded word in it decoded; the same text when there is none."""
    if "=?" not in text:
        return text
    return _SEAM.sub("", _WORD.sub(_decoded, text, count=_MAX_WORDS))


def _decoded(match: re.Match[str]) -> str:
    charset, encoding, payload = match.groups()
    raw = payload.encode("utf-8", "replace")
    content = decode_base64(raw) if encoding in "bB" else binascii.a2b_qp(raw, header=True)
    return decode_text(content, charset.partition("*")[0])  # charset*language: RFC 2231 section 5
