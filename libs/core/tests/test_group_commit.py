"""Group commit against a real broker: alone at once, together while a publish is under way, and everybody hears the truth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fixtures.broker import Broker
from postern_core.batch import MOST_MEMBERS, MOST_OCTETS, queue_ids_in, unframe_all
from postern_core.bus import Bus, GroupCommit, group_commit
from postern_core.bus.topology import INTAKE
from postern_core.envelope import BodyRef, Client, Envelope, Gate, Recipient
from postern_core.errors import TransientError
from postern_core.ids import accepted_at, new_queue_id

HEAD_OCTETS = 1024  # no head of these is longer


def an_envelope(**more: Any) -> Envelope:
    queue_id = new_queue_id()
    fields: dict[str, Any] = {
        "id": queue_id,
        "gate": Gate.ANON,
        "reverse_path": "a@example.org",
        "recipients": (Recipient(n=0, address="b@relay.example"),),
        "size_bytes": 5,
        "accepted_at": accepted_at(queue_id),
        "client": Client(address="127.0.0.1"),
    }
    return Envelope(**(fields | more))


@pytest.fixture
async def gate(broker: Broker) -> AsyncIterator[Bus]:
    bus = await broker.connect("ingress-anon")
    yield bus
    await bus.close()


@pytest.fixture
async def reader(broker: Broker) -> AsyncIterator[Bus]:
    bus = await broker.connect("provisioner")
    yield bus
    await bus.close()


async def stored(reader: Bus) -> list[list[tuple[str, bytes]]]:
    """Queue ids and bodies of each entry of INTAKE, in order."""
    found, sequence = [], 1
    while (entry := await reader.next_on(INTAKE, ">", sequence)) is not None:
        members = unframe_all(entry.data, Envelope)
        assert queue_ids_in(entry.subject.rpartition(".")[2]) == [envelope.id for envelope, _ in members]
        found.append([(envelope.id, bytes(body)) for envelope, body in members])
        sequence = entry.sequence + 1
    return found


async def test_nobody_waits_for_company(gate: Bus, reader: Bus) -> None:
    commit = GroupCommit(gate, INTAKE, "intake.anon")
    first, second = an_envelope(), an_envelope()
    await commit.publish(first, b"one")
    await commit.publish(second, b"two")
    assert await stored(reader) == [[(first.id, b"one")], [(second.id, b"two")]]


async def test_who_comes_at_the_same_moment_goes_together(gate: Bus, reader: Bus) -> None:
    commit = GroupCommit(gate, INTAKE, "intake.anon")
    envelopes = [an_envelope() for _ in range(MOST_MEMBERS + 3)]
    async with asyncio.timeout(10):
        await asyncio.gather(*(commit.publish(envelope, envelope.id.encode()) for envelope in envelopes))
    expected = [(envelope.id, envelope.id.encode()) for envelope in envelopes]
    assert await stored(reader) == [expected[:MOST_MEMBERS], expected[MOST_MEMBERS:]]


async def test_large_mail_and_mail_whose_body_lies_elsewhere_goes_alone(gate: Bus, reader: Bus) -> None:
    commit = GroupCommit(gate, INTAKE, "intake.anon")
    stowed = an_envelope(body=BodyRef(name="ingress-anon.x", chunks=1, size_bytes=1))
    large, fits, small = (an_envelope() for _ in range(3))
    half = b"x" * (MOST_OCTETS // 2 - HEAD_OCTETS)
    async with asyncio.timeout(10):
        await asyncio.gather(
            commit.publish(fits, half),
            commit.publish(stowed, b""),
            commit.publish(large, b"x" * (MOST_OCTETS // 2)),
            commit.publish(small, half),
        )
    assert sorted(len(members) for members in await stored(reader)) == [1, 1, 2]


async def test_a_batch_has_a_limit_in_octets(gate: Bus, reader: Bus) -> None:
    commit = GroupCommit(gate, INTAKE, "intake.anon")
    async with asyncio.timeout(10):
        await asyncio.gather(*(commit.publish(an_envelope(), b"x" * (MOST_OCTETS // 2 - HEAD_OCTETS)) for _ in range(5)))
    assert [len(members) for members in await stored(reader)] == [2, 2, 1]


async def test_envelopes_count_as_much_as_bodies(gate: Bus, reader: Bus) -> None:
    """Sixteen lists of recipients, each of which fits, make more than the broker takes: that is nobody's fault, and nobody's 451."""
    commit = GroupCommit(gate, INTAKE, "intake.anon")
    to = tuple(Recipient(n=n, address=f"{'x' * 480}{n}@relay.example", notify="FAILURE,DELAY") for n in range(1800))
    envelopes = [an_envelope(recipients=to) for _ in range(MOST_MEMBERS)] + [an_envelope()]
    async with asyncio.timeout(20):
        await asyncio.gather(*(commit.publish(envelope, b"x") for envelope in envelopes))
    assert [len(members) for members in await stored(reader)] == [1] * len(envelopes)


async def test_all_hear_of_a_failure_and_those_who_waited_were_not_stored(
    gate: Bus, reader: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = GroupCommit(gate, INTAKE, "intake.anon")
    going, fails = asyncio.Event(), asyncio.Event()

    async def publish(*_: Any) -> None:
        going.set()
        await fails.wait()
        raise TransientError(452, "4.3.1", "mail system full", reason="no room")

    monkeypatch.setattr(gate, "publish", publish)
    first = asyncio.create_task(commit.publish(an_envelope(), b"one"))
    await going.wait()
    second = asyncio.create_task(commit.publish(an_envelope(), b"two"))
    await asyncio.sleep(0)
    fails.set()
    told = await asyncio.gather(first, second, return_exceptions=True)
    assert [str(error) for error in told if isinstance(error, TransientError)] == [str(told[0])] * 2
    monkeypatch.undo()
    after = an_envelope()
    await commit.publish(after, b"three")
    assert await stored(reader) == [[(after.id, b"three")]]


async def test_who_gives_up_while_he_waits_is_not_stored(gate: Bus, reader: Bus) -> None:
    commit = GroupCommit(gate, INTAKE, "intake.anon")
    envelopes = [an_envelope() for _ in range(3)]
    tasks = [asyncio.create_task(commit.publish(envelope, b"x")) for envelope in envelopes]
    await asyncio.sleep(0)  # all of them wait, and the commit has not begun
    tasks[1].cancel()
    await asyncio.wait(tasks, timeout=10)
    assert tasks[1].cancelled()
    assert await stored(reader) == [[(envelopes[0].id, b"x"), (envelopes[2].id, b"x")]]


async def test_a_fault_that_nobody_foresaw_leaves_nobody_waiting(gate: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = GroupCommit(gate, INTAKE, "intake.anon")

    async def publish(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(gate, "publish", publish)
    async with asyncio.timeout(10):
        told = await asyncio.gather(*(commit.publish(an_envelope(), b"x") for _ in range(2)), return_exceptions=True)
    assert [type(error) for error in told] == [ZeroDivisionError] * 2


@pytest.mark.parametrize(("at_once", "octets"), [(MOST_MEMBERS, 10), (4, 55_000)])
async def test_nobody_waits_for_a_batch_that_is_full(
    gate: Bus, reader: Bus, monkeypatch: pytest.MonkeyPatch, at_once: int, octets: int
) -> None:
    """Was: at the end of its time only, so that mail of 50 KB went five at once every three milliseconds, whatever the broker could take."""
    monkeypatch.setattr(group_commit, "_LINGER_S", 3600)
    commit = GroupCommit(gate, INTAKE, "intake.anon")
    publishing = [asyncio.create_task(commit.publish(an_envelope(), b"x" * octets)) for _ in range(4 * at_once + 1)]
    async with asyncio.timeout(10):
        while sum(task.done() for task in publishing) < 4 * at_once:
            await asyncio.sleep(0.01)
    assert [len(members) for members in await stored(reader)] == [at_once] * 4
    publishing[-1].cancel()  # who waits for company
