"""Header fields and text parts of what Postern itself writes, as they go on the wire. Pure.

What came from outside is cleaned here: nothing that could end a line, turn the direction of writing or hide gets into a field. Text is ASCII, or UTF-8
where the mail may hold it (RFC 6533), or in encoded words (RFC 2047); a part that holds UTF-8 is quoted-printable where the mail must stay in 7-bit.
"""

from __future__ import annotations

import binascii
import re
import textwrap
from email.header import Header

_ENCODED_WORD_LINE = 76  # RFC 2047 section 2


def field(name: str, value: str, *, utf8: bool = False) -> list[str]:
    """The lines of a header field, folded at blanks (RFC 5322 section 2.2.3)."""
    whole = f"{name}: {line(value) if utf8 else ascii_line(value)}"
    if len(whole) <= 78:
        return [whole]
    lines = textwrap.wrap(whole, 76, subsequent_indent=" ", break_long_words=False, break_on_hyphens=False)
    # a fold right behind the name would leave a line of nothing but the name
    if len(lines) > 1 and lines[0] == f"{name}:":
        lines[0:2] = [lines[0] + lines[1]]
    return lines


def unstructured_field(name: str, value: str) -> bytes:
    """A header field of free text with its CRLF, in 7-bit: encoded words where it needs them, folded (RFC 2047, RFC 5322 section 2.2.3)."""
    if value.isascii() and "=?" not in value:
        return "".join(f"{each}\r\n" for each in field(name, value)).encode("ascii")
    return f"{name}: {encoded_words(value, first_line=len(name) + 2)}\r\n".encode("ascii")


def encoded_words(text: str, *, first_line: int = 0) -> str:
    """`text` as encoded words (RFC 2047), folded; `first_line` is how much of the first line is taken."""
    header = Header(line(text), "utf-8", maxlinelen=_ENCODED_WORD_LINE, header_name="x" * max(first_line - 2, 0))
    return header.encode(splitchars="", linesep="\r\n")


def line(text: str) -> str:
    """`text` without characters that could end the line or fool a reader."""
    return "".join(c if c.isprintable() else "?" for c in text)


def ascii_line(text: str) -> str:
    """`text` in printable ASCII; what is not becomes a question mark."""
    return "".join(c if " " <= c <= "~" else "?" for c in text)


def part(plain_type: str, utf8_type: str, content: bytes, *, seven_bit: bool) -> bytes:
    """A MIME part: of `plain_type` when all of it is ASCII, else of `utf8_type`, in 8-bit unless `seven_bit`."""
    if content.isascii():
        return f"Content-Type: {plain_type}\r\n\r\n".encode("ascii") + content
    encoding, content = ("quoted-printable", quoted_printable(content)) if seven_bit else ("8bit", content)
    return f"Content-Type: {utf8_type}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode("ascii") + content


def quoted_printable(content: bytes) -> bytes:
    """`content` (CRLF line ends) in RFC 2045 section 6.7."""
    encoded = b"\r\n".join(binascii.b2a_qp(each, istext=False) for each in content.split(b"\r\n"))
    return re.sub(rb"(?<!\r)\n", b"\r\n", encoded)
