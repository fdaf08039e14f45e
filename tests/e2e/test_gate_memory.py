"""What large messages cost a gate: their bytes while they come in, little on top, and nothing when they are stored."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fixtures.relay import Relay
from fixtures.stack import eventually, queue_id_of

MIB = 1024 * 1024
AT_ONCE = 16
MESSAGE = b"Subject: large\r\n\r\n" + (b"x" * 76 + b"\r\n") * (9 * MIB // 78)


def memory_mib(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def test_large_messages_cost_little_more_than_their_bytes_and_leave_nothing_behind(relay: Relay) -> None:
    """Was: five copies of each at once, and 400 MiB kept for good after twenty of them."""

    def send(_: int) -> str:
        with relay.client("anon", timeout=120) as client:
            client.ehlo()
            client.mail("me@sender.example")
            client.rcpt("a@relay.example")
            return queue_id_of(client.data(MESSAGE))

    [gate] = relay.pids("ingress-anon")
    with relay.limits("anon", max_message_bytes=None, max_session_bytes=None):
        relay.wait_live()
        before = memory_mib(gate, "VmRSS")
        with ThreadPoolExecutor(AT_ONCE) as senders:
            sent = list(senders.map(send, range(AT_ONCE)))
        # the message, a buffer that grows by an eighth ahead, and chunks of 1 MiB under way in three places
        assert memory_mib(gate, "VmHWM") < before + AT_ONCE * 9 * 1.25 + 3 * 16 + 16
        eventually(lambda: memory_mib(gate, "VmRSS") < before + 40, "the memory of the messages given back")
    for queue_id in sent:
        assert set(relay.dispositions(queue_id).values()) == {"delivered"}


@pytest.mark.parametrize("gate", ["anon", "auth"])
def test_a_message_of_fifty_megabytes_costs_less_than_twice_its_size(relay: Relay, gate: str) -> None:
    huge = b"Subject: huge\r\n\r\n" + (b"x" * 76 + b"\r\n") * (50 * MIB // 78)
    [pid] = relay.pids(f"ingress-{gate}")
    with relay.limits(gate, max_message_bytes=None, max_session_bytes=None):
        relay.wait_live()
        with relay.client("anon" if gate == "anon" else "auth_tls", timeout=120) as client:
            if gate == "auth":
                user = relay.endpoints["demo_user"]
                client.login(user["name"], user["password"])
            client.ehlo_or_helo_if_needed()
            client.mail("me@sender.example")
            client.rcpt("a@relay.example")
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): the high-water mark starts from what is resident now
            before = memory_mib(pid, "VmRSS")
            queue_id = queue_id_of(client.data(huge))
        assert memory_mib(pid, "VmHWM") - before < 2 * 50
    assert relay.dispositions(queue_id)  # whatever the smart host says of it
