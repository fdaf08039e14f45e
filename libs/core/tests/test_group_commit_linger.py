"""When a gate's next commit waits for company, and how long a message waits at most: in virtual time, over a bus that takes as long as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, cast

from hypothesis import example, given
from hypothesis import strategies as st

from fixtures.virtual_time import run_in_virtual_time
from postern_core.batch import MOST_MEMBERS, members_in, queue_ids_in
from postern_core.bus import Bus, GroupCommit
from postern_core.bus.group_commit import _ENOUGH, _LINGER_S, COMMIT_CAP_S
from postern_core.envelope import Client, Envelope, Gate, Recipient
from postern_core.errors import TransientError
from postern_core.ids import accepted_at, new_queue_id

COMMIT_S: Final = 0.002
AT_MOST_S: Final = 0.000_001  # what sums of floats may be off by


class SlowBus:
    """Takes every entry, and notes it: the n-th in the n-th of `seconds`, all others in two milliseconds."""

    def __init__(self, seconds: Sequence[float] = ()) -> None:
        self.subjects: list[str] = []
        self._seconds = iter(seconds)

    async def publish(self, _stream: str, subject: str, *_: Any) -> None:
        self.subjects.append(subject)
        await asyncio.sleep(next(self._seconds, COMMIT_S))

    @property
    def sizes(self) -> list[int]:
        """How many messages went in each entry."""
        return [members_in(subject) for subject in self.subjects]


def an_envelope() -> Envelope:
    queue_id = new_queue_id()
    return Envelope(
        id=queue_id,
        gate=Gate.ANON,
        reverse_path="a@example.org",
        recipients=(Recipient(n=0, address="b@relay.example"),),
        size_bytes=1,
        accepted_at=accepted_at(queue_id),
        client=Client(address="127.0.0.1"),
    )


def over(bus: SlowBus) -> GroupCommit:
    return GroupCommit(cast("Bus", bus), "INTAKE", "intake.anon")


async def sent(commit: GroupCommit, pauses_s: Sequence[float], *, among: int = MOST_MEMBERS) -> list[float]:
    """Sends a message after each pause, whatever became of those before; returns how long each took, in seconds."""
    loop = asyncio.get_running_loop()

    async def one() -> float:
        began = loop.time()
        await commit.publish(an_envelope(), b"x", among=among)
        return loop.time() - began

    sending = []
    for pause_s in pauses_s:
        await asyncio.sleep(pause_s)
        sending.append(asyncio.create_task(one()))
    return await asyncio.gather(*sending)


def test_whoever_comes_after_a_commit_goes_at_once() -> None:
    """One client that sends message after message, or a quiet gate."""
    bus = SlowBus()
    took = run_in_virtual_time(sent(over(bus), [COMMIT_S + 0.0005] * 20))
    assert bus.sizes == [1] * 20
    assert max(took) < COMMIT_S + AT_MOST_S


def test_mail_that_comes_faster_than_it_is_stored_goes_together() -> None:
    """Was: one by one, since each came while the one before it was stored and found nobody else; the broker spent twice as much on them."""
    bus = SlowBus()
    took = run_in_virtual_time(sent(over(bus), [0.0019] * 100))
    assert bus.sizes[0] == 1
    assert sum(bus.sizes) == 100
    assert len(bus.sizes) < 25
    assert max(took) < 2 * COMMIT_S + _LINGER_S + AT_MOST_S


def test_nobody_lingers_for_more_than_enough() -> None:
    bus = SlowBus()
    took = run_in_virtual_time(sent(over(bus), [0.0004] * 200))
    assert set(bus.sizes[1:-1]) == {_ENOUGH}
    assert max(took[:-_ENOUGH]) < _ENOUGH * 0.0004 + COMMIT_S + AT_MOST_S


def test_once_all_sessions_wait_nobody_lingers_for_another() -> None:
    """Two clients that send message after message: each may wait for the other's commit, and neither for a third one."""
    bus = SlowBus()

    async def clients() -> float:
        commit = over(bus)

        async def client(first_s: float) -> None:
            for pause_s in (first_s, *[0.0005] * 19):
                await asyncio.sleep(pause_s)
                await commit.publish(an_envelope(), b"x", among=2)

        await asyncio.gather(client(0), client(0.001))
        return asyncio.get_running_loop().time()

    assert run_in_virtual_time(clients()) < 20 * (2 * COMMIT_S + 0.0005)


def test_mail_that_no_longer_comes_fast_goes_at_once_again() -> None:
    bus = SlowBus()
    took = run_in_virtual_time(sent(over(bus), [0.0005] * 50 + [1.0] * 3))
    assert bus.sizes[-3:] == [1, 1, 1]
    assert max(took[-3:]) < COMMIT_S + AT_MOST_S


@given(st.lists(st.floats(0, 0.02), min_size=1, max_size=60), st.integers(1, 30))
def test_every_message_goes_once_and_waits_for_a_linger_and_two_commits_at_most(pauses_s: list[float], among: int) -> None:
    bus = SlowBus()
    took = run_in_virtual_time(sent(over(bus), pauses_s, among=among))
    ids = [queue_id for subject in bus.subjects for queue_id in queue_ids_in(subject.rpartition(".")[2])]
    assert len(ids) == len(set(ids)) == len(pauses_s)
    assert max(bus.sizes) <= MOST_MEMBERS
    # those that come at once, and are more than go together, wait for a commit each
    behind = len(pauses_s) // MOST_MEMBERS
    assert max(took) < (2 + behind) * COMMIT_S + _LINGER_S + AT_MOST_S


@given(
    st.lists(st.one_of(st.just(0.0), st.floats(0, 10)), min_size=1, max_size=3 * MOST_MEMBERS),
    st.lists(st.one_of(st.just(COMMIT_CAP_S - 0.1), st.floats(0, 100)), min_size=1, max_size=20),
)
@example([0.0] * (3 * MOST_MEMBERS), [COMMIT_CAP_S - 0.1] * 3)
def test_nobody_waits_for_longer_than_twice_the_cap_of_a_commit(pauses_s: list[float], seconds: list[float]) -> None:
    """However slow the broker is and however many wait; whoever was told that the broker is away was not sent."""
    bus = SlowBus(seconds)
    refused: list[str] = []

    async def one(commit: GroupCommit) -> float:
        loop, envelope = asyncio.get_running_loop(), an_envelope()
        began = loop.time()
        try:
            await commit.publish(envelope, b"x")
        except TransientError:
            refused.append(envelope.id)
        except TimeoutError:
            pass
        return loop.time() - began

    async def all_of_them() -> list[float]:
        commit, sending = over(bus), []
        for pause_s in pauses_s:
            await asyncio.sleep(pause_s)
            sending.append(asyncio.create_task(one(commit)))
        return await asyncio.gather(*sending)

    assert max(run_in_virtual_time(all_of_them())) < 2 * COMMIT_CAP_S + _LINGER_S + AT_MOST_S
    assert not set(refused) & {queue_id for subject in bus.subjects for queue_id in queue_ids_in(subject.rpartition(".")[2])}
