"""Reads what the broker sends: straight from the socket into one buffer, and each message out of it as it comes.

The library reads by way of a stream: what came is copied into it, out of it and into its parser, by a task that has to be woken for it. Here the
loop writes into our buffer, and messages are cut out of that at once, each copied once. The protocol's rare words (PING, INFO …) go on to
whoever takes `rare`, in their order.
Source: the NATS client protocol (docs.nats.io, Client Protocol).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

_CRLF: Final = b"\r\n"
_BUFFER_OCTETS: Final = (1024 + 128) * 1024  # a chunk of a stored body fits; what is not touched takes no memory
_LEAST_FREE_OCTETS: Final = 64 * 1024  # less for one read is not worth its system call
_LONGEST_LINE_OCTETS: Final = 1024 * 1024  # of a command: INFO of a large cluster takes some kilobytes

# subscription id, subject, reply, payload, block of header fields if there is one
OnMessage = Callable[[int, bytes, bytes, bytes, bytes | None], None]


class MalformedError(ValueError):
    """What came is not the broker's protocol: nothing behind it can be told apart."""


class Receiver(asyncio.BufferedProtocol):
    """See the module. `on_message` is called for each message, `on_word` with each other line, `on_end` once, with the fault if there was one.

    It takes the place of `before` on a transport, which goes on to be told about writing and the end, as its stream's writer needs it.
    """

    def __init__(
        self,
        before: asyncio.BaseProtocol,
        *,
        on_message: OnMessage,
        on_word: Callable[[bytes], None],
        on_end: Callable[[Exception | None], None],
    ) -> None:
        self._before = before
        self._on_message = on_message
        self._on_word = on_word
        self._on_end = on_end
        self._has_ended = False
        self._use(bytearray(_BUFFER_OCTETS))
        self._start = self._end = 0  # of what has been read and not been cut

    def _use(self, buffer: bytearray) -> None:
        self._buffer = buffer
        self._view = memoryview(buffer)

    def feed(self, data: bytes) -> None:
        """What was read before this took over."""
        for start in range(0, len(data), _LEAST_FREE_OCTETS):
            piece = data[start : start + _LEAST_FREE_OCTETS]
            self.get_buffer(len(piece))[: len(piece)] = piece
            self.buffer_updated(len(piece))

    # -- as the loop calls it

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  (the loop's guess)
        if len(self._buffer) - self._end < _LEAST_FREE_OCTETS:
            self._make_room(self._end - self._start + _LEAST_FREE_OCTETS)
        return self._view[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        self._end += nbytes
        if self._has_ended:
            return
        try:
            self._cut()
        except MalformedError as fault:
            self._finish(fault)

    def eof_received(self) -> None:
        self._finish(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._before.connection_lost(exc)
        self._finish(exc)

    def pause_writing(self) -> None:
        self._before.pause_writing()

    def resume_writing(self) -> None:
        self._before.resume_writing()

    def leave(self) -> None:
        """Nobody listens any more."""
        self._has_ended = True

    def _finish(self, fault: Exception | None) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._on_end(fault)

    # -- cutting

    def _cut(self) -> None:
        buffer, view = self._buffer, self._view
        start, end = self._start, self._end
        needed = 0
        while not self._has_ended and (eol := buffer.find(_CRLF, start, end)) >= 0:
            body = eol + len(_CRLF)
            if buffer[start] not in b"MH":  # PING, PONG, +OK, -ERR, INFO
                self._on_word(bytes(view[start:body]))
                start = body
                continue
            try:
                sid, subject, reply, head, size = _of_message(bytes(view[start:eol]))
            except (ValueError, IndexError) as error:
                raise MalformedError(f"a line from the broker cannot be read: {bytes(view[start:eol])[:100]!r}") from error
            if (behind := body + size + len(_CRLF)) > end:
                needed = behind - start
                break
            headers = bytes(view[body : body + head]) if head else None
            start = behind
            self._on_message(sid, subject, reply, bytes(view[body + head : body + size]), headers)
        else:
            if end - start > _LONGEST_LINE_OCTETS:
                raise MalformedError("a line from the broker has no end")
        self._start, self._end = (start, end) if start < end else (0, 0)
        if needed > len(buffer) - self._start or (not self._end and len(buffer) > _BUFFER_OCTETS):
            self._make_room(needed)

    def _make_room(self, needed: int) -> None:
        """For `needed` octets from the start of what has not been cut: by moving it to the front, in a larger buffer where it must be, and in the usual
        one again when it may."""
        waiting = bytes(self._view[self._start : self._end])
        size = max(needed, _BUFFER_OCTETS)
        if size != len(self._buffer):
            self._use(bytearray(size))
        self._view[: len(waiting)] = waiting
        self._start, self._end = 0, len(waiting)


def _of_message(line: bytes) -> tuple[int, bytes, bytes, int, int]:
    """Subscription id, subject, reply, length of the header fields and of all of it. ValueError, IndexError.

    MSG subject sid [reply] size; HMSG subject sid [reply] header-size size.
    """
    words = line.split()
    size, head, has_reply = int(words[-1]), 0, len(words) == 5
    if line.startswith(b"H"):
        head, has_reply = int(words[-2]), len(words) == 6
    if not 0 <= head <= size:
        raise ValueError("a length that cannot be")
    return int(words[2]), words[1], words[3] if has_reply else b"", head, size
