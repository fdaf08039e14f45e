"""What becomes of messages in a consumer's hands: faults, long work, draining, a broker that goes away."""

from __future__ import annotations

import asyncio
import signal
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from nats.aio.subscription import Subscription

from fixtures.broker import TEST_LIMITS, Broker
from postern_core.broker.names import PROVISIONER
from postern_core.bus import Bus, Consumer, Delivered
from postern_core.bus import consumer as consumer_module
from postern_core.bus.consumer import Handler
from postern_core.bus.provision import ensure_route
from postern_core.bus.publishing import NoRoomError
from postern_core.bus.topology import INTAKE, OUTBOUND
from postern_core.errors import TransientError

PATIENCE_S = 20  # well under the ack-wait of 30 s: what comes back later than this was not handed back


class Parties:
    """Who puts mail into INTAKE, and two replicas that take it."""

    def __init__(self, broker: Broker, gate: Bus, screener: Bus, other: Bus) -> None:
        self.broker, self.gate, self.screener, self.other = broker, gate, screener, other

    async def put(self, *names: str) -> None:
        for name in names:
            await self.gate.publish(INTAKE, f"intake.anon.{name}", name.encode(), name)

    async def left(self) -> tuple[int, int]:
        """Messages in the stream, and how many of them are in somebody's hands."""
        provisioner = await self.broker.connect(PROVISIONER)
        messages = (await provisioner.stream_state(INTAKE))["messages"]
        pending = (await provisioner.consumer_info(INTAKE, "screener"))["num_ack_pending"]
        await provisioner.close()
        return messages, pending

    async def take_all(self, count: int) -> list[tuple[str, int]]:
        """`count` messages by the other replica, as (name, tries), each acknowledged."""
        taken: list[tuple[str, int]] = []
        stop = asyncio.Event()

        async def take(delivered: Delivered) -> None:
            taken.append((delivered.data.decode(), delivered.tries))
            await delivered.ack()
            if len(taken) == count:
                stop.set()

        async with asyncio.timeout(PATIENCE_S):
            await Consumer(self.other, INTAKE, "screener", take, concurrency=10).run(stop, 1)
        return sorted(taken)


@pytest.fixture
async def parties(broker: Broker) -> AsyncIterator[Parties]:
    gate, screener, other = [await broker.connect(user) for user in ("ingress-anon", "screener", "screener")]
    yield Parties(broker, gate, screener, other)
    for bus in (gate, screener, other):
        await bus.close()


def screening(bus: Bus, handler: Handler, *, concurrency: int = 4) -> Consumer:
    return Consumer(bus, INTAKE, "screener", handler, concurrency=concurrency)


