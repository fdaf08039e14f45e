"""Verifies the books: walks ledger, streams and retry queue, and names every id about which they disagree.

Safe while mail flows: nothing is changed, and a complaint is made only of what was wrong in every look for the whole of the grace. Bounded in
memory: ids are dealt into shares of some `_SHARE`, and the books are walked once (or as often as suspicions ask for) for each share.
It does not guess: when a book cannot be read it raises, and an id about which the recorder has not read everything yet is counted
as undecided.

Known gaps: a message whose recipients take several routes is looked for as a whole, so that the loss of one job shows when the others
are done. In a stream of more than 100,000 messages some may be passed over while others leave it (the broker's pages move): the next look
or verification has them.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from postern_api.errors import ConflictError
from postern_api.ledger.comparison import STREAMS, Fault, Look, Suspicion, queue_id_of, suspicions
from postern_api.ledger.repository import LedgerRepository
from postern_api.queue.service import QueueService
from postern_core.batch import queue_ids_in
from postern_core.broker.names import RECORDER_CONSUMER
from postern_core.bus import Bus
from postern_core.bus.topology import DISPOSITIONS, EVENTS
from postern_core.control import QueueQuery
from postern_core.disposition import DispositionKind

log: structlog.stdlib.BoundLogger = structlog.get_logger()

MOST_LISTED: Final = 1000
PROOF_GRACE_S: Final = 15.0  # what has looked wrong for so long is wrong
_SHARE: Final = 200_000
_ROWS: Final = 5000  # of the ledger in one statement
_QUEUE_ROWS: Final = 100  # a row may name hundreds of recipients, and a page has to fit into one answer
_RECORDING_S: Final = 10.0  # what the recorder is behind while it works
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 5.0
_BEHIND: Final = timedelta(seconds=10)  # more than services wait until they tell their events


@dataclass(frozen=True, slots=True)
class Finding:
    """One discrepancy. `identity` is a queue id, or a job id."""

    identity: str
    fault: Fault
    detail: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification found. `count` discrepancies, of which the first `MOST_LISTED` are listed; `undecided` ids come on top."""

    findings: list[Finding]
    count: int
    undecided: int
    looked_at: dict[str, int]  # how many of what the last look saw


