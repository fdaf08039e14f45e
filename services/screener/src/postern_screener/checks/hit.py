"""A hit: which criterion holds, and where. What a check finds before anybody decides anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Place(NamedTuple):
    """Where a match is: bytes into the decoded part or header block, or into the member of an archive that the chain leads to, and the text there as the message has it.

    A length of 0 is for what is true of the whole."""

    offset: int
    excerpt: str
    length: int = 0


Locate = Callable[[], Place | tuple[int, str]]  # offset and excerpt alone: of the whole


@dataclass(frozen=True, slots=True)
class Hit:
    """One match. `locate` is asked only when the hit is told to somebody, since it may have to walk the whole part again."""

    criterion: int  # its number in the ruleset
    part: str  # part number, "header", "<part>.header" or "envelope"
    locate: Locate
    chain: tuple[str, ...] = ()  # inside an archive: names as written, from the part's own down to that of the place
    value: int = 0  # which of the criterion's values it was, for those who count different ones

    def place(self) -> Place:
        """Where it is."""
        found = self.locate()
        return found if isinstance(found, Place) else Place(*found)


def at_start(text: str) -> Locate:
    """For hits on a property of the whole part (its name, its size) or of the envelope."""
    return lambda: Place(0, text)
