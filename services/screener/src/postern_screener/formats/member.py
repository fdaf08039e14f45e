"""A file, or a text, that was packed into a part in a way of its own."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Member:
    """One of them."""

    label: str  # what its part number ends in: "uu1", "tnef.body"
    content: bytes
    names: tuple[str, ...] = ()
    media_type: str = ""  # "": by its name
    charset: str = ""


@dataclass(slots=True)
class Unpacked:
    """What was found in one part."""

    members: list[Member] = field(default_factory=list)
    damage: list[str] = field(default_factory=list)  # one sentence each, for an administrator
