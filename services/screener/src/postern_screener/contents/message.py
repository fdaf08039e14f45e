"""A message that is a file in an archive: its header, its texts and its attachments, as entries like any other.

Read as an attached message is, both ways where it can be read in two. What is attached to it is opened by whoever walks through the archive.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from postern_core.verdict import Unscannable
from postern_screener.contents.budget import Budget
from postern_screener.contents.entry import HEADER_TYPE, Content, Entry, ObstacleKind, Trouble
from postern_screener.defects import Defect
from postern_screener.mime import read_message
from postern_screener.unpacking import unpack

MAX_MESSAGE: Final = (
    16 * 1024 * 1024
)  # octets: a message can be made so that larger ones take many seconds to read, and nothing stops that
_KINDS: Final = {Unscannable.INCOMPLETE: ObstacleKind.MULTI_VOLUME, Unscannable.LIMIT: ObstacleKind.BYTES}


def open_message(content: Content, budget: Budget, *, says_so: bool) -> Iterator[Entry | Trouble]:
    """The header blocks and parts in it. `says_so`: it is called a message; of anything else that only looks like one no defect is told."""
    budget.entry()
    if len(content) > MAX_MESSAGE:
        yield Trouble(ObstacleKind.BYTES, f"message: more than {MAX_MESSAGE} octets")
        return
    raw = bytes(content)
    message = unpack(read_message(raw), len(raw), in_texts=True)
    for header in message.headers:
        written = header.text.encode("utf-8", "replace")
        budget.spend(len(written))
        yield Entry((), written, header.part, HEADER_TYPE, "utf-8")
    for part in message.parts:
        if part.is_message:
            continue  # its header and its parts stand here by themselves
        budget.entry()
        decoded = part.content()
        budget.spend(len(decoded))
        yield Entry(part.names, decoded, part.path, part.media_type, part.charset)
    if says_so:
        yield from map(_trouble, message.defects)


def _trouble(defect: Defect) -> Trouble:
    # where readers may disagree all readings were looked at
    malformed = ObstacleKind.AMBIGUOUS if defect.is_ambiguous else ObstacleKind.DAMAGED
    return Trouble(_KINDS.get(defect.kind, malformed), f"message: part {defect.part}: {defect.reason}")
