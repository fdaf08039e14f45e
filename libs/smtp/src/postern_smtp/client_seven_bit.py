"""A message for a peer that cannot take it as it is: each part that needs it is encoded (RFC 6152 section 3, RFC 3030 section 3).

Two cases: 8-bit content for a peer that takes 7-bit data only (`to_seven_bit`), and a binary message for one that takes text only
(`to_text`). What the peer can take already stays byte for byte: headers, boundaries, other parts. Signatures over what was encoded break,
which is the price of not returning the mail. Not every message can be encoded: not 8-bit data in a header field (that takes SMTPUTF8), not
a part that is signed or encrypted as a whole, not a part that claims an encoding and does not keep to it. Those are returned to the sender.

Text becomes quoted-printable, all else base64; so does text whose lines are no lines (NUL, bare CR or LF), since only that keeps its octets.

Pure. Standards: RFC 2045 section 6 (encodings), RFC 2046 section 5 (multipart, message), RFC 1428 (unknown-8bit).
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser
from typing import Final

from postern_smtp.client_data import has_only_crlf
from postern_smtp.data import has_long_line

_MAX_DEPTH: Final = 50
_MAX_LINE_OCTETS: Final = 1000  # CRLF included (RFC 5321 section 4.5.3.1.6)
_ENCODING: Final = re.compile(rb"^content-transfer-encoding[ \t]*:.*\r\n(?:[ \t].*\r\n)*", re.IGNORECASE | re.MULTILINE)
_BINARY: Final = re.compile(rb"^content-transfer-encoding[ \t]*:\s*binary", re.IGNORECASE | re.MULTILINE)
_parser: Final = BytesHeaderParser()


class _CannotError(Exception):
    """This message has no such form."""


@dataclass(frozen=True, slots=True)
class _Peer:
    """What it takes."""

    eight_bit: bool
    only_lines: bool  # of what we have to say; else everything is in lines already

    def takes(self, octets: bytes) -> bool:
        return (self.eight_bit or octets.isascii()) and not (self.only_lines and _is_binary(octets))

    def fits(self, entity: bytes) -> bool:
        """Whether it can go as it is. Content that calls itself binary cannot, whatever it is (RFC 2045 section 6.2)."""
        return self.takes(entity) and not (self.only_lines and _BINARY.search(entity))


def to_seven_bit(message: bytes) -> bytes | None:
    """`message` (CRLF line ends) in ASCII; None when that cannot be done without spoiling it."""
    return _for(_Peer(eight_bit=False, only_lines=False), message)


def to_text(message: bytes, *, eight_bit: bool) -> bytes | None:
    """`message`, which is binary, in lines of usual length; in ASCII, too, unless `eight_bit`. None when that cannot be done without spoiling it."""
    return _for(_Peer(eight_bit=eight_bit, only_lines=True), message)


def _for(peer: _Peer, message: bytes) -> bytes | None:
    try:
        return _entity(message, "text/plain", peer, depth=0)
    except _CannotError:
        return None


def _is_binary(octets: bytes) -> bool:
    return b"\0" in octets or not has_only_crlf(octets) or has_long_line(octets, _MAX_LINE_OCTETS)


def _entity(entity: bytes, default_type: str, peer: _Peer, *, depth: int) -> bytes:
    if peer.fits(entity):
        return entity
    header, body = _split(entity)
    if not peer.takes(header) or depth > _MAX_DEPTH:
        raise _CannotError
    fields = _parser.parsebytes(header)
    content_type = fields.get_content_type() if "content-type" in fields else default_type
    if str(fields.get("content-transfer-encoding", "8bit")).strip().lower() not in ("7bit", "8bit", "binary"):
        raise _CannotError
    if content_type in ("multipart/signed", "multipart/encrypted", "message/partial", "message/external-body"):
        raise _CannotError
    if content_type.startswith("multipart/"):
        body = _multipart(body, fields, peer, depth=depth)
        encoding = "7bit" if body.isascii() else "8bit"
    elif content_type == "message/rfc822":
        body = _entity(body, "text/plain", peer, depth=depth + 1)
        encoding = "7bit" if body.isascii() else "8bit"
    elif content_type.startswith("text/") and b"\0" not in body and has_only_crlf(body):
        encoding, body = "quoted-printable", binascii.b2a_qp(body, istext=True)
    else:
        encoding, body = "base64", base64.encodebytes(body).replace(b"\n", b"\r\n")
    added = "MIME-Version: 1.0\r\n" if depth == 0 and "mime-version" not in fields else ""
    if "content-type" not in fields and content_type == "text/plain":
        added += "Content-Type: text/plain; charset=unknown-8bit\r\n"
    added += f"Content-Transfer-Encoding: {encoding}\r\n"
    return _ENCODING.sub(b"", header) + added.encode("ascii") + b"\r\n" + body


def _multipart(body: bytes, fields: Message, peer: _Peer, *, depth: int) -> bytes:
    boundary = fields.get_boundary("")
    if not boundary or not boundary.isascii():
        raise _CannotError
    delimiter = re.compile(rb"(?:\A|\r\n)--" + re.escape(boundary.encode("ascii")) + rb"(?P<last>--)?[ \t]*(?=\r\n|\Z)")
    default_type = "message/rfc822" if fields.get_content_subtype() == "digest" else "text/plain"
    done: list[bytes] = []
    start, in_part = 0, False
    for found in delimiter.finditer(body):
        done += [_piece(body[start : found.start()], default_type, peer, in_part=in_part, depth=depth), found.group()]
        start, in_part = found.end(), not found["last"]
        if found["last"]:
            break
    done.append(_piece(body[start:], default_type, peer, in_part=in_part, depth=depth))
    return b"".join(done)


def _piece(piece: bytes, default_type: str, peer: _Peer, *, in_part: bool, depth: int) -> bytes:
    """A part, behind the line end of its delimiter; or what stands in front of the first and behind the last one."""
    if peer.fits(piece) if in_part else peer.takes(piece):
        return piece
    if not in_part:
        raise _CannotError
    return b"\r\n" + _entity(piece[2:], default_type, peer, depth=depth + 1)


def _split(entity: bytes) -> tuple[bytes, bytes]:
    """Header, with the CRLF of its last field, and body."""
    if entity.startswith(b"\r\n"):
        return b"", entity[2:]
    header, found, body = entity.partition(b"\r\n\r\n")
    return (header + b"\r\n", body) if found else (entity, b"")
