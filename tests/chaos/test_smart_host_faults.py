"""A smart host that flaps, is half-dead or slow: mail waits for it, other routes do not, and afterwards all of it has arrived."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fixtures.mail import a_message
from fixtures.recording import RecordingSmartHost
from fixtures.relay import Relay
from fixtures.silent_host import Silence, SilentHost
from fixtures.stack import eventually

MESSAGES = 40
ELSEWHERE = "a@elsewhere.example"


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    with Relay(tmp_path_factory.mktemp("relay") / "var") as running:
        running.set_schedule(0.5)
        yield running


@contextmanager
def another_route(relay: Relay) -> Iterator[RecordingSmartHost]:
    """`elsewhere.example` is behind a smart host of its own, which is well."""
    healthy = RecordingSmartHost()
    healthy.start()
    route = {"name": "elsewhere", "smart_hosts": [{"host": "[127.0.0.1]", "port": healthy.port}], "tls": "off"}
    relay.api.post("/routes", json=route).raise_for_status()
    try:
        with relay.domain("elsewhere.example", "elsewhere"):
            relay.wait_live()
            yield healthy
    finally:
        relay.api.delete("/routes/elsewhere").raise_for_status()
        relay.wait_live()
        healthy.close()


@pytest.mark.parametrize("silence", Silence)
def test_a_half_dead_smart_host_holds_up_nobody_else_and_costs_no_mail(relay: Relay, silence: Silence) -> None:
    with another_route(relay) as healthy:
        with relay.smart_host_down(), SilentHost(relay.smart_host.port, silence) as half_dead:
            waiting = [relay.send(a_message(), to=["a@relay.example"]) for _ in range(MESSAGES)]
            half_dead.wait_silent(20)  # all connections that the route may have
            others = [relay.send(a_message(), to=[ELSEWHERE, "b@relay.example"]) for _ in range(5)]
            eventually(lambda: len(healthy.messages) == len(others), "the mail of the other route")
        settle(relay, waiting, {"a@relay.example": "delivered"})
        settle(relay, others, {ELSEWHERE: "delivered", "b@relay.example": "delivered"})
    assert arrivals(relay, [*waiting, *others]) == Counter([*waiting, *others])
    assert relay.wait_balanced()["in_flight"] == 0


def test_a_flapping_smart_host_gets_every_message_and_each_copy_is_explained(relay: Relay) -> None:
    flapping = threading.Event()

    def flap() -> None:
        while flapping.is_set():
            relay.smart_host.stop()
            time.sleep(0.05)
            relay.smart_host.start()
            time.sleep(0.1)

    flapping.set()
    thread = threading.Thread(target=flap, name="flapping")
    thread.start()
    try:
        sent = [relay.send(a_message(body="text " * 20_000), to=["a@relay.example"]) for _ in range(3 * MESSAGES)]
        in_time = relay.wait_dispositions(sent[0], "delivered")
    finally:
        flapping.clear()
        thread.join()
    assert in_time == {"a@relay.example": "delivered"}
    settle(relay, sent, {"a@relay.example": "delivered"})
    assert relay.wait_balanced()["in_flight"] == 0
    arrived, events = arrivals(relay, sent), {queue_id: relay.trace(queue_id)["events"] for queue_id in sent}
    assert set(arrived) == set(sent)
    assert sum(event["kind"] == "deferred" for each in events.values() for event in each) > 0
    # RFC 1047: a second copy comes from a connection that went between the dot and its answer
    in_doubt = Counter({queue_id: sum(event["fields"].get("in_doubt", 0) for event in each) for queue_id, each in events.items()})
    assert arrived <= Counter(sent) + in_doubt


def test_a_slow_smart_host_holds_up_nobody_else(relay: Relay) -> None:
    with another_route(relay) as healthy:
        relay.smart_host.host.slow(0.7)
        try:
            waiting = [relay.send(a_message(), to=["a@relay.example"]) for _ in range(MESSAGES)]
            others = [relay.send(a_message(), to=[ELSEWHERE]) for _ in range(10)]
            eventually(lambda: len(healthy.messages) == len(others), "the mail of the other route")
            assert len(arrivals(relay, waiting)) < MESSAGES
            settle(relay, others, {ELSEWHERE: "delivered"})
        finally:
            relay.calm_smart_host()
        settle(relay, waiting, {"a@relay.example": "delivered"})
    assert arrivals(relay, waiting) == Counter(waiting)
    assert relay.wait_balanced()["in_flight"] == 0


def settle(relay: Relay, queue_ids: list[str], ends: dict[str, str]) -> None:
    """Returns once all of them have ended like this."""
    for queue_id in queue_ids:
        assert relay.dispositions(queue_id) == ends


def arrivals(relay: Relay, queue_ids: list[str]) -> Counter[str]:
    """How often the default route's smart host took each of these messages; NDRs do not count."""
    found = (relay.queue_id_in(mail.data) for mail in relay.smart_host.messages if mail.reverse_path)
    return Counter(queue_id for queue_id in found if queue_id in queue_ids)
