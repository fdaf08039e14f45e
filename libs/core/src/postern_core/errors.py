"""The two kinds of mail error, and the reply that each carries.

    MailError ─┬─ TransientError  4yz  keep the mail and try again
               └─ PermanentError  5yz  refuse it, or return it

`text` is for the peer and names no host, rule, path or user; `reason` is for the log alone.
Whatever nobody classified is transient, so that the mail is kept.
Standards: RFC 5321 section 4.2 (replies), RFC 3463 (enhanced status codes).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_STATUS = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")


@dataclass(frozen=True, slots=True)
class Reply:
    """One SMTP reply that we give (RFC 5321 section 4.2).

    `code` is 200–599; `status` is the enhanced status code or "" for the few replies that carry none (greeting,
    HELO/EHLO, 3yz); `text` is one printable ASCII line. ValueError when code, status and class disagree.
    """

    code: int
    status: str
    text: str
    _line: bytes = field(init=False, repr=False, compare=False)  # most replies are made once and said a million times

    def __post_init__(self) -> None:
        if not 200 <= self.code <= 599:
            raise ValueError(f"reply code {self.code} is outside 200-599")
        if self.status and (not _STATUS.fullmatch(self.status) or int(self.status[0]) != self.code // 100):
            raise ValueError(f"enhanced status {self.status!r} does not fit reply code {self.code}")
        if not self.text.isascii() or not self.text.isprintable():
            raise ValueError("reply text must be one line of printable ASCII")
        object.__setattr__(self, "_line", f"{self}\r\n".encode("ascii"))

    def __str__(self) -> str:
        return f"{self.code} {self.status} {self.text}" if self.status else f"{self.code} {self.text}"

    def line(self) -> bytes:
        """The reply as it goes on the wire, CRLF included."""
        return self._line


class MailError(Exception):
    """Base of both kinds; never raised itself. `reason` tells the log what the peer need not know."""

    reply_class: int = 0

    def __init__(self, code: int, status: str, text: str, *, reason: str = "") -> None:
        self.reply = Reply(code, status, text)
        if code // 100 != self.reply_class:
            raise ValueError(f"{type(self).__name__} cannot carry reply code {code}")
        self.reason = reason or text
        super().__init__(f"{self.reply} ({self.reason})")


class TransientError(MailError):
    """Keep the mail and try again later: reply class 4yz."""

    reply_class = 4


class PermanentError(MailError):
    """Refuse the mail, or return it to its sender: reply class 5yz."""

    reply_class = 5


class ConfigurationError(Exception):
    """A setting, file or policy is wrong; the text names it and says what would be right."""
