"""Relays that point at each other, or at themselves: the mail ends, its sender is told once, and nothing grows."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from fixtures.relay import Relay
from fixtures.stack import eventually

MESSAGE = b"From: x@sender.example\r\nTo: a@loop.example\r\nSubject: round and round\r\n\r\nHello.\r\n"


def accepted(relay: Relay) -> int:
    """How many messages the anonymous gate ever took."""
    gates = relay.api.get("/ledger").raise_for_status().json()["gates"]
    return int(gates.get("anon", {"accepted": 0})["accepted"])


def wait_accepted(relay: Relay, number: int) -> None:
    eventually(lambda: accepted(relay) == number, f"{number} messages in the books")
    relay.wait_balanced()
    assert accepted(relay) == number


def ndrs(*relays: Relay) -> list[bytes]:
    return [mail.data for relay in relays for mail in relay.smart_host.messages if mail.reverse_path == ""]


def test_two_relays_that_point_at_each_other_end_it_with_one_ndr(relay: Relay, tmp_path: Path) -> None:
    with Relay(tmp_path / "var") as other, ExitStack() as undo:
        for one, name, to in ((relay, "one.relay.example", other), (other, "two.relay.example", relay)):
            undo.enter_context(one.settings(hostname=name))
            undo.enter_context(one.domain_at("loop.example", to.address("anon")[1]))
        before = accepted(relay), accepted(other)
        relay.send(MESSAGE, to=["a@loop.example"])
        # the second one delivers to the first for the third time, and is refused
        notice = other.wait_for_arrival(lambda mail: mail.reverse_path == "")
        assert notice.recipients == ("x@sender.example",)
        assert b"554 5.4.6" in notice.data
        wait_accepted(relay, before[0] + 2)
        wait_accepted(other, before[1] + 2)
        assert len(ndrs(relay, other)) == 1


def test_a_relay_that_points_at_itself_ends_it_with_one_ndr(relay: Relay) -> None:
    with relay.settings(hostname="one.relay.example"), relay.domain_at("loop.example", relay.address("anon")[1]):
        before, told = accepted(relay), len(ndrs(relay))
        relay.send(MESSAGE, to=["a@loop.example"])
        relay.wait_for_arrival(lambda mail: mail.reverse_path == "" and b"554 5.4.6" in mail.data)
        wait_accepted(relay, before + 2)
        assert len(ndrs(relay)) - told == 1


def test_mail_that_was_forwarded_back_once_is_no_loop(relay: Relay) -> None:
    with relay.settings(hostname="one.relay.example"):
        relay.send(MESSAGE, to=["first@relay.example"])
        seen = relay.wait_for_arrival(lambda mail: mail.recipients == ("first@relay.example",))
        again = relay.send(seen.data, to=["second@relay.example"])
        assert relay.dispositions(again) == {"second@relay.example": "delivered"}
