"""Command lines: bytes → lines, however they were cut into blocks. Only CRLF ends a line (RFC 5321 section 2.3.8).

A bare LF inside a line is left to the command parser, which refuses it: two commands that somebody glued together with LF are one
refused line, never two commands. What stands unread behind STARTTLS or DATA can be taken out as a whole.
"""

from __future__ import annotations

from typing import Final

import msgspec

from postern_core.policy import commands

MAX_COMMAND_OCTETS: Final = (
    commands.MAX_COMMAND_OCTETS
)  # RFC 5321 section 4.5.3.1.4 asks for 512, and RFC 3461 for more; CRLF included
MAX_AUTH_OCTETS: Final = commands.MAX_AUTH_OCTETS
_FLOOD_OCTETS: Final = 1024 * 1024
_KEPT_OCTETS: Final = 24  # of a line that is thrown away: enough for its verb


class LineTooLong(msgspec.Struct, frozen=True):
    """Stands for a line that was read to its end and thrown away."""

    start: bytes  # its first octets
    octets: int  # all of it, with CRLF


class CommandLines:
    """Collects blocks and gives out lines."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._skipped = 0
        self._start = b""

    def feed(self, block: bytes) -> None:
        self._buffer += block

    def next_line(self) -> bytes | LineTooLong | None:
        """The next whole line without its CRLF; None when there is none yet. A line over MAX_AUTH_OCTETS is not kept."""
        end = self._buffer.find(b"\r\n", self._scanned)
        if end < 0:
            if len(self._buffer) > MAX_AUTH_OCTETS:
                self._start = self._start or bytes(self._buffer[:_KEPT_OCTETS])
                self._skipped += len(self._buffer) - 1
                del self._buffer[:-1]  # the last octet may be half of a CRLF
            self._scanned = max(len(self._buffer) - 1, 0)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        octets, start = self._skipped + end + 2, self._start or line[:_KEPT_OCTETS]
        self._reset()
        return LineTooLong(start, octets) if octets > MAX_AUTH_OCTETS else line

    def begins_with(self, octets: bytes) -> bool:
        """Whether what is unread begins so."""
        return self._buffer.startswith(octets)

    @property
    def is_empty(self) -> bool:
        return not self._buffer

    @property
    def is_flood(self) -> bool:
        """A megabyte came without a line end."""
        return self._skipped > _FLOOD_OCTETS

    @property
    def waits_after_bare_newline(self) -> bool:
        """The line that has begun holds a bare LF: its sender may think that it has ended."""
        return b"\n" in self._buffer

    def take(self, at_most: int | None = None) -> bytes:
        """All that is unread, or its first octets, which are then gone from here."""
        if at_most is None or at_most >= len(self._buffer):
            unread = bytes(self._buffer)
            self._buffer.clear()
        else:
            with memoryview(self._buffer) as view:
                unread = bytes(view[:at_most])
            del self._buffer[:at_most]
        self._reset()
        return unread

    def _reset(self) -> None:
        self._scanned = self._skipped = 0
        self._start = b""
