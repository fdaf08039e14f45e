"""A message with 8-bit content for a peer that takes 7-bit data only: each part that needs it is encoded (RFC 6152 section 3).

What is ASCII already stays byte for byte: headers, boundaries, other parts. Signatures over what was encoded break, which is the
price of not returning the mail. Not every message can be encoded: not 8-bit data in a header field (that takes SMTPUTF8), not a part
that is signed or encrypted as a whole, not a part that claims an encoding and does not keep to it. Those are returned to the sender.

Pure. Standards: RFC 2045 section 6 (encodings), RFC 2046 section 5 (multipart, message), RFC 1428 (unknown-8bit).
"""

from __future__ import annotations

import base64
import binascii
import re
from email.message import Message
from email.parser import BytesHeaderParser
from typing import Final

_MAX_DEPTH: Final = 50
_ENCODING: Final = re.compile(rb"^content-transfer-encoding[ \t]*:.*\r\n(?:[ \t].*\r\n)*", re.IGNORECASE | re.MULTILINE)
_parser: Final = BytesHeaderParser()


class _CannotError(Exception):
    """This message has no 7-bit form."""


def to_seven_bit(message: bytes) -> bytes | None:
    """`message` (CRLF line ends) in ASCII; None when that cannot be done without spoiling it."""
    try:
        return _entity(message, "text/plain", depth=0)
    except _CannotError:
        return None


def _entity(entity: bytes, default_type: str, *, depth: int) -> bytes:
    if entity.isascii():
        return entity
    header, body = _split(entity)
    if not header.isascii() or depth > _MAX_DEPTH:
        raise _CannotError
    fields = _parser.parsebytes(header)
    content_type = fields.get_content_type() if "content-type" in fields else default_type
    if str(fields.get("content-transfer-encoding", "8bit")).strip().lower() not in ("7bit", "8bit", "binary"):
        raise _CannotError
    if content_type in ("multipart/signed", "multipart/encrypted", "message/partial", "message/external-body"):
        raise _CannotError
    if content_type.startswith("multipart/"):
        encoding, body = "7bit", _multipart(body, fields, depth=depth)
    elif content_type == "message/rfc822":
        encoding, body = "7bit", _entity(body, "text/plain", depth=depth + 1)
    elif content_type.startswith("text/"):
        encoding, body = "quoted-printable", binascii.b2a_qp(body, istext=True)
    else:
        encoding, body = "base64", base64.encodebytes(body).replace(b"\n", b"\r\n")
    added = "MIME-Version: 1.0\r\n" if depth == 0 and "mime-version" not in fields else ""
    if "content-type" not in fields and content_type == "text/plain":
        added += "Content-Type: text/plain; charset=unknown-8bit\r\n"
    added += f"Content-Transfer-Encoding: {encoding}\r\n"
    return _ENCODING.sub(b"", header) + added.encode("ascii") + b"\r\n" + body


def _multipart(body: bytes, fields: Message, *, depth: int) -> bytes:
    boundary = fields.get_boundary("")
    if not boundary or not boundary.isascii():
        raise _CannotError
    delimiter = re.compile(rb"(?:\A|\r\n)--" + re.escape(boundary.encode("ascii")) + rb"(?P<last>--)?[ \t]*(?=\r\n|\Z)")
    default_type = "message/rfc822" if fields.get_content_subtype() == "digest" else "text/plain"
    done: list[bytes] = []
    start, in_part = 0, False
    for found in delimiter.finditer(body):
        done += [_piece(body[start : found.start()], default_type, in_part=in_part, depth=depth), found.group()]
        start, in_part = found.end(), not found["last"]
        if found["last"]:
            break
    done.append(_piece(body[start:], default_type, in_part=in_part, depth=depth))
    return b"".join(done)


def _piece(piece: bytes, default_type: str, *, in_part: bool, depth: int) -> bytes:
    """A part, behind the line end of its delimiter; or what stands in front of the first and behind the last one."""
    if piece.isascii():
        return piece
    if not in_part:
        raise _CannotError
    return b"\r\n" + _entity(piece[2:], default_type, depth=depth + 1)


def _split(entity: bytes) -> tuple[bytes, bytes]:
    """Header, with the CRLF of its last field, and body."""
    if entity.startswith(b"\r\n"):
        return b"", entity[2:]
    header, found, body = entity.partition(b"\r\n\r\n")
    return (header + b"\r\n", body) if found else (entity, b"")