@pytest.mark.parametrize("fault", [RuntimeError("a fault of ours"), TransientError(451, "4.3.0", "later"), ValueError()])
async def test_a_message_whose_handler_fails_comes_again(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    monkeypatch.setattr(consumer_module, "_FAULT_PAUSE_S", 0.05)
    tries: list[int] = []
    stop = asyncio.Event()

    async def handle(delivered: Delivered) -> None:
        tries.append(delivered.tries)
        if delivered.tries < 3:
            raise fault
        await delivered.ack()
        stop.set()

    await parties.put("a")
    async with asyncio.timeout(PATIENCE_S):
        await screening(parties.screener, handle).run(stop, 1)
    assert tries == [1, 2, 3]
    assert await parties.left() == (0, 0)


async def test_where_there_is_no_room_the_pauses_grow(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    """Was: five seconds each time, so that a backlog in front of a full stream kept a screener at inspecting what it could not hand on."""
    monkeypatch.setattr(consumer_module, "_FULL_PAUSES_S", (0.01, 0.02, 0.03))
    pauses: list[float] = []
    stop, retry = asyncio.Event(), Delivered.retry

    async def watched(delivered: Delivered, delay_s: float) -> None:
        pauses.append(delay_s)
        await retry(delivered, delay_s)

    async def handle(delivered: Delivered) -> None:
        if delivered.tries < 5:
            raise NoRoomError(452, "4.3.1", "full")
        await delivered.ack()
        stop.set()

    monkeypatch.setattr(Delivered, "retry", watched)
    await parties.put("a")
    async with asyncio.timeout(PATIENCE_S):
        await screening(parties.screener, handle).run(stop, 1)
    assert pauses == [0.01, 0.02, 0.03, 0.03]


async def test_no_more_are_in_hand_than_asked_for(parties: Parties) -> None:
    now, most, handled = 0, 0, 0
    stop = asyncio.Event()

    async def handle(delivered: Delivered) -> None:
        nonlocal now, most, handled
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.005)
        await delivered.ack()
        now -= 1
        handled += 1
        if handled == 30:
            stop.set()

    await parties.put(*(f"m{n}" for n in range(30)))
    async with asyncio.timeout(PATIENCE_S):
        await screening(parties.screener, handle, concurrency=3).run(stop, 1)
    assert most == 3


async def test_a_drain_lets_what_is_in_hand_end(parties: Parties) -> None:
    in_hand, finish = asyncio.Event(), asyncio.Event()
    stop = asyncio.Event()

    async def handle(delivered: Delivered) -> None:
        in_hand.set()
        await finish.wait()
        await delivered.ack()

    await parties.put("a")
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(screening(parties.screener, handle).run(stop, PATIENCE_S))
        await in_hand.wait()
        stop.set()
        await asyncio.sleep(0)
        finish.set()
    assert await parties.left() == (0, 0)


async def test_a_drain_hands_back_what_does_not_end_in_time(parties: Parties) -> None:
    """Was: the other replica had to wait for the end of the ack-wait."""
    in_hand, stop, cut_short = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handle(_: Delivered) -> None:
        in_hand.set()
        try:
            await asyncio.Event().wait()
        finally:
            cut_short.set()

    await parties.put("a")
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(screening(parties.screener, handle).run(stop, 0.1))
        await in_hand.wait()
        stop.set()
    assert cut_short.is_set()
    assert await parties.take_all(1) == [("a", 2)]


async def test_what_comes_during_a_drain_goes_to_others_and_is_no_suspect(parties: Parties) -> None:
    """Was: the open pull went on taking messages and giving them back, each time as one more try."""
    in_hand, stop, finish = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handle(delivered: Delivered) -> None:
        in_hand.set()
        await finish.wait()
        await delivered.ack()

    await parties.put("a")
    consumer = screening(parties.screener, handle)
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        draining = tasks.create_task(consumer.run(stop, PATIENCE_S))
        await in_hand.wait()
        stop.set()
        while not consumer._stopping:
            await asyncio.sleep(0)
        await parties.screener.client.flush()
        await parties.screener.client.flush()  # the broker knows that nothing more is wanted
        await parties.put("b", "c", "d")
        assert await parties.take_all(3) == [("b", 1), ("c", 1), ("d", 1)]
        assert not draining.done()
        finish.set()
    assert await parties.left() == (0, 0)


async def test_a_consumer_that_is_cancelled_hands_back_and_ends_as_cancelled(parties: Parties) -> None:
    in_hand = asyncio.Event()

    async def handle(_: Delivered) -> None:
        in_hand.set()
        await asyncio.Event().wait()

    await parties.put("a")
    running = asyncio.create_task(screening(parties.screener, handle).run(asyncio.Event(), 0.1))
    await in_hand.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await parties.take_all(1) == [("a", 2)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_an_idle_consumer_hears_again_after_each_restart_of_the_broker(parties: Parties, number: int) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    stop = asyncio.Event()

    async def handle(delivered: Delivered) -> None:
        await delivered.ack()
        heard.put_nowait(delivered.data.decode())

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(screening(parties.screener, handle).run(stop, 1))
        for name in ("first", "second", "third"):
            await asyncio.to_thread(parties.broker.restart, number)
            while not parties.gate.connected:
                await asyncio.sleep(0.02)
            await parties.put(name)
            assert await heard.get() == name
        stop.set()


async def pulls_open(bus: Bus) -> int:
    """As the broker counts them."""
    return await _counted(bus, "num_waiting")


async def given_out(bus: Bus) -> int:
    """Messages in somebody's hands, as the broker counts them."""
    return await _counted(bus, "num_ack_pending")


async def _counted(bus: Bus, what: str) -> int:
    """-1 while the broker, just restarted, does not say."""
    try:
        return int((await bus.consumer_info(INTAKE, "screener"))[what])
    except TransientError:
        return -1


async def test_a_restart_of_the_broker_is_noticed_by_its_reconnect_and_not_by_silence(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Was: a consumer stayed deaf for three seconds behind each restart."""
    monkeypatch.setattr(consumer_module, "_SILENCE_S", 3600)
    heard: asyncio.Queue[str] = asyncio.Queue()
    stop = asyncio.Event()

    async def handle(delivered: Delivered) -> None:
        await delivered.ack()
        heard.put_nowait(delivered.data.decode())

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(screening(parties.screener, handle).run(stop, 1))
        for name in ("first", "second", "third"):
            await asyncio.to_thread(parties.broker.restart, signal.SIGKILL)
            while not parties.gate.connected:
                await asyncio.sleep(0.02)
            await parties.put(name)
            assert await heard.get() == name
        stop.set()


@pytest.mark.parametrize("restart", [True, False])
async def test_after_a_reconnect_there_is_one_pull_and_no_more_in_hand_than_asked_for(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, restart: bool
) -> None:
    """Also when only the connection broke, and the broker may still have the old pull."""
    monkeypatch.setattr(consumer_module, "_SILENCE_S", 3600)
    most, in_hand = 0, asyncio.Event()
    finish, stop = asyncio.Event(), asyncio.Event()

    async def handle(delivered: Delivered) -> None:
        nonlocal most
        most = max(most, consumer.in_flight)
        in_hand.set()
        await finish.wait()
        await delivered.ack()

    consumer = screening(parties.screener, handle, concurrency=3)
    looking = await parties.broker.connect(PROVISIONER)
    async with asyncio.timeout(PATIENCE_S * 5), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(consumer.run(stop, 1))
        await parties.put("held")
        await in_hand.wait()
        for _ in range(3):
            before = parties.screener.client.stats["reconnects"]
            pulls = consumer._pull
            if restart:
                await asyncio.to_thread(parties.broker.restart, signal.SIGKILL)
            else:
                assert parties.screener.client._transport is not None
                parties.screener.client._transport.close()
            while parties.screener.client.stats["reconnects"] == before or consumer._pull == pulls:
                await asyncio.sleep(0.02)
            while await pulls_open(looking) != 1:
                await asyncio.sleep(0.05)
            while len(parties.screener.client._subs) > 2:  # of requests, and of the pull
                await asyncio.sleep(0.02)
        while not parties.gate.connected:
            await asyncio.sleep(0.02)
        await parties.put(*(f"m{n}" for n in range(11)))
        while consumer.in_flight < 3:
            await asyncio.sleep(0.02)
        finish.set()
        # not when so many were handled: a broker that is slow enough gives the held one out again at the end of its ack-wait
        while (await parties.left())[0]:
            await asyncio.sleep(0.05)
        stop.set()
        await running
    assert most == 3
    await looking.close()
    assert await parties.left() == (0, 0)


async def test_what_the_broker_forgot_to_have_given_out_is_in_hand_once(parties: Parties) -> None:
    """Was: a broker that was killed before it had written down what it gave out, gave it out again, and it took one more place beside itself:
    with each such death, until there was none left and the consumer did nothing."""
    tries: list[int] = []
    repeated: list[bool] = []
    in_hand, finish, stop = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handle(delivered: Delivered) -> None:
        if delivered.data == b"first":
            await delivered.ack()
            return
        tries.append(delivered.tries)
        repeated.append(delivered.repeated)
        in_hand.set()
        await finish.wait()
        repeated.append(delivered.repeated)
        await delivered.ack()

    consumer = screening(parties.screener, handle, concurrency=2)
    looking = await parties.broker.connect(PROVISIONER)
    async with asyncio.timeout(PATIENCE_S * 2), asyncio.TaskGroup() as tasks:
        tasks.create_task(consumer.run(stop, 1))
        await parties.put("first")
        await parties.put("a")
        await in_hand.wait()
        for _ in range(3):
            before = parties.screener.client.stats["reconnects"]
            await asyncio.to_thread(_restart_forgetful, parties.broker)
            while parties.screener.client.stats["reconnects"] == before:
                await asyncio.sleep(0.02)
            while await given_out(looking) != 1:
                await asyncio.sleep(0.05)
        while await pulls_open(looking) != 1:  # there is a place left
            await asyncio.sleep(0.05)
        assert (tries, consumer.in_flight) == ([1], 1)
        finish.set()
        while (await parties.left())[0]:
            await asyncio.sleep(0.05)
        stop.set()
    assert tries == [1]
    assert repeated == [False, True]  # another replica may have had it meanwhile
    await looking.close()


async def test_what_may_have_been_given_out_before_comes_as_repeated(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits when a connection begins may have been in hands that the broker forgot, or that are gone; what comes later was not."""
    monkeypatch.setattr(consumer_module, "_MOST_FORGOTTEN", 3)
    seen: dict[str, tuple[int, bool]] = {}
    stop = asyncio.Event()

    async def handle(delivered: Delivered) -> None:
        seen[delivered.data.decode()] = delivered.tries, delivered.repeated
        await delivered.ack()

    async def handled(count: int) -> None:
        while len(seen) < count:
            await asyncio.sleep(0.02)

    await parties.put("a", "b")
    async with asyncio.timeout(PATIENCE_S * 2), asyncio.TaskGroup() as tasks:
        tasks.create_task(screening(parties.screener, handle).run(stop, 1))
        await handled(2)
        await parties.put("c", "d")
        await handled(4)
        assert seen == {"a": (1, True), "b": (1, True), "c": (1, False), "d": (1, False)}
        seen.clear()
        stop.set()
    await parties.put(*"efghi")
    stop.clear()
    async with asyncio.timeout(PATIENCE_S * 2), asyncio.TaskGroup() as tasks:
        tasks.create_task(screening(parties.screener, handle).run(stop, 1))
        await handled(5)
        stop.set()
    assert [name for name, (_, repeated) in seen.items() if repeated] == ["e", "f", "g"]  # no more than the broker can forget


async def test_another_replica_is_told_that_what_the_broker_forgot_may_have_been_in_hand(parties: Parties) -> None:
    """Was: given out again as if for the first time, it was not looked up by a replica that had not had it in hand."""
    in_hand, stop = asyncio.Event(), asyncio.Event()
    seen: dict[str, tuple[int, bool]] = {}

    async def hold(_: Delivered) -> None:
        in_hand.set()
        await asyncio.Event().wait()

    async def take(delivered: Delivered) -> None:
        seen[delivered.data.decode()] = delivered.tries, delivered.repeated
        await delivered.ack()

    async def taken(*names: str) -> None:
        while not seen.keys() >= set(names):
            await asyncio.sleep(0.02)

    await parties.put("a")
    async with asyncio.timeout(PATIENCE_S * 2), asyncio.TaskGroup() as tasks:
        holding = tasks.create_task(screening(parties.screener, hold, concurrency=1).run(asyncio.Event(), 1))
        await in_hand.wait()
        tasks.create_task(screening(parties.other, take, concurrency=1).run(stop, 1))
        await parties.put("b")
        await taken("b")
        await parties.put("c")
        await taken("c")
        await parties.screener.client.close()  # it is cut off, or its host is gone
        await asyncio.to_thread(_restart_forgetful, parties.broker)
        await taken("a")
        holding.cancel()
        stop.set()
    assert seen == {"a": (1, True), "b": (1, True), "c": (1, False)}


def _restart_forgetful(broker: Broker) -> None:
    """As after a death in the tenth of a second that it takes the broker to write down what a consumer was given."""
    broker.stop(signal.SIGKILL)
    [state] = broker.directory.glob(f"store/jetstream/*/streams/{INTAKE}/obs/screener/o.dat")
    state.unlink()
    broker.restart()


async def test_a_pull_that_falls_silent_is_renewed(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker stays, but the pull is gone from it, as after a change of leader: nobody says so."""
    monkeypatch.setattr(consumer_module, "_SILENCE_S", 0.5)
    heard, stop = asyncio.Event(), asyncio.Event()

    async def handle(delivered: Delivered) -> None:
        await delivered.ack()
        heard.set()
        stop.set()

    consumer = screening(parties.screener, handle)
    consumer._requested = 4  # it believes that a pull is open
    await parties.put("a")
    async with asyncio.timeout(PATIENCE_S):
        await consumer.run(stop, 1)
    assert heard.is_set()


async def test_a_pull_that_could_not_be_drained_has_no_listener_at_the_broker_either(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that dies while it is drained: the reconnect has subscribed to it anew before it is forgotten here."""

    async def lost(_: Subscription) -> None:
        raise TimeoutError

    monkeypatch.setattr(Subscription, "drain", lost)
    consumer = screening(parties.screener, lambda delivered: delivered.ack())
    inbox, subscription = await consumer._open_inbox()
    await parties.screener.client.flush()
    assert inbox in await _subscriptions(parties.broker)
    await consumer._stop_receiving(subscription)
    await parties.screener.client.flush()
    assert inbox not in await _subscriptions(parties.broker)


async def _subscriptions(broker: Broker) -> str:
    def read() -> str:
        with urllib.request.urlopen(f"{broker.monitor_url}/connz?subs=true", timeout=10) as answer:
            return str(answer.read().decode())

    return await asyncio.to_thread(read)


async def test_a_pull_that_is_given_up_while_the_broker_still_has_it_is_not_open_beside_the_new_one(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Was: the old one went on, and more was handed out than fits."""
    monkeypatch.setattr(consumer_module, "_SILENCE_S", 0)  # every beat of the heart comes too late
    taken, stop, finish = 0, asyncio.Event(), asyncio.Event()

    async def handle(delivered: Delivered) -> None:
        nonlocal taken
        taken += 1
        await finish.wait()
        await delivered.ack()

    consumer = screening(parties.screener, handle, concurrency=2)
    looking = await parties.broker.connect(PROVISIONER)
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(consumer.run(stop, PATIENCE_S))
        while consumer._pull < 4:
            await asyncio.sleep(0.05)
        await parties.put(*(f"m{n}" for n in range(8)))
        while taken < 2:
            await asyncio.sleep(0.02)
        assert await pulls_open(looking) == 0
        assert consumer.in_flight == taken == 2
        finish.set()
        while (await parties.left())[0]:
            await asyncio.sleep(0.05)
        stop.set()
    await looking.close()


@pytest.mark.parametrize(("keep_every_s", "tries"), [(0.2, [1]), (None, [1, 2])])
async def test_long_work_is_kept_only_while_it_says_so(broker: Broker, keep_every_s: float | None, tries: list[int]) -> None:
    provisioner, delivery = await broker.connect(PROVISIONER), await broker.connect("delivery")
    await ensure_route(provisioner, "main", replace(TEST_LIMITS, delivery_ack_wait=timedelta(seconds=1)))
    await delivery.publish(OUTBOUND, "outbound.main.a", b"job", "a")
    seen: list[int] = []
    stop, again = asyncio.Event(), asyncio.Event()

    async def handle(delivered: Delivered) -> None:
        seen.append(delivered.tries)
        if delivered.tries > 1:
            again.set()
        elif keep_every_s is None:
            await again.wait()
        else:
            # three times as long as the broker waits: its own clock says when that is over
            while (await provisioner.consumer_info(OUTBOUND, "delivery-main"))["num_redelivered"] == 0:
                await asyncio.sleep(0.1)
                if asyncio.get_running_loop().time() > until:
                    break
        await delivered.ack()
        stop.set()

    until = asyncio.get_running_loop().time() + 3
    consumer = Consumer(delivery, OUTBOUND, "delivery-main", handle, concurrency=2, keep_every_s=keep_every_s)
    async with asyncio.timeout(PATIENCE_S):
        await consumer.run(stop, 5)
    assert seen == tries
    await provisioner.close()
    await delivery.close()


async def test_members_of_batches_count_in_what_is_in_hand(parties: Parties) -> None:
    await parties.put(*("+".join(f"{n}-{k}" for k in range(4)) for n in range(12)))
    most, stop = 0, asyncio.Event()

    async def take(delivered: Delivered) -> None:
        nonlocal most
        most = max(most, consumer.in_flight)
        await asyncio.sleep(0.01)
        await delivered.ack()

    consumer = screening(parties.screener, take, concurrency=8)
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(consumer.run(stop, 5))
        while (await parties.left())[0]:
            await asyncio.sleep(0.02)
        stop.set()
    assert most == 8
    assert consumer.in_flight == 0
