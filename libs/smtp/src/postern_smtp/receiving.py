"""Message data on one connection: read to its end in blocks, and stored before it is answered."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from postern_core.errors import Reply
from postern_smtp import replies
from postern_smtp.conversation import BLOCK_OCTETS, Conversation, Ended
from postern_smtp.data import DataReader
from postern_smtp.dialogue import say
from postern_smtp.reception import Reception
from postern_smtp.session import Transaction

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_PROGRESS_OCTETS: Final = 4096  # of data within data_block_timeout_s


class Receiving(Conversation):
    """See the module."""

    def __init__(self, reception: Reception, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reception, loop)
        self._data: DataReader | None = None  # of the message that is coming in
        self.is_busy = False

    async def _receive_message(self) -> None:
        session, transaction = self.session, self.session.transaction
        assert transaction is not None
        self.is_busy = True
        try:
            self._data = self._dialogue.data_reader()
            body = await self._read_data(self._data)
            if isinstance(body, Reply):
                log.info("data.refused", client=session.client_address, reply=str(body))
                answer = self._dialogue.counted(say(body))
            else:
                session.received_bytes += len(body)
                answer = say(await self._store(transaction, body))
        finally:
            session.transaction = self._data = None
            self.is_busy = False
            self._reception.memory.release(self)
        self._write(answer)
        if self._expired is not None:
            self._write(say(self._expired))
        farewell = self._reception.farewell(self.session)
        if farewell is not None:
            self._write(say(farewell))

    async def _read_data(self, reader: DataReader) -> bytes | Reply:
        fresh, memory = 0, self._reception.memory
        limits = self._dialogue.limits
        progress_s = min(limits.data_block_timeout_s, limits.idle_timeout_s)
        self._reset_timeout(progress_s)
        block = self._lines.take()
        while not reader.feed(block):
            memory.hold(self, reader.buffered_bytes, self.loop.time())
            fresh += len(block)
            if fresh >= _PROGRESS_OCTETS:
                self._reset_timeout(progress_s)
                fresh = 0
            await self._send()
            block = await self._reader.read(BLOCK_OCTETS)
            self.session.octets_in += len(block)
            if not block:
                self._end = "closed by client in DATA"
                raise Ended
        memory.hold(self, reader.buffered_bytes, self.loop.time())  # also what came in one block: it may have to let go
        self._lines.feed(reader.rest)
        return reader.message()

    def let_go(self) -> None:
        """Drop what came of the message so far; its end of data is answered with 452 4.3.1."""
        if self._data is not None:
            self._data.discard(replies.OUT_OF_MEMORY)

    async def _store(self, transaction: Transaction, body: bytes) -> Reply:
        session = self.session
        self._flush()
        self._reception.memory.release(self)  # from here on the body is counted with those that are being stored
        self.is_storing = True  # so that it runs on when the client is gone
        try:
            reply = await self._reception.store(transaction, session.client, body, extended=session.extended)
        finally:
            self.is_storing = False
        if self._has_left:
            if self._journal is not None:
                self._journal.replied(say(reply))  # nobody hears it, and the message is ours all the same
            raise Ended
        if reply.code == 250:
            session.accepted += 1
            session.recipients += len(transaction.recipients)
        return reply
