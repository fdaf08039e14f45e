"""Text split over parts: clients show inline text parts one below the other, and a phrase may begin in one and end in the next.

Where two inline text parts follow each other, the end of one and the beginning of the other are one more text, joined with nothing and with a blank
between them. As long as the longest phrase on either side, so that the time is linear. Alternatives are not shown together, and not joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from postern_screener.checks.hit import Place
from postern_screener.message_tree import Part
from postern_screener.outside import Multipart
from postern_screener.text import Searchable

_NOTHING: Final[Sequence[bytes]] = (b"", b"")
_JOINTS: Final = (b"", b" ")
_BLANKS: Final = b" \t\r\n\v\f"


class Seams:
    """Is told of the parts of one message in order."""

    def __init__(self, multiparts: Sequence[Multipart], longest_octets: int) -> None:
        """`longest_octets`: of the phrases that are looked for, folded."""
        self._multiparts = multiparts
        self._longest = longest_octets
        self._before: Part | None = None
        self._shown: Sequence[
            Searchable
        ] = ()  # its readings: joined are the first, as it stands, and the last, as a reader sees it
        self._earlier = _NOTHING  # ends of parts before that one, as far as they are shown right above it

    def passed(self, part: Part) -> None:
        """A part that is no text: what follows is not shown right below what came before."""
        if not part.container:
            self._before = None

    def joined(self, part: Part, readings: Sequence[Searchable]) -> tuple[str, list[Searchable]] | None:
        """The texts at the seam between the text part before and this one, and the number of the part in which they begin."""
        if part.container:
            return None
        before, above = self._before, self._shown
        self._before, self._shown = (part if part.is_inline else None), readings
        if before is None or not part.is_inline or self._are_alternatives(before, part):
            self._earlier = _NOTHING
            return None
        above, shown = (above[0], above[-1]), (readings[0], readings[-1])
        kept = self._longest + 3  # the first character may be cut: it has three more octets at most
        ends = [
            (earlier + reading.data.strip(_BLANKS)[-kept:])[-kept:] for earlier, reading in zip(self._earlier, above, strict=True)
        ]
        begins = [reading.data.lstrip(_BLANKS)[:kept] for reading in shown]
        self._earlier = ends
        seams = (
            zip(ends, begins, above, strict=True)
            if ends[0] != ends[1] or begins[0] != begins[1]
            else [(ends[0], begins[0], above[0])]
        )
        return before.path, [_Seam(end, begin, joint, reading) for end, begin, reading in seams for joint in _JOINTS]

    def _are_alternatives(self, one: Part, other: Part) -> bool:
        parent, _, _ = one.path.rpartition(".")
        if parent != other.path.rpartition(".")[0]:
            return False
        return any(multipart.path == parent and "alternative" in multipart.content_type.lower() for multipart in self._multiparts)


class _Seam:
    """The end of one text and the beginning of the next."""

    __slots__ = ("_end_octets", "_reading", "data")

    def __init__(self, end: bytes, begin: bytes, joint: bytes, reading: Searchable) -> None:
        self.data = end + joint + begin
        self._end_octets = len(end)
        self._reading = reading

    def locate(self, start: int, end: int) -> Place:
        """In the part before the seam, up to its end; the length is exact unless the text begins in one before that."""
        kept = len(self._reading.data.rstrip(_BLANKS))
        first = kept - self._end_octets + start
        excerpt = self.data[start:end].decode("utf-8", "replace")
        if not 0 <= first < kept:
            return Place(0, excerpt)
        before = self._reading.locate(first, kept)
        return Place(before.offset, excerpt, before.length)
