"""Keywords in files in archives: each file that is met on the walk through the attachments, read as an attachment is.

Pure. Its time counts to the walk's, since both are of one thread: a limit stops both.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from postern_screener.attachment_texts import texts_in
from postern_screener.bounded_texts import BoundedTexts
from postern_screener.checks.hit import Hit
from postern_screener.checks.keywords import KeywordCheck, Region
from postern_screener.contents.archives import Member
from postern_screener.contents.entry import Obstacle, ObstacleKind


def search_member(
    member: Member, keywords: KeywordCheck, bounded: BoundedTexts, done: Container[int]
) -> Iterator[Hit | Obstacle]:
    """Hits in what can be read of it; of an attachment itself none, since that is searched with the message. Criteria in `done`, which may grow
    meanwhile, need no more."""
    if not member.is_inside or all(criterion in done for criterion in keywords.in_attachments):
        return
    try:
        for reading in texts_in(member, bounded):
            yield from keywords.check_text(member.part, reading.texts, Region.ATTACHMENT, done, member.chain)
            for limit in reading.limits:
                yield Obstacle(ObstacleKind.BYTES, member.part, member.chain, limit)
    except MemoryError:
        yield Obstacle(ObstacleKind.BYTES, member.part, member.chain, "its text does not fit into the memory that is left")


class Settled(Container[int]):
    """The criteria of which no more places are wanted in the part at hand, where attachments are stripped: each part is to be known."""

    def __init__(self, found: Container[int], places: Mapping[int, Container[str]], part: str) -> None:
        self._found = found
        self._places = places
        self._part = part

    def __contains__(self, criterion: object) -> bool:
        if criterion not in self._found or not isinstance(criterion, int):
            return False
        return criterion not in self._places or self._part in self._places[criterion]
