"""One attempt at a job: as many SMTP transactions as its open recipients need, and the results.

Promises: what a next hop took is handed to `settled` (which stores it) before the next transaction begins, so that a crash after k of n
recipients repeats none of them but those of the transaction under way. A next hop that takes no more recipients (452 or 552 to RCPT) is
given the rest in a further transaction at once, as long as each brings something across. The attempt ends at its deadline.
Standards: RFC 5321 sections 4.5.3.1.8, 4.5.3.1.10 (recipients); RFC 1047 (an end without an answer).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import structlog

from postern_core.bus import EventSink
from postern_core.counters import CounterName, Counters
from postern_core.envelope import Recipient
from postern_core.events import EventKind
from postern_core.job import Job
from postern_delivery.deadlines import Deadlines
from postern_delivery.outcome import (
    Fate,
    RecipientResult,
    Results,
    of_failed,
    of_lost,
    of_outcomes,
    retry_all,
)
from postern_delivery.pools import RoutePools
from postern_delivery.routing import RoutingTable
from postern_smtp.client import ConnectionFailed, ConnectionLost, Transaction

log: structlog.stdlib.BoundLogger = structlog.get_logger()

Settled = Callable[[Results], Awaitable[None]]


class Attempts:
    """Makes attempts, under the policy in force."""

    def __init__(self, table: Callable[[], RoutingTable], pools: RoutePools, events: EventSink, *, limit_s: float) -> None:
        self._table = table
        self._pools = pools
        self._events = events
        self._limit_s = limit_s
        self._deadlines = Deadlines()
        self.counters = Counters()

    async def run(self, job: Job, recipients: Sequence[Recipient], body: bytes | memoryview, settled: Settled) -> Results:
        """Try `recipients` once; returns the last word about each. `settled` gets the delivered ones as soon as they are known.

        Raises TransientError when the bus is needed and away (before anything was sent in the transaction concerned).
        """
        deadline = asyncio.get_running_loop().time() + self._limit_s
        results: list[RecipientResult] = []
        for route, group in self._table().by_route(job.route, recipients).items():
            results += await self._over(route, group, job, body, settled=settled, deadline=deadline)
        return tuple(results)

    async def _over(
        self, route: str, group: Sequence[Recipient], job: Job, body: bytes | memoryview, *, settled: Settled, deadline: float
    ) -> list[RecipientResult]:
        waiting, done = tuple(group), []
        while waiting:
            limit = self._pools.max_recipients(route)
            part, waiting = waiting[:limit], waiting[limit:]
            results, route_is_up = await self._transaction(route, part, job, body, deadline)
            delivered = tuple([result for result in results if result.fate is Fate.DELIVERED])
            self._tell(job, route, results, delivered=len(delivered))
            if delivered:
                await settled(delivered)
                waiting += tuple([result.recipient for result in results if result.fate is Fate.TOO_MANY])
                done += [result for result in results if result.fate is not Fate.TOO_MANY]
            else:
                done += results
            if not route_is_up and waiting:
                last = results[-1]
                done += retry_all(waiting, last.at, text=last.text, code=last.code, status=last.status, next_hop=last.next_hop)
                waiting = ()
        return done

    async def _transaction(
        self, route: str, part: tuple[Recipient, ...], job: Job, body: bytes | memoryview, deadline: float
    ) -> tuple[Results, bool]:
        """The results of one transaction, and whether the route is worth another one now."""
        envelope = job.envelope
        transaction = Transaction(
            reverse_path=envelope.reverse_path,
            recipients=part,
            body=body,
            body_type=envelope.body_type,
            ret=envelope.ret,
            envid=envelope.envid,
            smtputf8=envelope.smtputf8,
            requiretls=envelope.requiretls,
        )
        try:
            async with asyncio.timeout_at(None) as limit:
                self._deadlines.watch(limit, deadline)
                try:
                    next_hop, outcomes = await self._pools.send(route, transaction)
                finally:
                    self._deadlines.let_go(limit)
        except ConnectionFailed as failed:
            return of_failed(part, failed, datetime.now(UTC)), False
        except ConnectionLost as lost:
            return of_lost(part, lost, datetime.now(UTC)), True
        except TimeoutError:
            text = f"the attempt took longer than {self._limit_s:g} s"
            return retry_all(part, datetime.now(UTC), text=text, in_doubt=True), False
        except asyncio.CancelledError:
            # the end of a drain; where the final dot was out already, these recipients may get the message twice (RFC 1047)
            log.warning("transaction.interrupted", id=job.queue_id, route=route, recipients=len(part))
            raise
        return of_outcomes(outcomes, next_hop, datetime.now(UTC)), True

    def _tell(self, job: Job, route: str, results: Results, *, delivered: int) -> None:
        if delivered:
            self.counters.add(CounterName.SENT_MESSAGES, route)
            self.counters.add(CounterName.SENT_BYTES, route, job.envelope.size_bytes)
        bounced = doubted = 0
        telling = results[0]
        if delivered < len(results):
            bounced = sum(result.fate is Fate.BOUNCE for result in results)
            doubted = sum(result.in_doubt for result in results)
            telling = next(result for result in results if result.fate is not Fate.DELIVERED)
        self._events.tell(
            job.queue_id,
            EventKind.ATTEMPTED,
            route=route,
            next_hop=telling.next_hop,
            reply=telling.reply[:200],
            recipients=len(results),
            delivered=delivered,
            bounced=bounced,
            deferred=len(results) - delivered - bounced,
            in_doubt=doubted,
        )
        if doubted:
            # RFC 1047: these recipients may get the message twice; whoever explains a second copy looks for this line
            log.warning(
                "transaction.left_in_doubt",
                id=job.queue_id,
                route=route,
                next_hop=telling.next_hop,
                recipients=doubted,
                reason=telling.text,
            )
