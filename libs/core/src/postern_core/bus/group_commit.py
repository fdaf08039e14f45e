"""Group commit: messages that come while a publish is under way wait for it, and then go together as one batch.

What databases do with transactions: a sync of the disk and a round trip are paid once for all who want them at the same moment. Where nobody
else is, a message goes at once and alone, so that nothing waits for company. Where others are, which those tell who came while a commit was under
way, the next one waits a moment for more of them: each entry costs the broker, the screener and delivery as much as a message in it or more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

import msgspec

from postern_core.batch import MOST_MEMBERS, MOST_OCTETS, Body, batch_token, frame_batch
from postern_core.bus.connection import Bus
from postern_core.bus.publishing import unavailable
from postern_core.envelope import Envelope, frame_encoded
from postern_core.errors import TransientError

COMMIT_CAP_S: Final = 12.0  # the bus gives a publish up after ten
_MOST_UNDER_WAY: Final = 1  # a second publish beside the first would only make both smaller
_LINGER_S: Final = 0.007
_ENOUGH: Final = 8  # nobody lingers for more: what another one saves gets less with each


@dataclass(eq=False, slots=True)
class _Waiting:
    envelope: Envelope
    head: bytes  # of the envelope
    body: Body
    octets: int
    since: float  # by the clock of the loop
    stored: asyncio.Future[None]


class GroupCommit:
    """Publishes accepted messages to `stream` under `<prefix>.<queue ids>`. Each commit may take `cap_s` seconds."""

    def __init__(self, bus: Bus, stream: str, prefix: str, *, cap_s: float = COMMIT_CAP_S) -> None:
        self.cap_s = cap_s
        self._bus = bus
        self._stream = stream
        self._prefix = prefix
        self._waiting: deque[_Waiting] = deque()
        self._waiting_octets = 0
        self._enough = asyncio.Event()  # to end a linger
        self._among = MOST_MEMBERS
        self._under_way = 0
        self._commits: set[asyncio.Task[None]] = set()  # or they could be collected

    async def publish(self, envelope: Envelope, body: Body, *, among: int = MOST_MEMBERS) -> None:
        """Store one message; returns after the broker's acknowledgement, or raises before twice the cap of a commit is over. It is one `among` so
        many that may come at the same moment: once all of them wait there is nobody to wait for.

        TransientError as of `Bus.publish`, and for who would wait for too long behind others. TimeoutError when a commit takes longer than its
        cap. Who waits when a publish fails is told the same, and was not stored. Cancelled while it waits, the message is not sent.
        """
        head = msgspec.json.encode(envelope)
        # heads count: those of a thousand recipients each would make an entry that the broker does not take, here or, twice as long, in OUTBOUND
        octets = len(head) + len(body)
        if envelope.body is not None or octets > MOST_OCTETS // 2:
            async with asyncio.timeout(self.cap_s):
                await self._store(envelope, head, body)
            return
        loop = asyncio.get_running_loop()
        waiting = _Waiting(envelope, head, body, octets, loop.time(), loop.create_future())
        self._waiting.append(waiting)
        self._waiting_octets += waiting.octets
        self._among = among
        if self._is_enough():
            self._enough.set()
        if self._under_way < _MOST_UNDER_WAY:
            self._under_way += 1
            commit = asyncio.create_task(self._commit(), name=f"commit.{self._stream}")
            self._commits.add(commit)
            commit.add_done_callback(self._commits.discard)
        await waiting.stored

    async def _commit(self) -> None:
        try:
            while batch := self._next():
                await self._commit_one(batch)
                if (len(batch) > 1 or self._waiting) and not self._is_enough():
                    await self._linger()
        finally:
            self._under_way -= 1  # in the same step in which nobody was found to wait: whoever comes next begins another

    async def _commit_one(self, batch: list[_Waiting]) -> None:
        try:
            async with asyncio.timeout(self.cap_s):
                if len(batch) == 1:
                    await self._store(batch[0].envelope, batch[0].head, batch[0].body)
                else:
                    await self._store_all(batch)
        except (TransientError, TimeoutError) as error:
            # whoever waits would wait as long again, and hear the same
            batch += self._waiting
            self._waiting.clear()
            self._waiting_octets = 0
            _settle(batch, error)
        except Exception as error:  # nobody foresaw it: each hears of it, who knows what to tell his client
            _settle(batch, error)
        else:
            _settle(batch, None)

    def _is_enough(self) -> bool:
        return len(self._waiting) >= min(_ENOUGH, self._among) or self._waiting_octets >= MOST_OCTETS

    async def _linger(self) -> None:
        """For a moment, or until enough have come."""
        self._enough.clear()
        timer = asyncio.get_running_loop().call_later(_LINGER_S, self._enough.set)
        try:
            await self._enough.wait()
        finally:
            timer.cancel()

    def _next(self) -> list[_Waiting]:
        """Who goes together, in the order of coming; those who gave up meanwhile do not, nor those whose time would run out on the way."""
        batch: list[_Waiting] = []
        octets, too_old = 0, asyncio.get_running_loop().time() - self.cap_s
        while self._waiting and len(batch) < MOST_MEMBERS:
            octets += self._waiting[0].octets
            if batch and octets > MOST_OCTETS:
                break
            waiting = self._waiting.popleft()
            self._waiting_octets -= waiting.octets
            if waiting.stored.done():
                continue
            if waiting.since < too_old:
                waiting.stored.set_exception(unavailable(f"waited for {self.cap_s:g} s behind others"))
            else:
                batch.append(waiting)
        return batch

    async def _store(self, envelope: Envelope, head: bytes, body: Body) -> None:
        payload = frame_encoded(head, body)
        await self._bus.publish(self._stream, f"{self._prefix}.{envelope.id}", payload, self._msg_id(envelope.id))

    async def _store_all(self, batch: list[_Waiting]) -> None:
        token = batch_token(each.envelope.id for each in batch)
        payload = frame_batch([(each.head, each.body) for each in batch])
        # an id is in one batch only, so the first one and their number name it
        await self._bus.publish(
            self._stream, f"{self._prefix}.{token}", payload, self._msg_id(f"{batch[0].envelope.id}+{len(batch)}")
        )

    def _msg_id(self, name: str) -> str:
        return f"{name}:{self._stream.lower()}"


def _settle(batch: list[_Waiting], error: Exception | None) -> None:
    for each in batch:
        if each.stored.done():
            continue
        if error is None:
            each.stored.set_result(None)
        else:
            each.stored.set_exception(error)
