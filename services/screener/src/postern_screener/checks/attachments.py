"""Attachment rules: file name, extension, decoded size (OLD-PRODUCT 2.10).

Names and extensions look at every name that a part gives itself; extensions at inner ones too (`a.exe.txt` has txt and exe), so that
neither a double extension nor trailing dots and blanks evade them. Sizes look at what has a name, is marked as an attachment or is not text.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Final

from postern_core.policy import AttachmentCondition, AttachmentMatch, ListKind, Lists
from postern_screener.checks.hit import Hit, at_start
from postern_screener.checks.owners import Table
from postern_screener.filenames import compared_names, extensions, normalise_name
from postern_screener.mime import Part

_KINDS: Final = {AttachmentMatch.NAME: ListKind.FILE_NAMES, AttachmentMatch.EXTENSION: ListKind.EXTENSIONS}


class AttachmentCheck:
    """All attachment rules in three tables."""

    def __init__(self, criteria: Iterable[tuple[int, AttachmentCondition]], lists: Lists | None = None) -> None:
        """`criteria`: number and condition. ValueError for a value that could never match."""
        self._names, self._extensions = Table(), Table()
        self._compound = Table()  # "tar.gz"
        self._longest = 1  # extensions in a compound one
        listed = lists or Lists()
        self._sizes: list[tuple[int, int]] = []  # criterion, larger than bytes
        for criterion, condition in criteria:
            if condition.match is AttachmentMatch.SIZE:
                self._sizes.append((criterion, condition.larger_than_bytes))
                continue
            for value in itertools.chain(condition.values, listed.values(condition.lists, _KINDS[condition.match])):
                self._add(criterion, condition.match, value)

    @property
    def has_any(self) -> bool:
        """Whether there is any rule at all."""
        return bool(self._names or self._extensions or self._compound or self._sizes)

    def _add(self, criterion: int, match: AttachmentMatch, value: str) -> None:
        normalised = normalise_name(value)
        if match is AttachmentMatch.EXTENSION:
            normalised = normalised.removeprefix("*").lstrip(".")
        if not normalised:
            raise ValueError(f"attachment rule: {value!r} is no file {match.value}")
        if match is AttachmentMatch.NAME:
            self._names.add(normalised, criterion)
        elif "." in normalised:
            self._compound.add(normalised, criterion)
            self._longest = max(self._longest, normalised.count(".") + 1)
        else:
            self._extensions.add(normalised, criterion)

    def check(self, part: Part) -> Iterator[Hit]:
        """Hits on one part."""
        if part.names and (self._names or self._extensions or self._compound):
            for name in part.names:
                for compared in compared_names(name):
                    for criterion in self._matching(compared):
                        yield Hit(criterion, part.path, at_start(name))
        if self._sizes and part.is_attachment:
            size = len(part.content())
            for criterion, larger_than in self._sizes:
                if size > larger_than:
                    yield Hit(criterion, part.path, at_start(f"{size} bytes"))

    def _matching(self, name: str) -> Iterator[int]:
        yield from self._names.get(name)
        found = extensions(name)
        for extension in found:
            yield from self._extensions.get(extension)
        if self._compound:
            found = list(reversed(found))
            for first in range(len(found)):
                for last in range(first + 2, min(first + self._longest, len(found)) + 1):
                    yield from self._compound.get(".".join(found[first:last]))
