"""A header read once more from its octets, where the parser, which decodes each encoded word and each octet by itself, may have lost what clients show.

Mailers cut encoded words in the middle of a character or between shifts, and put text in charsets of all kinds into a header as it is (against RFC 2047 and
RFC 5322). Clients join words of one charset before they decode them, and guess the charset of what has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from postern_screener.charsets import guessed_codecs, text_readings
from postern_screener.encoded_words import decode_leniently

_MOST_GUESSED: Final = 32 * 1024  # octets of a header; its beginning is guessed at where it is longer
_FOLD: Final = re.compile(rb"\r?\n(?=[ \t])")
_IN_A_ROW: Final = re.compile(rb"\?=(?:[ \t\r\n]*=\?)")
_FIELD: Final = re.compile(r"([!-9;-~]+)[ \t]*:[ \t]*(.*)")


def header_of(message: bytes) -> bytes:
    """Its header as it is written; nothing where no blank line ends it."""
    end = message.find(b"\r\n\r\n")
    if end < 0:
        end = message.find(b"\n\n")
    return message[:end] if end > 0 else b""


def may_read_otherwise(header: bytes) -> bool:
    """Whether `read_otherwise` may find anything."""
    return not header.isascii() or b"\x1b" in header or (b"?=" in header and _IN_A_ROW.search(header) is not None)


def read_otherwise(header: bytes, *, is_guessed: bool) -> Iterator[tuple[str, str]]:
    """Names in lower case and values of the fields that some client decodes in another way than the parser; some of them twice."""
    lines = [line for line in _FOLD.sub(b"", header).splitlines() if not line.isascii() or b"\x1b" in line or b"=?" in line]
    content = b"\n".join(lines)
    texts = [text for text, _ in text_readings(content, "utf-8")]
    if is_guessed and not content.isascii():
        begun = content[:_MOST_GUESSED]
        texts += [begun.decode(codec, "replace") for codec in guessed_codecs(begun)]
    for text in texts:
        for line in text.split("\n"):
            if (field := _FIELD.match(line)) is not None:
                yield field[1].lower(), decode_leniently(field[2])
