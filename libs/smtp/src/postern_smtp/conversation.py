"""What is read and said on one connection, line by line: the part that the conversation, DATA, TLS and AUTH have in common.

Reads in blocks; lines come out of lines.py. What is said together goes out in one write.
"""

from __future__ import annotations

import asyncio
from typing import Final

from postern_core.counters import CounterName
from postern_smtp import replies
from postern_smtp.connection import SmtpConnection
from postern_smtp.dialogue import Answer, Dialogue, Then, say
from postern_smtp.journal import Journal
from postern_smtp.lines import CommandLines, LineTooLong
from postern_smtp.reception import Reception

BLOCK_OCTETS: Final = 256 * 1024
_BARE_NEWLINE_GRACE_S: Final = 5.0
_COMMANDS_A_TURN: Final = 32  # of one client, before the others have theirs


class Ended(Exception):  # noqa: N818  (not an error: how the conversation loop is left)
    """The session is over; what had to be said was said."""


class Conversation(SmtpConnection):
    """See the module."""

    def __init__(self, reception: Reception, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._reception = reception
        self._lines = CommandLines()
        self._has_left = False
        self._journal: Journal | None = None  # where the session log has every command
        self._dialogue = Dialogue(
            self.session,
            reception.profile,
            reception.newest_rules,
            reception.unavailable,
            reception.notice,
            reception.transaction_refusal,
        )

    def _queue(self, wire: bytes) -> None:
        if wire[:1] >= b"4":
            self._reception.counters.add(CounterName.REFUSALS, wire[:3].decode("ascii"))
        super()._queue(wire)

    def _write(self, answer: Answer) -> None:
        """Say it, with what else is said before the next wait, and leave when it was the last word."""
        self._queue(answer.wire)
        if self._journal is not None:
            self._journal.replied(answer)
        if answer.then is Then.CLOSE:
            self._end = self._end or (answer.reply.text if answer.reply is not None else "")
            raise Ended

    async def _next_line(self) -> bytes | LineTooLong:
        lines = self._lines
        if self.session.commands % _COMMANDS_A_TURN == 0:
            # one that pipelines without reading must not make us hold its replies, nor keep the loop to itself
            await self._send()
            await asyncio.sleep(0)
        if (line := lines.next_line()) is not None:
            return line  # it came with the one before
        while line is None:
            if lines.is_flood:
                self._write(say(replies.LINE_FLOOD))
            if not lines.is_empty:
                self._time_the_line()
            await self._send()
            block = await (self._read_past_newline() if lines.waits_after_bare_newline else self._reader.read(BLOCK_OCTETS))
            if not block:
                self._end = "closed by client"
                raise Ended
            self.session.octets_in += len(block)
            lines.feed(block)
            line = lines.next_line()
        self._reset_timeout(self._dialogue.in_force.limits.idle_timeout_s)
        if self._line_clock is not None:
            self._line_clock.cancel()
            self._line_clock = None
        return line

    def _time_the_line(self) -> None:
        """A line has begun and is not at its end: it has an absolute time for that (RFC 5321 section 4.5.3.2)."""
        if self._line_clock is None:
            self._line_clock = self.loop.call_later(
                self._dialogue.in_force.limits.command_timeout_s, self.expire, replies.IDLE_TOO_LONG
            )

    async def _read_past_newline(self) -> bytes:
        try:
            async with asyncio.timeout(_BARE_NEWLINE_GRACE_S):
                return await self._reader.read(BLOCK_OCTETS)
        except TimeoutError:
            # somebody types, or a program ends its lines with LF: say so instead of leaving it waiting
            self._write(say(replies.STRAY_CONTROL, Then.CLOSE))
            raise Ended from None
