"""The broker's disk fills up while the screener changes, copies, tells of, holds, forwards and archives mail.

What was accepted comes through as it should when there is room again. A nats-server that failed to write once goes on failing until it is
restarted, however much room there is: the api says so, and the restart is what an administrator does.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fixtures.mail import a_message
from fixtures.relay import Relay
from fixtures.small_disk import MIB, filled, small_disk
from fixtures.stack import eventually

ENDS = {"plain": "delivered", "copied": "delivered", "held": "held", "forwarded": "forwarded"}
EACH = 4
TO = "a@relay.example"


def _on(word: str, action: str, **more: Any) -> dict[str, Any]:
    return {
        "name": word,
        "condition": {"type": "keyword", "phrases": [f"zebra {word}"], "scope": "body"},
        "action": action,
        **more,
    }


RULES = (
    {
        "name": "changed",
        "condition": {"type": "message-size", "larger_than_bytes": 1},
        "action": "continue",
        "changes": [
            {"type": "tag-subject", "text": "[checked]"},
            {"type": "add-header", "name": "X-Checked", "value": "yes"},
            {"type": "add-disclaimer", "text": "For you alone."},
        ],
    },
    _on(
        "copied",
        "continue",
        changes=[{"type": "copy-to", "address": "audit@relay.example"}, {"type": "notify", "address": "admin@relay.example"}],
    ),
    _on("held", "hold"),
    _on("forwarded", "forward", forward_to="abuse@relay.example"),
)


@pytest.mark.timeout(240)
def test_what_is_changed_copied_held_and_archived_on_a_full_disk_comes_through_when_there_is_room(tmp_path: Path) -> None:
    state = tmp_path / "var"
    with (
        small_disk(state / "nats", 64 * MIB) as disk,
        Relay(state, environment={"POSTERN_ALARMS_EVERY_S": "0.5"}) as relay,
        relay.settings(archive=True),
        contextlib.ExitStack() as policy,
    ):
        for rule in RULES:
            policy.enter_context(relay.rule(rule))
        with contextlib.ExitStack() as full:
            with relay.paused("screener"):
                sent = {relay.send(_mail(kind, n), to=[TO]): kind for n in range(EACH) for kind in ENDS}
                full.enter_context(filled(disk))
            eventually(lambda: "broker_not_storing" in _alarms(relay), "the alarm")
            ready = relay.api.get(f"{relay.endpoints['api']}/readyz")
            assert (ready.status_code, "the broker stores nothing" in ready.text) == (503, True)
        assert "broker_not_storing" in _alarms(relay)  # room alone does not mend it
        relay.kill("nats-server")
        for queue_id, kind in sent.items():
            assert relay.wait_dispositions(queue_id, ENDS[kind]) == {TO: ENDS[kind]}
        eventually(lambda: "broker_not_storing" not in _alarms(relay), "the alarm to be cleared")
        arrived = eventually(lambda: _arrived(relay), "all of it to arrive")
        assert arrived == {
            (TO, True): 2 * EACH,
            ("audit@relay.example", False): EACH,
            ("admin@relay.example", False): EACH,
            ("abuse@relay.example", True): EACH,
        }
        relay.wait_balanced()


def _mail(kind: str, n: int) -> bytes:
    """The first of each kind has a stored body."""
    return a_message(body=f"zebra {kind}\r\n" + ("x" * 70 + "\r\n") * (9000 if n == 0 else 500))


def _alarms(relay: Relay) -> set[str]:
    return {alarm["kind"] for alarm in relay.api.get("/alarms").raise_for_status().json()["alarms"]}


def _arrived(relay: Relay) -> Counter[tuple[str, bool]] | None:
    """How much came for whom, and whether it was changed; None while there is less than all."""
    found = Counter((mail.recipients[0], b"X-Checked: yes\r\n" in mail.data) for mail in relay.smart_host.messages)
    return found if found.total() >= 5 * EACH else None
