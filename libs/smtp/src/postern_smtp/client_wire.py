"""Replies, extensions and commands as bytes; no socket in it.

The parser takes replies in any chunking and keeps little of them: 2 KiB a line, 128 lines a reply; a bare LF ends a line too. A reply
that is longer than it may be (RFC 5321 section 4.5.3.1.5) still counts: a 250 to the end of data that was not believed for its length
would bring a copy of the mail at each retry. Whatever does not read as a reply is an error that stays, for behind it nobody knows
which reply belongs to which command.
Commands are built from checked parts: no CR, LF or other control gets into one.
Standards: RFC 5321 sections 4.1.1 and 4.2, RFC 2034 and 3463 (status), RFC 1870 (SIZE), RFC 6152 (8BITMIME), RFC 3030 (BINARYMIME),
RFC 3461 (DSN), RFC 6531 (SMTPUTF8), RFC 8689 (REQUIRETLS); whether a message may go over a session at all is decided in client_demands.py.
"""

from __future__ import annotations

import functools
import re
from collections import deque
from dataclasses import dataclass

import msgspec

from postern_core.envelope import BodyType, Recipient
from postern_smtp.client_data import WireMessage
from postern_smtp.client_types import ServerReply, Transaction
from postern_smtp.utf8_address import is_orcpt, orcpt_in_seven_bit

MAX_LINE_BYTES = 2048  # that are kept of a line
MAX_LINES = 128  # that are kept of a reply
MAX_REPLY_BYTES = 256 * 1024  # over this it is no reply but a flood
MAX_TEXT = 500

_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
_STATUS = re.compile(r"([245])\.\d{1,3}\.\d{1,3}(?= |$)", re.ASCII)
_PLAIN_PATH = re.compile(r"[^\x00-\x20\x7f<>\"]*")
_QUOTED_PATH = re.compile(r'"(?:[^"\\\x00-\x1f\x7f]|\\[^\x00-\x1f\x7f])*"@[^\x00-\x20\x7f<>"]+')
_XTEXT = re.compile(r"[\x21-\x7e]{1,500}")
_NOTIFY = re.compile(r"[A-Za-z,]{1,64}")

TOO_LARGE = ServerReply(552, "5.3.4", "message size exceeds the limit that the next hop announced")
EIGHT_BIT_REFUSED = ServerReply(554, "5.6.3", "message holds 8-bit data and the next hop does not offer 8BITMIME")
BINARY_REFUSED = ServerReply(
    554, "5.6.1", "message is binary, the next hop does not offer BINARYMIME, and it cannot be converted"
)
BAD_REVERSE_PATH = ServerReply(553, "5.1.7", "reverse-path cannot be written in a command")
BAD_FORWARD_PATH = ServerReply(553, "5.1.3", "forward-path cannot be written in a command")


class RawReply(msgspec.Struct, frozen=True):
    """One complete reply: the code of its last line, and the text of each line."""

    code: int
    lines: tuple[bytes, ...]

    def decoded(self) -> ServerReply:
        """The reply for logs, reports and decisions."""
        status = ""
        texts = []
        for line in self.lines:
            text = line.decode("utf-8", "replace")
            if not text.isprintable():
                text = "".join(c if c.isprintable() else " " for c in text)
            found = _STATUS.match(text)
            if found and int(found[1]) == self.code // 100:
                status = status or found[0]
                text = text[found.end() + 1 :]
            texts.append(text)
        joined = texts[0] if len(texts) == 1 else " ".join(texts)
        return ServerReply(self.code, status, joined[:MAX_TEXT].strip())


class ReplyParser:
    """Bytes in, complete replies out (`replies`, oldest first). `error` is set once, for good, by what is no reply."""

    def __init__(self) -> None:
        self.replies: deque[RawReply] = deque()
        self.error = ""
        self._rest = b""  # the beginning of a line
        self._cut = 0  # bytes of that line that were not kept
        self._lines: list[bytes] = []
        self._size_bytes = 0  # of the complete lines of the reply that has begun

    @property
    def is_idle(self) -> bool:
        """Whether nothing is waiting to be read, not even part of a reply."""
        return not (self.replies or self._rest or self._size_bytes or self.error)

    def feed(self, data: bytes) -> None:
        """Take what arrived."""
        if self.error:
            return
        *complete, self._rest = (self._rest + data).split(b"\n")
        for line in complete:
            reply = None if self._size_bytes or self._cut else _whole_reply(line)
            if reply is not None:
                self.replies.append(reply)
            elif not self._take_line(line):
                return
        if not self._rest:
            return
        self._is_within_limit(len(self._rest) + self._cut)
        self._cut += max(len(self._rest) - MAX_LINE_BYTES, 0)
        self._rest = self._rest[:MAX_LINE_BYTES]

    def _is_within_limit(self, line_bytes: int) -> bool:
        if self._size_bytes + line_bytes > MAX_REPLY_BYTES:
            self.error = "reply is too long"
        return not self.error

    def _take_line(self, line: bytes) -> bool:
        """False, and `error` is set, when that was none."""
        size_bytes, self._cut = len(line) + self._cut, 0
        if not self._is_within_limit(size_bytes):
            return False
        found = _LINE.fullmatch(line[:MAX_LINE_BYTES].removesuffix(b"\r"))
        if found is None:
            self.error = f"not a reply: {line[:80]!r}"
            return False
        if len(self._lines) < MAX_LINES:
            self._lines.append(found[3] or b"")
        if found[2] == b"-":
            self._size_bytes += size_bytes + 1
            return True
        # the lines of one reply bear one code (RFC 5321 section 4.2.1); where they do not, the last one counts
        self.replies.append(RawReply(int(found[1]), tuple(self._lines)))
        self._lines.clear()
        self._size_bytes = 0
        return True


