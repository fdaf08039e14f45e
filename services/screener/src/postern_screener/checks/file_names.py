"""Conditions on file names, compiled: whole names, wildcards, extensions, names that deceive. For attachments and for what lies in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from postern_core.file_names import compared_names, compared_value
from postern_core.policy import AttachmentCondition, AttachmentMatch, ListKind, Lists
from postern_screener.checks.owners import Table
from postern_screener.contents.deceptive import deception
from postern_screener.filenames import extensions

_MOST_CHARACTERS: Final = 4096  # of a name that wildcards are compared with
NAME_MATCHES: Final = frozenset(
    {AttachmentMatch.NAME, AttachmentMatch.WILDCARD, AttachmentMatch.EXTENSION, AttachmentMatch.DECEPTIVE_NAME}
)

_LISTED: Final = {AttachmentMatch.NAME: ListKind.FILE_NAMES, AttachmentMatch.EXTENSION: ListKind.EXTENSIONS}


class NameTables:
    """All conditions on names in a few tables."""

    def __init__(self) -> None:
        self._names = Table()
        self._extensions = Table()
        self._compound: dict[str, list[int]] = {}  # "tar.gz"
        self._wildcards: dict[str, list[int]] = {}
        self._least: dict[str, str] = {}  # wildcard → its longest stretch of letters: most names do not have it
        self._deceptive: list[int] = []

    def __bool__(self) -> bool:
        return bool(self._names or self._extensions or self._compound or self._wildcards or self._deceptive)

    def add(self, criterion: int, match: AttachmentMatch, values: Iterable[str]) -> None:
        """ValueError for a value that could never match."""
        if match is AttachmentMatch.DECEPTIVE_NAME:
            self._deceptive.append(criterion)
        for value in values:
            normalised = compared_value(match, value)
            if match is AttachmentMatch.WILDCARD:
                self._wildcards.setdefault(normalised, []).append(criterion)
                self._least[normalised] = max(re.split(r"[*?]", normalised), key=len)
            elif match is AttachmentMatch.NAME:
                self._names.add(normalised, criterion)
            elif "." in normalised:
                self._compound.setdefault(f".{normalised}.", []).append(criterion)
            else:
                self._extensions.add(normalised, criterion)

    def matching(self, name: str) -> Iterator[int]:
        """The criteria that a name, as written, meets; some twice."""
        for compared in compared_names(name):
            yield from self._names.get(compared)
            found = extensions(compared)
            for extension in found:
                yield from self._extensions.get(extension)
            if self._compound:
                chain = "." + ".".join(reversed(found)) + "."
                for value, criteria in self._compound.items():
                    if value in chain:
                        yield from criteria
            if self._least:
                begun = compared[:_MOST_CHARACTERS]
                for pattern, least in self._least.items():
                    if least in begun and matches_wildcard(pattern, begun):
                        yield from self._wildcards[pattern]
        if self._deceptive and deception(name):
            yield from self._deceptive


def names_of(condition: AttachmentCondition, lists: Lists) -> Iterator[str]:
    """Its own values and those of the lists that it names. ValueError for a list that is not there."""
    yield from condition.values
    if (kind := _LISTED.get(condition.match)) is not None:
        yield from lists.values(condition.lists, kind)


def matches_wildcard(pattern: str, name: str) -> bool:
    """Whether the whole of `name` is like `pattern`. In time of their product at most: each piece between stars is taken where it comes first."""
    first, *rest = pattern.split("*")
    if not rest:
        return len(first) == len(name) and _like(first, name, 0)
    last = rest.pop()
    if len(first) + len(last) > len(name) or not _like(first, name, 0) or not _like(last, name, len(name) - len(last)):
        return False
    at, end = len(first), len(name) - len(last)
    for piece in rest:
        at = _place(piece, name, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


def _place(piece: str, name: str, at: int, end: int) -> int:
    """The first place from `at` where `piece` stands before `end`; -1 for none."""
    if "?" not in piece:
        return name.find(piece, at, end)
    return next((k for k in range(at, end - len(piece) + 1) if _like(piece, name, k)), -1)


def _like(piece: str, name: str, at: int) -> bool:
    if "?" not in piece:
        return name.startswith(piece, at)
    return len(name) - at >= len(piece) and all(mark in ("?", name[at + k]) for k, mark in enumerate(piece))
