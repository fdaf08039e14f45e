"""The third part of a notice: the message that it is about, or its header. Pure.

RET says FULL, HDRS or nothing, and speaks of failures only (RFC 3461 section 4.3). A message that asked for REQUIRETLS is never returned whole
(RFC 8689 section 5), nor is a large one. In 7-bit, 8-bit text is returned whole as message/global only, which may be encoded (RFC 6533 section 6)
where message/rfc822 may not (RFC 2046 section 5.2.1).
"""

from __future__ import annotations

from typing import Final

from postern_core.envelope import Envelope
from postern_core.mail_text import part, quoted_printable

_MAX_HEADER_BYTES: Final = 64 * 1024  # of the original that are returned


def original_part(
    envelope: Envelope, original: bytes, *, failed: bool, utf8: bool, seven_bit: bool, full_limit_bytes: int
) -> bytes:
    """`utf8`: the types of RFC 6533 may be used; `seven_bit`: the notice must not hold 8-bit text."""
    header = header_of(original)
    utf8 = utf8 and _is_utf8(header)
    wanted = failed and envelope.ret.upper() != "HDRS" and not envelope.requiretls
    if wanted and len(original) <= full_limit_bytes and _has_good_lines(original) and (utf8 or original.isascii()):
        return part("message/rfc822", "message/global", original, seven_bit=seven_bit)
    if _has_good_lines(header) and (utf8 or header.isascii()):
        return part("text/rfc822-headers", "message/global-headers", header, seven_bit=seven_bit)
    kind = b"Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    return kind + quoted_printable(header)


def header_of(original: bytes) -> bytes:
    """The header with the CRLF of its last field, cut at a line end when it is very long."""
    end = original.find(b"\r\n\r\n", 0, _MAX_HEADER_BYTES)
    if end >= 0:
        return original[: end + 2]
    cut = original[:_MAX_HEADER_BYTES]
    return cut if len(cut) == len(original) else cut[: cut.rfind(b"\r\n") + 2]


def _has_good_lines(content: bytes) -> bool:
    """Whether it can stand in a part as it is, in 7-bit if it is ASCII and in 8-bit if not (RFC 2045 sections 2.7 and 2.8)."""
    lines = content.split(b"\r\n")
    return b"\0" not in content and all(len(line) <= 998 and b"\r" not in line and b"\n" not in line for line in lines)


def _is_utf8(header: bytes) -> bool:
    try:
        header.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
