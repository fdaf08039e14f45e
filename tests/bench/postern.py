"""Postern as a system under test: an embedded stack that relays everything for relay.example to the sink, with limits that a load would meet off."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from bench.measure import Running
from bench.mix import CAUGHT_WORD
from bench.rules import Rules
from fixtures.stack import Stack

_OFF: dict[str, Any] = {
    "max_messages": None,
    "max_session_bytes": None,
    "max_message_bytes": 50 * 1024 * 1024,
    "max_connections": 1000,
    "max_connections_per_ip": 1000,
}


@contextmanager
def running_postern(state: Path, sink_port: int, rules: Rules | None = None, *, options: Sequence[str] = ()) -> Iterator[Stack]:
    """A stack with these rules, each a rule of its own but for the phrases (a hundred a rule); without: only what holds `CAUGHT_WORD` is deleted."""
    with Stack(state, options=options) as stack:
        api = stack.api
        for rule in api.get("/rules").raise_for_status().json():
            api.delete(f"/rules/{rule['id']}").raise_for_status()
        api.post("/domains", json={"pattern": "relay.example"}).raise_for_status()
        limits = api.get("/listeners/anon/limits").raise_for_status().json()
        api.put(
            "/listeners/anon/limits", json=limits | {name: value for name, value in _OFF.items() if name in limits}
        ).raise_for_status()
        for number, condition in enumerate(_conditions(rules)):
            api.post("/rules", json={"name": f"bench {number}", "action": "delete", "condition": condition}).raise_for_status()
        stack.lead_default_route_to(sink_port)
        yield stack


def _conditions(rules: Rules | None) -> Iterator[dict[str, Any]]:
    if rules is None:
        yield {"type": "keyword", "phrases": [CAUGHT_WORD], "scope": "body"}
        return
    for sender in (*rules.addresses, *rules.domains):
        yield {"type": "sender", "patterns": [sender]}
    for extension in rules.extensions:
        yield {"type": "attachment", "match": "extension", "values": [extension]}
    for group in rules.phrase_groups():
        yield {"type": "keyword", "phrases": list(group), "scope": "body"}


@contextmanager
def postern(directory: Path, sink_port: int, rules: Rules) -> Iterator[Running]:
    """The stack with its services told apart; the demo smart host, which idles, counts too."""
    with running_postern(directory / "var", sink_port, rules) as stack:
        services: dict[str, list[int]] = stack.endpoints["processes"]
        broker = json.loads((stack.state / "addresses.json").read_text())["monitor"]
        with urllib.request.urlopen(f"http://{broker}/varz", timeout=10) as answer:
            broker_version = json.load(answer)["version"]
        yield Running(
            stack.address("anon")[1], services, f"Postern {metadata.version('postern-cli')}, nats-server {broker_version}"
        )
