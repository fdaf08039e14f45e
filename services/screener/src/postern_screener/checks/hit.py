"""A hit: which criterion holds, and where. What a check finds before anybody decides anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hit:
    """One match. `locate` gives offset (bytes into the decoded part or header block) and the text there; it is asked only when the hit
    is told to somebody, since it may have to walk the whole part again."""

    criterion: int  # its number in the ruleset
    part: str  # part number, "header", "<part>.header" or "envelope"
    locate: Callable[[], tuple[int, str]]


def at_start(text: str) -> Callable[[], tuple[int, str]]:
    """For hits on a property of the whole part (its name, its size) or of the envelope."""
    return lambda: (0, text)
