"""Kept connections of one route: opened when needed, used again, closed when idle or used up.

Promises: at most `route.max_connections` connections stand at once, over all next hops, those that are being closed included;
a connection carries at most `max_messages_per_connection` transactions; a transaction has at most `max_recipients` recipients.
A kept connection that turns out dead or tired (the peer closed it, or answers 421 to MAIL) is replaced without anybody noticing:
nothing of the transaction had been accepted. A new one that ends in the same way counts as a next hop that grants no session. Next hops
are tried in their order; one that let us wait for nothing goes last for a while.
Whoever is cancelled while it waits, connects or sends leaves neither a connection nor a place behind.
Standards: RFC 5321 sections 3.8 (421), 4.5.3.1.8 and 4.5.3.1.10 (recipients), 5.1 (trying several hosts).
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Awaitable, Callable, Collection

import structlog

from postern_core.policy import NextHop, Route
from postern_smtp.client import (
    ClientOptions,
    ConnectionFailed,
    ConnectionLost,
    RecipientOutcome,
    SmtpClient,
    Transaction,
)

_SLOW_FAILURE_S = 1.0  # a connection attempt that fails later than this makes mail wait …
_AVOID_S = 30.0  # … so that host goes last for this long
_log = structlog.get_logger()

Outcomes = tuple[RecipientOutcome, ...]


class ConnectionPool:
    """The connections of one route. `options` is asked at each new connection, so that a changed password counts at once."""

    def __init__(self, route: Route, options: Callable[[], Awaitable[ClientOptions]], *, idle_s: float = 5.0) -> None:
        self._route = route
        self._options = options
        self._idle_s = idle_s
        self._idle: deque[tuple[SmtpClient, float]] = deque()  # with the loop's time since when; newest last
        self._in_use = 0  # places taken: connecting, sending or closing; with the idle ones never over max_connections
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closing: set[asyncio.Task[None]] = set()
        self._reaper: asyncio.TimerHandle | None = None
        self._avoid_until: dict[NextHop, float] = {}
        self._is_closed = False

    @property
    def in_use(self) -> int:
        """Connections that are being opened, used or closed."""
        return self._in_use

    @property
    def idle(self) -> int:
        """Connections kept for the next transaction."""
        return len(self._idle)

    async def send(self, transaction: Transaction) -> tuple[NextHop, Outcomes]:
        """One message, in as many transactions as its recipients need, one after another; waits for a place.

        Returns the next hop that took the last of them, and all outcomes in the order of the recipients. Raises
        ConnectionFailed (nothing took place) or ConnectionLost (with what is known), both with `next_hop` set.
        """
        known: Outcomes = ()
        for part in self._split(transaction):
            try:
                next_hop, outcomes = await self._send_one(part)
            except ConnectionFailed as failed:
                if not known:
                    raise
                raise ConnectionLost(failed.stage, failed.reason, known, next_hop=failed.next_hop) from failed
            except ConnectionLost as lost:
                lost.outcomes = known + lost.outcomes
                raise
            known += outcomes
        return next_hop, known

    async def close(self) -> None:
        """Close the idle connections and take no further transactions; connections in use close when they come back."""
        self._is_closed = True
        if self._reaper is not None:
            self._reaper.cancel()
            self._reaper = None
        while self._idle:
            client, _ = self._idle.popleft()
            self._in_use += 1
            self._retire(client)
        if self._closing:
            await asyncio.wait(self._closing)

    def _split(self, transaction: Transaction) -> list[Transaction]:
        limit = max(1, self._route.max_recipients)
        recipients = transaction.recipients
        if len(recipients) <= limit:
            return [transaction]
        starts = range(0, len(recipients), limit)
        return [dataclasses.replace(transaction, recipients=recipients[start : start + limit]) for start in starts]

    async def _send_one(self, transaction: Transaction) -> tuple[NextHop, Outcomes]:
        await self._take_place()
        client: SmtpClient | None = None
        given_up: set[NextHop] = set()
        try:
            while True:
                client = self._take_idle()
                if client is not None:
                    outcomes = await _try(client, transaction, is_last=False)
                else:
                    client = await self._connect(given_up)
                    given_up.add(client.next_hop)
                    outcomes = await _try(client, transaction, is_last=given_up.issuperset(self._route.next_hops))
                if outcomes is not None:
                    return client.next_hop, outcomes
        finally:
            self._give_back(client)

    async def _connect(self, given_up: Collection[NextHop]) -> SmtpClient:
        """A new session with the first next hop that grants one. ConnectionFailed of the last one otherwise."""
        if self._is_closed:
            raise ConnectionFailed("connect", "the pool is closed", next_hop=self._route.next_hops[0])
        options = await self._options()
        loop = asyncio.get_running_loop()
        now = loop.time()
        failure = ConnectionFailed("connect", f"route {self._route.name} has no next hop")
        next_hops = (hop for hop in self._route.next_hops if hop not in given_up)
        for next_hop in sorted(next_hops, key=lambda hop: self._avoid_until.get(hop, 0.0) > now):
            started = loop.time()
            try:
                client = await SmtpClient.connect(next_hop, options)
            except ConnectionFailed as failed:
                _log.info("next_hop.failed", route=self._route.name, host=next_hop.host, stage=failed.stage, reason=failed.reason)
                failure = failed
                if loop.time() - started > _SLOW_FAILURE_S:
                    self._avoid_until[next_hop] = loop.time() + _AVOID_S
            else:
                self._avoid_until.pop(next_hop, None)
                return client
        raise failure

    # -- places and idle connections; nothing below awaits but `_take_place`

    async def _take_place(self) -> None:
        if self._in_use < self._route.max_connections and not self._waiting:
            self._in_use += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._free_place()  # it was given to us in the same moment: pass it on
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def _free_place(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)  # the place changes hands
                return
        self._in_use -= 1

    def _take_idle(self) -> SmtpClient | None:
        while self._idle:
            client, _ = self._idle.pop()
            if client.usable:
                return client
            client.discard()
        return None

    def _give_back(self, client: SmtpClient | None) -> None:
        """The connection to the idle ones, or away; the place to the next in line."""
        if client is None or not client.usable:
            if client is not None:
                client.discard()
            self._free_place()
            return
        limit = self._route.max_messages_per_connection
        if self._is_closed or (limit is not None and client.messages_sent >= limit):
            self._retire(client)
            return
        loop = asyncio.get_running_loop()
        self._idle.append((client, loop.time()))
        if self._reaper is None:
            self._reaper = loop.call_later(self._idle_s, self._reap)
        self._free_place()

    def _retire(self, client: SmtpClient) -> None:
        """QUIT in the background; the place it holds becomes free after that."""
        task = asyncio.get_running_loop().create_task(client.quit(), name=f"pool.{self._route.name}.retire")
        self._closing.add(task)
        task.add_done_callback(self._retired)

    def _retired(self, task: asyncio.Task[None]) -> None:
        self._closing.discard(task)
        self._free_place()

    def _reap(self) -> None:
        """Closes what has been idle for `idle_s`, and comes again when the next one will have been."""
        self._reaper = None
        loop = asyncio.get_running_loop()
        while self._idle and self._idle[0][1] + self._idle_s <= loop.time() and self._in_use < self._route.max_connections:
            client, _ = self._idle.popleft()
            self._in_use += 1
            self._retire(client)
        if self._idle:
            due = max(self._idle[0][1] + self._idle_s, loop.time() + 0.05)
            self._reaper = loop.call_at(due, self._reap)


async def _try(client: SmtpClient, transaction: Transaction, *, is_last: bool) -> Outcomes | None:
    """The outcomes; None when the session came to its end before anything was accepted, and it is not the last that there is."""
    try:
        outcomes = await client.send(transaction)
    except ConnectionLost as lost:
        if not is_last and lost.stage == "mail" and not lost.outcomes:
            return None
        raise
    if not is_last and not client.usable and all(o.stage == "mail" and o.reply.code == 421 for o in outcomes):
        return None
    return outcomes
