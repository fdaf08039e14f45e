"""Postern as a system under test: an embedded stack that relays everything for relay.example to the sink, with limits that a load would meet off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.mix import CAUGHT_WORD
from fixtures.stack import Stack

_OFF: dict[str, Any] = {
    "max_messages": None,
    "max_session_bytes": None,
    "max_message_bytes": 50 * 1024 * 1024,
    "max_connections": 1000,
    "max_connections_per_ip": 1000,
}


@contextmanager
def running_postern(state: Path, sink_port: int) -> Iterator[Stack]:
    """A stack whose rules are those of a benchmark: what holds `CAUGHT_WORD` is deleted."""
    with Stack(state) as stack:
        api = stack.api
        for rule in api.get("/rules").raise_for_status().json():
            api.delete(f"/rules/{rule['id']}").raise_for_status()
        api.post("/domains", json={"pattern": "relay.example"}).raise_for_status()
        limits = api.get("/limits/anon").raise_for_status().json()
        api.put("/limits/anon", json=limits | {name: value for name, value in _OFF.items() if name in limits}).raise_for_status()
        rule = {"name": "caught", "action": "delete", "condition": {"type": "keyword", "phrases": [CAUGHT_WORD], "scope": "body"}}
        api.post("/rules", json=rule).raise_for_status()
        stack.lead_default_route_to(sink_port)
        yield stack
