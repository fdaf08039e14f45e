"""Encoded words (RFC 2047) where the parser leaves them alone and mail clients do not.

The parser decodes what the RFC allows. Clients also decode a word that touches other text (`lot=?utf-8?q?tery?=`), has blanks inside, no
padding, or a charset that nobody knows, and two words with nothing between them, which the parser takes for one.
"""

from __future__ import annotations

import binascii
import re
from typing import Final

from postern_screener.charsets import decode_base64, decode_text

_WORD: Final = re.compile(r"=\?([^?\s]{0,80})\?([bBqQ])\?([^?]*)\?=(?:\s+(?==\?))?")
_SEAM: Final = re.compile(r"\?==\?[^?\s]{1,80}\?[qQ]\?")  # left in the middle of what it took for one
_MAX_WORDS: Final = 2000  # a text


def decode_leniently(text: str) -> str:
    """`text` with every encoded word in it decoded; the same text when there is none. Words that follow each other in one charset are one: many mailers cut
    them in the middle of a character, and clients put them together again."""
    if "=?" not in text:
        return text
    pieces: list[str] = []
    position = behind = 0  # of what is in `pieces`; of the last word
    charset, content = "", bytearray()
    for count, word in enumerate(_WORD.finditer(text)):
        if count >= _MAX_WORDS:
            break
        named = word[1].partition("*")[0]  # charset*language: RFC 2231 section 5
        if content and (word.start() > behind or named.lower() != charset.lower()):
            pieces.append(decode_text(bytes(content), charset))
            content.clear()
        pieces.append(text[position : word.start()])
        content += _octets(word)
        charset = named
        position = behind = word.end()
    if content:
        pieces.append(decode_text(bytes(content), charset))
    return _SEAM.sub("", "".join([*pieces, text[position:]]))


def _octets(word: re.Match[str]) -> bytes:
    raw = word[3].encode("utf-8", "replace")
    return decode_base64(raw) if word[2] in "bB" else binascii.a2b_qp(raw, header=True)
