"""Kept connections of one route: opened when needed, used again, closed when idle or used up.

Promises: at most `route.max_connections` connections stand at once, over all next hops, those that are being closed included;
a connection carries at most `max_messages_per_connection` transactions; a transaction has at most `max_recipients` recipients.
A kept connection that turns out dead or tired (the peer closed it, or answers 421 to MAIL) is replaced without anybody noticing:
nothing of the transaction had been accepted. A new one that ends in the same way counts as a next hop that grants no session. In which
order next hops are tried, and for how long one is waited for while another is left: next_hop_health.py.
A message that demands more than others (client_demands.py) goes over a session that has it: next hops that lack it are passed over for it, and when
all of them lack it, the last one's answer counts; when one could not be asked, nothing is decided yet.
Whoever is cancelled while it waits, connects or sends leaves neither a connection nor a place behind.
Standards: RFC 5321 sections 3.8 (421), 4.5.3.1.8 and 4.5.3.1.10 (recipients), 5.1 (trying several hosts).
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec
import structlog

from postern_core.policy import NextHop, Route, RouteTls
from postern_smtp.client import (
    ClientOptions,
    ConnectionFailed,
    ConnectionLost,
    RecipientOutcome,
    SmtpClient,
    Transaction,
)
from postern_smtp.client_demands import is_short_of_tls, without_tls
from postern_smtp.next_hop_health import PATIENCE_S, NextHopHealth, Search

_SLOW_FAILURE_S = 1.0  # a connection attempt that fails later than this made mail wait
_log = structlog.get_logger()

Outcomes = tuple[RecipientOutcome, ...]


class ConnectionPool:
    """The connections of one route. `options` is asked at each new connection, so that a changed password counts at once."""

    def __init__(
        self,
        route: Route,
        options: Callable[[], Awaitable[ClientOptions]],
        *,
        idle_s: float = 5.0,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._route = route
        self._options = options
        self._idle_s = idle_s
        self._idle: deque[tuple[SmtpClient, float]] = deque()  # with the loop's time since when; newest last
        self._in_use = 0  # places taken: connecting, sending or closing; with the idle ones never over max_connections
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closing: set[asyncio.Task[None]] = set()
        self._reaper: asyncio.TimerHandle | None = None
        self._health = NextHopHealth(route.next_hops, patience_s=patience_s)
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
                next_hop, outcomes = await (self._send_secured(part) if part.requiretls else self._send_over(part))
            except ConnectionFailed as failed:
                if not known:
                    raise
                raise ConnectionLost(failed.stage, failed.reason, known, next_hop=failed.next_hop) from failed
            except ConnectionLost as lost:
                lost.outcomes = known + lost.outcomes
                raise
            known += outcomes
        return next_hop, known

    def try_again(self) -> None:
        """Forget which next hops were silent: somebody wants them tried now."""
        self._health.forget()

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
        return [msgspec.structs.replace(transaction, recipients=recipients[start : start + limit]) for start in starts]

    async def _send_secured(self, transaction: Transaction) -> tuple[NextHop, Outcomes]:
        """As REQUIRETLS asks for it."""
        try:
            next_hop, outcomes = await self._send_over(transaction)
        except ConnectionFailed as failed:
            if not failed.insecure and (transaction.reverse_path or failed.stage != "starttls"):
                raise
            next_hop, outcomes = failed.next_hop or self._route.next_hops[0], without_tls(transaction)
        if transaction.reverse_path or not is_short_of_tls(outcomes):
            return next_hop, outcomes
        # RFC 8689 section 5: what has a null reverse-path is not lost for want of REQUIRETLS
        return await self._send_over(msgspec.structs.replace(transaction, requiretls=False))

    async def _send_over(self, transaction: Transaction) -> tuple[NextHop, Outcomes]:
        await self._take_place()
        client: SmtpClient | None = None
        search: Search | None = None
        try:
            while True:
                client = self._take_idle(transaction)
                if client is not None:
                    outcomes = await self._try(client, transaction, None)
                else:
                    search = search or Search(self._health)
                    client = await self._connect(search, transaction)
                    if client.lack(transaction) is not None:
                        if not search.is_last:
                            await client.quit()
                            continue
                        if search.missed is not None:
                            raise search.missed
                    outcomes = await self._try(client, transaction, search)
                if outcomes is not None:
                    return client.next_hop, outcomes
        finally:
            self._give_back(client)

    async def _connect(self, search: Search, transaction: Transaction) -> SmtpClient:
        """A new session with the first next hop that grants one. ConnectionFailed of the last one otherwise."""
        if self._is_closed:
            raise ConnectionFailed("connect", "the pool is closed", next_hop=self._route.next_hops[0])
        options = await self._options()
        if transaction.requiretls:
            options = dataclasses.replace(options, tls=RouteTls.VERIFY)
        loop = asyncio.get_running_loop()
        failure = ConnectionFailed("connect", f"route {self._route.name} has no next hop")
        while (next_hop := search.take(started := loop.time())) is not None:
            try:
                return await self._open(next_hop, options, search)
            except ConnectionFailed as failed:
                _log.info("next_hop.failed", route=self._route.name, host=next_hop.host, stage=failed.stage, reason=failed.reason)
                failure = failed
                if not (transaction.requiretls and failed.insecure):
                    search.missed = failed
                if loop.time() - started > _SLOW_FAILURE_S:
                    self._was_silent(next_hop)
        raise search.missed or failure

    async def _open(self, next_hop: NextHop, options: ClientOptions, search: Search) -> SmtpClient:
        patience_s = search.patience_s
        try:
            with self._health.waiting(next_hop, asyncio.get_running_loop().time()):
                async with asyncio.timeout(patience_s):
                    return await SmtpClient.connect(next_hop, options)
        except TimeoutError as error:
            self._was_silent(next_hop)
            search.hurried(next_hop)
            raise ConnectionFailed("connect", f"no session within {patience_s:g} s", next_hop=next_hop) from error

    async def _try(self, client: SmtpClient, transaction: Transaction, search: Search | None) -> Outcomes | None:
        """The outcomes; None when the session came to its end before anything was accepted, and another one may be had.

        `search` is that for a new connection, None for one that was kept.
        """
        is_last, patience_s = (search.is_last, search.patience_s) if search is not None else (False, self._health.patience_s)
        try:
            outcomes = await client.send(transaction, mail_timeout_s=patience_s)
        except ConnectionLost as lost:
            if lost.silent:
                self._was_silent(client.next_hop)
                self._drop_idle(client.next_hop)
            hurried = lost.silent and patience_s is not None and patience_s < client.reply_timeout_s
            if lost.stage != "mail" or lost.outcomes or (is_last and not hurried):
                raise
            if search is not None:
                search.missed = ConnectionFailed("connect", lost.reason, next_hop=client.next_hop)
                if hurried:
                    search.hurried(client.next_hop)
            return None
        if search is not None:  # a kept connection says nothing about new ones
            self._health.answered(client.next_hop)
        if not is_last and not client.usable and all(o.stage == "mail" and o.reply.code == 421 for o in outcomes):
            if search is not None:
                search.missed = ConnectionFailed("connect", outcomes[0].reply.text, outcomes[0].reply, client.next_hop)
            return None
        return outcomes

    def _was_silent(self, next_hop: NextHop) -> None:
        avoided_s = self._health.silent(next_hop, asyncio.get_running_loop().time())
        if avoided_s and len(self._route.next_hops) > 1:
            _log.warning("next_hop.avoided", route=self._route.name, host=next_hop.host, port=next_hop.port, seconds=avoided_s)

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

    def _take_idle(self, transaction: Transaction) -> SmtpClient | None:
        """The newest one that is alive and can carry it."""
        lacking: list[tuple[SmtpClient, float]] = []
        found: SmtpClient | None = None
        while self._idle and found is None:
            client, since = self._idle.pop()
            if not client.usable:
                client.discard()
            elif client.lack(transaction) is not None:
                lacking.append((client, since))
            else:
                found = client
        self._idle.extend(reversed(lacking))
        if found is None and self._idle and self._in_use + len(self._idle) > self._route.max_connections:
            self._idle.popleft()[0].discard()  # room for the new one
        return found

    def _drop_idle(self, next_hop: NextHop) -> None:
        """What is kept of a next hop that fell silent would only make the next one wait."""
        kept = [(client, since) for client, since in self._idle if client.next_hop != next_hop]
        for client, _ in self._idle:
            if client.next_hop == next_hop:
                client.discard()
        self._idle = deque(kept)

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