class Verifier:
    """See the module. `last` is the newest outcome that proves something, of `verified_at`; both None before the first."""

    def __init__(self, bus: Bus, ledger: LedgerRepository, queue: QueueService, *, share: int = _SHARE) -> None:
        self._bus = bus
        self._ledger = ledger
        self._queue = queue
        self._share = share
        self._one_at_a_time = asyncio.Lock()
        self._asked = asyncio.Lock()
        self.last: Verified | None = None
        self.verified_at: datetime | None = None

    async def verify(self, grace_s: float) -> Verified:
        """As somebody asks for it. Takes `grace_s` seconds where something looks wrong, else only as long as the walk.

        TransientError when the broker does not answer, UnavailableError when delivery does not, ConflictError when delivery refuses or
        another verification that somebody asked for is under way."""
        if self._asked.locked():
            raise ConflictError("verifying", "the books are being verified at this moment: wait for that to end")
        async with self._asked:
            return await self.verify_by_itself(grace_s)

    async def verify_by_itself(self, grace_s: float) -> Verified:
        """As `verify`, when nobody asked: waits for one that is under way."""
        async with self._one_at_a_time:
            found = await self._verify(grace_s)
        # what a hasty look complains of may have been on its way; that nothing is wrong, any look proves
        if (found.count and grace_s >= PROOF_GRACE_S) or not (found.count or found.undecided):
            self.last, self.verified_at = found, datetime.now(UTC)
        return found

    async def _verify(self, grace_s: float) -> Verified:
        states = await asyncio.gather(*(self._bus.stream_state(stream) for stream in STREAMS))
        ids = sum(int(state["messages"]) for state in states) + await self._ledger.unfinished_count()
        shares = 1 + ids // self._share
        findings: list[Finding] = []
        count = undecided = 0
        looked_at: dict[str, int] = {}
        for share in range(shares):
            one_share = _Share(share, shares)
            suspects = await self._settle(one_share, grace_s, looked_at)
            listed = sorted(suspects, key=lambda suspect: (suspect[1], suspect[0]))[: MOST_LISTED - len(findings)]
            decided = await self._decided(listed, one_share)
            findings += [Finding(identity, fault, suspects[fault, identity]) for fault, identity in decided]
            rest = len(suspects) - len(listed)  # too many to ask about each: they are as those that are listed
            behind = len(decided) < len(listed)
            count += len(decided) + (0 if behind else rest)
            undecided += len(listed) - len(decided) + (rest if behind else 0)
        log.info("ledger.verified", discrepancies=count, undecided=undecided, shares=shares, **looked_at)
        return Verified(findings, count, undecided, looked_at)

    async def _settle(self, share: _Share, grace_s: float, looked_at: dict[str, int]) -> dict[Suspicion, str]:
        """What was wrong in every look of the grace."""
        loop = asyncio.get_running_loop()
        look = await self._look(share)
        deadline, pause = loop.time() + grace_s, _FIRST_PAUSE_S
        suspects = suspicions(look)
        while suspects and (left := deadline - loop.time()) > 0:
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            look = await self._look(share)
            again = suspicions(look)
            suspects = {suspect: again[suspect] for suspect in suspects if suspect in again}
        for name, number in _numbers(look).items():
            looked_at[name] = looked_at.get(name, 0) + number
        return suspects

    # -- one look; its order matters (`comparison`)

    async def _look(self, share: _Share) -> Look:
        look = Look()
        await self._read_ledger(share, look)
        for stream in STREAMS:
            async for identity in self._identities(stream):
                if share.has(identity):
                    look.streams[stream].add(identity)
        async for job_id in self._queue_rows():
            if share.has(job_id):
                look.rows.add(job_id)
        doubtful = look.on_the_bus() - look.open - look.held - look.released - look.ended_twice.keys()
        look.unknown = doubtful - await self._ledger.known(doubtful)
        return look

    async def _read_ledger(self, share: _Share, look: Look) -> None:
        after = ""
        while rows := await self._ledger.unfinished(after=after, limit=_ROWS):
            after = rows[-1].id
            for row in filter(lambda row: share.has(row.id), rows):
                if row.ended > row.recipients:
                    look.ended_twice[row.id] = f"{row.ended} recipients came to an end, and {row.recipients} were accepted"
                else:
                    look.open.add(row.id)
        behind = ("", -1)
        while standings := await self._ledger.standings(after=behind, limit=_ROWS):
            behind = (standings[-1].queue_id, standings[-1].n)
            for standing in filter(lambda standing: share.has(standing.queue_id), standings):
                if standing.kind == DispositionKind.BADMAIL:
                    look.badmail.add(standing.job_id)
                else:
                    (look.held if standing.kind == DispositionKind.HELD else look.released).add(standing.queue_id)

    async def _identities(self, stream: str) -> AsyncIterator[str]:
        """Queue ids or job ids of every entry of a stream."""
        offset = 0
        while page := await self._bus.subjects(stream, ">", offset=offset):
            for subject in page:
                for identity in queue_ids_in(subject.rpartition(".")[2]):
                    yield identity
            offset += len(page)

    async def _queue_rows(self) -> AsyncIterator[str]:
        after = ""
        while rows := (await self._queue.page(QueueQuery(after=after, limit=_QUEUE_ROWS))).rows:
            after = rows[-1].job_id
            for row in rows:
                yield row.job_id

    # -- is the recorder as far as that?

    async def _decided(self, suspects: Sequence[Suspicion], share: _Share) -> list[Suspicion]:
        """Those that are as wrong once the recorder has read all that was written by now; none while it has not."""
        if not suspects or not await self._is_recorded():
            return []
        again = suspicions(await self._look(share))
        if any(fault is Fault.UNKNOWN for fault, _ in suspects) and await self._events_unrecorded():
            suspects = [suspect for suspect in suspects if suspect[0] is not Fault.UNKNOWN]
        return [suspect for suspect in suspects if suspect in again]

    async def _is_recorded(self) -> bool:
        """Waits, for a moment, until every disposition that there is now has been recorded."""
        loop = asyncio.get_running_loop()
        newest = int((await self._bus.stream_state(DISPOSITIONS))["last_seq"])
        deadline = loop.time() + _RECORDING_S
        while await self._floor() < newest:
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(_FIRST_PAUSE_S)
        return True

    async def _floor(self) -> int:
        """Every disposition up to this sequence number is recorded."""
        return int((await self._bus.consumer_info(DISPOSITIONS, RECORDER_CONSUMER))["ack_floor"]["stream_seq"])

    async def _events_unrecorded(self) -> bool:
        """Whether the newest event on the bus is so much newer than the newest recorded one that some have not been read."""
        state = await self._bus.stream_state(EVENTS)
        if not int(state["messages"]):
            return False
        newest = await self._ledger.newest_event_at()
        return newest is None or moment(str(state["last_ts"])) - newest > _BEHIND


@dataclass(frozen=True, slots=True)
class _Share:
    """One of `shares` parts of all ids. A message and its jobs are in the same."""

    number: int
    shares: int

    def has(self, identity: str) -> bool:
        return self.shares == 1 or zlib.crc32(queue_id_of(identity).encode()) % self.shares == self.number


def _numbers(look: Look) -> dict[str, int]:
    return {
        "open": len(look.open),
        **{stream: len(ids) for stream, ids in look.streams.items()},
        "queue_rows": len(look.rows),
        "held": len(look.held),
        "badmail": len(look.badmail),
    }


def moment(text: str) -> datetime:
    """A time as the broker writes it."""
    # RFC 3339 with up to nine digits of a second, of which datetime takes six
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{fraction[:6].ljust(6, '0')}+00:00")