@functools.lru_cache(maxsize=64)
def _whole_reply(line: bytes) -> RawReply | None:
    """The reply that `line` is all of; None for any other, for the parser to look into. A peer says the same few most of the time."""
    found = _LINE.fullmatch(line.removesuffix(b"\r")) if len(line) <= MAX_LINE_BYTES else None
    return RawReply(int(found[1]), (found[3] or b"",)) if found is not None and found[2] != b"-" else None


@dataclass(frozen=True, slots=True)
class Extensions:
    """What the reply to EHLO offers, as far as we use it. The default is what HELO gets: nothing."""

    pipelining: bool = False
    eight_bit_mime: bool = False
    binary_mime: bool = False  # with CHUNKING, without which it is not to be used (RFC 3030 section 3)
    starttls: bool = False
    dsn: bool = False
    size: bool = False
    max_size_bytes: int | None = None  # None: no limit announced
    auth: frozenset[str] = frozenset()
    utf8: bool = False  # in addresses and headers: SMTPUTF8, which is nothing without 8BITMIME (RFC 6531 section 3.1)
    requiretls: bool = False

    @classmethod
    def parse(cls, reply: RawReply) -> Extensions:
        """From the lines of the reply; the first one is the greeting. Keywords are caseless."""
        offered: dict[str, str] = {}
        auth: set[str] = set()
        for line in reply.lines[1:]:
            keyword, _, parameters = line.decode("ascii", "replace").strip().upper().partition(" ")
            if keyword.startswith("AUTH="):  # before RFC 2554 was final; still seen
                keyword, parameters = "AUTH", f"{keyword[5:]} {parameters}"
            if keyword == "AUTH":
                auth.update(parameters.split())
            offered.setdefault(keyword, parameters)
        limit = offered.get("SIZE", "").strip()
        return cls(
            pipelining="PIPELINING" in offered,
            eight_bit_mime="8BITMIME" in offered,
            binary_mime="BINARYMIME" in offered and "CHUNKING" in offered,
            starttls="STARTTLS" in offered,
            dsn="DSN" in offered,
            size="SIZE" in offered,
            # SIZE or SIZE 0: no fixed limit (RFC 1870 section 4); 20 digits is the most that the grammar allows
            max_size_bytes=(int(limit) or None) if limit.isascii() and limit.isdigit() and len(limit) <= 20 else None,
            auth=frozenset(auth),
            utf8="SMTPUTF8" in offered and "8BITMIME" in offered,
            requiretls="REQUIRETLS" in offered,
        )


def refuse_path(address: str, refusal: ServerReply) -> ServerReply | None:
    """None when `address` (without angle brackets) may stand in a command, else what to say about it."""
    if not address.isascii() and not address.isprintable():  # no gate takes one; what an older one took ends no line here
        return refusal
    return None if _PLAIN_PATH.fullmatch(address) or _QUOTED_PATH.fullmatch(address) else refusal


def refuse_message(transaction: Transaction, wire: WireMessage, extensions: Extensions) -> ServerReply | None:
    """What this peer cannot be offered at all, said in its place; None when all is well.

    8-bit data towards a peer without 8BITMIME is encoded before it gets here, or cannot be, and is returned (RFC 6152 section 3).
    """
    if wire.cannot_go:
        return BINARY_REFUSED
    if wire.eight_bit and not wire.binary and not extensions.eight_bit_mime:
        return EIGHT_BIT_REFUSED
    if extensions.max_size_bytes is not None and wire.size_bytes > extensions.max_size_bytes:
        return TOO_LARGE
    return refuse_path(transaction.reverse_path, BAD_REVERSE_PATH)


def mail_command(transaction: Transaction, wire: WireMessage, extensions: Extensions, *, utf8: bool = False) -> bytes:
    """MAIL with the parameters that the peer offers. `utf8`: SMTPUTF8 is one of them, and said."""
    command = f"MAIL FROM:<{transaction.reverse_path}>"
    if extensions.size:
        command += f" SIZE={wire.size_bytes}"
    if wire.binary:
        command += " BODY=BINARYMIME"
    elif extensions.eight_bit_mime and (wire.eight_bit or transaction.body_type is BodyType.EIGHT_BIT_MIME):
        command += " BODY=8BITMIME"
    if extensions.dsn:
        if transaction.ret in {"FULL", "HDRS"}:
            command += f" RET={transaction.ret}"
        if _XTEXT.fullmatch(transaction.envid):
            command += f" ENVID={transaction.envid}"
    if utf8:
        command += " SMTPUTF8"
    if transaction.requiretls:
        command += " REQUIRETLS"
    return command.encode("utf-8" if utf8 else "ascii") + b"\r\n"


def rcpt_command(recipient: Recipient, extensions: Extensions, *, utf8: bool = False) -> bytes:
    """RCPT with its DSN parameters where the peer offers DSN. `utf8`: MAIL said SMTPUTF8."""
    command = f"RCPT TO:<{recipient.address}>"
    if extensions.dsn:
        if _NOTIFY.fullmatch(recipient.notify):
            command += f" NOTIFY={recipient.notify}"
        orcpt = recipient.orcpt if utf8 else orcpt_in_seven_bit(recipient.orcpt)
        if _XTEXT.fullmatch(orcpt) or (utf8 and is_orcpt(orcpt)):
            command += f" ORCPT={orcpt}"
    return command.encode("utf-8" if utf8 else "ascii") + b"\r\n"


def hello_command(verb: str, name: str) -> bytes:
    """EHLO or HELO. ValueError when `name` is no domain or address literal."""
    if not name.isascii() or not name or not _PLAIN_PATH.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name in {verb}")
    return f"{verb} {name}\r\n".encode("ascii")
