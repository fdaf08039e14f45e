"""Asking a next hop for mailboxes without sending anything: MAIL FROM:<>, RCPT for each, QUIT. No DATA is ever said.

The null reverse-path, so that nobody asks back about the sender, or answers with a bounce.
Standards: RFC 5321 sections 3.3, 4.1.1.2 and 4.1.1.3; RFC 6531 section 3.4.
"""

from __future__ import annotations

import asyncio
from typing import Final

from postern_core.envelope import Recipient
from postern_core.policy import NextHop
from postern_smtp.client_link import LinkLost
from postern_smtp.client_opening import open_session, say_quit
from postern_smtp.client_types import ClientOptions, ConnectionFailed, ServerReply
from postern_smtp.client_wire import BAD_FORWARD_PATH, Extensions, rcpt_command, refuse_path

_NOT_INTERNATIONAL: Final = ServerReply(553, "5.6.7", "the next hop takes no addresses that are not ASCII")


class NotAsked(Exception):  # noqa: N818 - names what happened
    """The next hop did not get as far as a reply to RCPT."""


class AskingSession:
    """A session in which mailboxes are asked for, one after another. Made by `open`; `close` it."""

    def __init__(self, next_hop: NextHop, options: ClientOptions, *, utf8: bool = False) -> None:
        """`utf8`: for addresses that are not ASCII, which a next hop without SMTPUTF8 does not get to hear."""
        self._next_hop = next_hop
        self._options = options
        self._utf8 = utf8
        self._says_utf8 = False

    async def __aenter__(self) -> AskingSession:
        """Open, with MAIL FROM:<> accepted. Raises NotAsked."""
        try:
            session = await open_session(self._next_hop, self._options)
        except ConnectionFailed as failed:
            raise NotAsked(str(failed)) from failed
        self._link = session.link
        try:
            self._says_utf8 = self._utf8 and session.extensions.utf8
            reply = await self._say(b"MAIL FROM:<> SMTPUTF8\r\n" if self._says_utf8 else b"MAIL FROM:<>\r\n")
        except BaseException:  # cancelled, too
            self._link.abort()
            raise
        if reply.code // 100 != 2:
            await say_quit(self._link, 1.0)
            raise NotAsked(f"MAIL FROM:<>: {reply}")
        return self

    async def __aexit__(self, *_: object) -> None:
        """QUIT, which nobody waits for long."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            self._link.abort()
        else:
            await say_quit(self._link, 1.0)

    async def reply_to(self, address: str) -> ServerReply:
        """What the next hop says to RCPT for `address`. Raises NotAsked when it says nothing."""
        refusal = refuse_path(address, BAD_FORWARD_PATH)
        if refusal is not None:
            return refusal
        if not address.isascii() and not self._says_utf8:
            return _NOT_INTERNATIONAL
        return await self._say(rcpt_command(Recipient(n=0, address=address), Extensions(), utf8=self._says_utf8))

    async def _say(self, command: bytes) -> ServerReply:
        try:
            self._link.write(command)
            return (await self._link.reply(self._options.command_timeout_s)).decoded()
        except LinkLost as lost:
            raise NotAsked(str(lost)) from lost
