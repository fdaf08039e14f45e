"""Message data on one connection, by DATA or by BDAT: read to its end in blocks, and stored before it is answered."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from postern_core.errors import Reply
from postern_smtp import replies
from postern_smtp.chunks import ChunkedData
from postern_smtp.commands import Bdat
from postern_smtp.conversation import BLOCK_OCTETS, Conversation, Ended
from postern_smtp.data import DataReader
from postern_smtp.dialogue import Answer, say
from postern_smtp.reception import Reception
from postern_smtp.session import Transaction

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_PROGRESS_OCTETS: Final = 4096  # of data within data_block_timeout_s


class Receiving(Conversation):
    """See the module."""

    def __init__(self, reception: Reception, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reception, loop)
        self._data: DataReader | ChunkedData | None = None  # of the message that is coming in; between its chunks, too
        self.is_busy = False

    async def _receive_message(self) -> None:
        transaction = self.session.transaction
        assert transaction is not None
        self.is_busy = True
        try:
            self._data = self._dialogue.data_reader()
            answer = await self._take_message(transaction, await self._read_data(self._data))
        finally:
            self._end_transaction()
        self._answer_message(answer)

    async def _receive_chunk(self, chunk: Bdat, refusal: Reply | None) -> None:
        """Read its octets, and answer: for a chunk that is refused with `refusal`, for the last one as for a message."""
        transaction = self.session.transaction
        chunks = transaction.chunks if transaction is not None else None
        self._data, self.is_busy = chunks, True
        try:
            await self._read_chunk(chunk.octets, chunks)
            if chunks is None or transaction is None or refusal is not None:
                answer = self._dialogue.counted(say(refusal or replies.BAD_SEQUENCE))
            elif chunk.last:
                answer = await self._take_message(transaction, chunks.message())
            else:
                answer = self._dialogue.counted(say(chunks.refusal or replies.CHUNK_TAKEN))
        finally:
            if chunk.last or chunks is None:
                self._end_transaction()
        if chunk.last:
            self._answer_message(answer)
        else:
            self._write(answer)

    async def _take_message(self, transaction: Transaction, body: bytes | Reply) -> Answer:
        session = self.session
        if isinstance(body, Reply):
            log.info("data.refused", client=session.client_address, reply=str(body))
            return self._dialogue.counted(say(body))
        session.received_bytes += len(body)
        return say(await self._store(transaction, body))

    def _answer_message(self, answer: Answer) -> None:
        self._write(answer)
        if self._expired is not None:
            self._write(say(self._expired))
        farewell = self._reception.farewell(self.session)
        if farewell is not None:
            self._write(say(farewell))

    def _end_transaction(self) -> None:
        self.session.transaction = self._data = None
        self.is_busy = False
        self._reception.memory.release(self)

    def _forget_ended_data(self) -> None:
        """Chunks whose transaction is over (RSET, EHLO, a fault of ours) are no message any more."""
        transaction = self.session.transaction
        if transaction is None or transaction.chunks is not self._data:
            self._data = None
            self.is_busy = False
            self._reception.memory.release(self)

    async def _read_data(self, reader: DataReader) -> bytes | Reply:
        fresh, memory = 0, self._reception.memory
        limits = self._dialogue.in_force.limits
        progress_s = min(limits.data_block_timeout_s, limits.idle_timeout_s)
        self._reset_timeout(progress_s)
        block = self._lines.take()
        while not block or not reader.feed(block):
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

    async def _read_chunk(self, octets: int, chunks: ChunkedData | None) -> None:
        """So many octets, exactly; thrown away where there are no `chunks` to take them."""
        fresh, memory = 0, self._reception.memory
        limits = self._dialogue.in_force.limits
        progress_s = min(limits.data_block_timeout_s, limits.idle_timeout_s)
        self._reset_timeout(progress_s)
        block = self._lines.take(octets)
        while True:
            if chunks is not None:
                chunks.feed(block)
                memory.hold(self, chunks.buffered_bytes, self.loop.time())
            octets -= len(block)
            if not octets:
                return
            fresh += len(block)
            if fresh >= _PROGRESS_OCTETS:
                self._reset_timeout(progress_s)
                fresh = 0
            await self._send()
            block = await self._reader.read(min(octets, BLOCK_OCTETS))
            if not block:
                self._end = "closed by client in BDAT"
                raise Ended

    def let_go(self) -> None:
        """Drop what came of the message so far; its end is answered with 452 4.3.1."""
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
