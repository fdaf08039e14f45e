"""What opening something yields: entries, and obstacles where something was not read."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

Content = bytes | bytearray
HEADER_TYPE: Final = "text/rfc822-headers"  # media type (RFC 6522) of an entry that is the header of a message, decoded


class ObstacleKind(enum.StrEnum):
    """Why something was not read. None of them means that it is clean."""

    ENCRYPTED = "encrypted"
    DEPTH = "depth"  # archives inside archives, over the limit
    ENTRIES = "entries"  # more of them than the limit
    BYTES = "bytes"  # expands to more than the limit, or than anything innocent does
    TIME = "time"
    DAMAGED = "damaged"  # broken off, or not as its kind should be
    MULTI_VOLUME = "multi-volume"  # the rest of it is elsewhere
    UNSUPPORTED = "unsupported"  # of a kind or method that is not opened, or not on this machine
    AMBIGUOUS = "ambiguous"  # readers see different things in it: all that was seen was looked at


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Something that was not read (or, AMBIGUOUS, not surely as its reader will)."""

    kind: ObstacleKind
    part: str
    chain: tuple[str, ...]  # the part's name, then those of members down to the one concerned
    reason: str  # for an administrator


@dataclass(frozen=True, slots=True)
class Trouble:
    """An obstacle as an opener sees it, which knows its own archive only. `name`: of the member concerned, "" for the archive."""

    kind: ObstacleKind
    reason: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file in an archive."""

    names: tuple[str, ...]  # all under which some program would unpack it, the likeliest first
    content: Content | None  # None: it was not read, and a Trouble says why
    label: str = ""  # what a chain calls it, where it has no name: in a message the number of the part
    media_type: str = ""  # as it is declared, where somebody declares it: in a message
    charset: str = ""


class OpeningError(Exception):
    """An archive cannot be read any further."""

    def __init__(self, kind: ObstacleKind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class LimitError(OpeningError):
    """Nor can anything else of the message: its budget is spent."""
