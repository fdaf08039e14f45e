"""The envelope: what SMTP says about a message, apart from the message (RFC 5321 section 2.3.1).

It travels in the payload in front of the message's bytes, as a length-prefixed block (`frame`, `unframe`): broker headers
count towards `max_payload` on the server but not in the client, and one message over it closes the connection.
"""

from __future__ import annotations

import enum
import struct
from datetime import datetime

import msgspec

from postern_core.authentication import MethodResult
from postern_core.contract import T, Version, decode, written
from postern_core.ids import QueueId

_PREFIX = struct.Struct(">4sI")
MAGIC = b"PSTN"


class Gate(enum.StrEnum):
    """Where the mail came in."""

    ANON = "anon"  # ingress-anon: from anybody, for relay domains only
    AUTH = "auth"  # ingress-auth: from our own people, to anywhere
    INTERNAL = "internal"  # made by Postern itself: NDRs and delay notices


class BodyType(enum.StrEnum):
    """The BODY parameter of MAIL (RFC 6152, RFC 3030)."""

    SEVEN_BIT = "7BIT"
    EIGHT_BIT_MIME = "8BITMIME"
    BINARY_MIME = "BINARYMIME"  # its body may hold any octets: NUL, bare CR and LF, no lines at all


class Recipient(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One forward-path, with its DSN parameters as received (RFC 3461 section 4).

    `n` is its place in the order of RCPT, from 0: it names the recipient for ever, also after the message was split by route.
    """

    n: int
    address: (
        str  # local-part "@" domain; the domain in lower case and A-labels, the local-part as received (UTF-8 with `smtputf8`)
    )
    notify: str = ""  # NOTIFY=, e.g. "FAILURE,DELAY" or "NEVER"
    orcpt: str = ""  # ORCPT=, still in xtext; of type utf-8 in the form of RFC 6533 section 3

    @property
    def domain(self) -> str:
        """The domain part, lower case, without the @."""
        return self.address.rpartition("@")[2]


class HostCheck(enum.StrEnum):
    """What the look-up of a client's name said."""

    VERIFIED = "verified"  # the address has the name, and the name the address
    UNVERIFIED = "unverified"  # it has none, or none that leads back
    FAILED = "failed"  # DNS did not say


class Client(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who handed the message in."""

    address: str  # IP address, textual
    helo: str = ""
    tls: str = ""  # protocol and cipher, "" without TLS
    user: str = ""  # the authenticated user, "" when anonymous
    host: str = ""  # the name that DNS confirms, when it was looked up and VERIFIED
    host_check: HostCheck | None = None  # None: not looked up


class BodyRef(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a body over the inline limit lies: BODIES subjects `body.<name>.<k>`, k = 0 … chunks-1."""

    name: str  # `<writer>.<queue-id or job-id>`
    chunks: int
    size_bytes: int
    # of the whole body, hex. One of the two is there: `sha256` in references that were made before there was the other
    xxh3: str = ""  # of 128 bits: against damage and mistakes, since nobody but its writer can change what is stored
    sha256: str = ""


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One accepted message. A new field has a default; anything else is a new version."""

    version: Version = msgspec.field(default_factory=written)
    id: QueueId
    gate: Gate
    reverse_path: str  # "" is the null reverse-path of a DSN: never bounce it (RFC 5321 section 4.5.5)
    recipients: tuple[Recipient, ...]  # at least one, in the order of RCPT
    size_bytes: int  # as stored, our Received: field included
    accepted_at: datetime
    client: Client
    body_type: BodyType = BodyType.SEVEN_BIT
    smtputf8: bool = False  # SMTPUTF8 at MAIL (RFC 6531): addresses or header may hold UTF-8
    requiretls: bool = False  # REQUIRETLS at MAIL (RFC 8689): goes on over verified TLS only
    ret: str = ""  # RET= (RFC 3461 section 4.3): "FULL" or "HDRS"
    envid: str = ""  # ENVID=, still in xtext
    hold: str = ""  # why the gate asks the screener to hold it, where no rule decides otherwise
    authentication: tuple[MethodResult, ...] = ()  # what the gate found; none where it evaluates nothing
    body: BodyRef | None = None  # None: the bytes follow inline


def frame(head: msgspec.Struct, body: bytes | bytearray | memoryview = b"") -> bytes:
    """`head` and `body` as one payload: magic, length of the head in bytes (big-endian), head as JSON, body."""
    return frame_encoded(msgspec.json.encode(head), body)


def frame_encoded(head: bytes, body: bytes | bytearray | memoryview) -> bytes:
    """As `frame`, of a head that is JSON already."""
    return b"".join((_PREFIX.pack(MAGIC, len(head)), head, body))


def unframe(payload: bytes, head_type: type[T]) -> tuple[T, memoryview]:
    """The head and a view of the body behind it. ValueError for anything that `frame` did not make, and for another version."""
    if len(payload) < _PREFIX.size:
        raise ValueError("payload is shorter than its prefix")
    magic, length = _PREFIX.unpack_from(payload)
    if magic != MAGIC or len(payload) < _PREFIX.size + length:
        raise ValueError("payload is not framed as Postern frames it")
    view = memoryview(payload)
    head = decode(view[_PREFIX.size : _PREFIX.size + length], head_type)
    return head, view[_PREFIX.size + length :]
