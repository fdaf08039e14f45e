"""Named lists: values that several rules share. Each stands once in a section, as text with one value a line: a hundred thousand of them are
then one string, which is decoded in a millisecond and takes no object for each."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

_PIECE: Final = 64 * 1024


class ListKind(enum.StrEnum):
    """What its values are, and so which conditions may name it."""

    PHRASES = "phrases"  # of keyword and header conditions
    EXPRESSIONS = "expressions"  # regular expressions of keyword conditions
    SENDERS = "senders"  # addresses, domains, `*.domain`
    NETWORKS = "networks"  # of client conditions
    USERS = "users"
    EXTENSIONS = "extensions"  # of attachments
    FILE_NAMES = "file-names"


class NamedList(msgspec.Struct, frozen=True, kw_only=True):
    """One list. No value holds a line end."""

    name: str
    kind: ListKind
    text: str = ""  # one value a line

    @property
    def values(self) -> Iterator[str]:
        """In order, without a copy of all of them."""
        start, text = 0, self.text
        while start < len(text):
            end = text.find("\n", min(start + _PIECE, len(text) - 1))
            end = len(text) if end < 0 else end
            yield from text[start:end].split("\n")
            start = end + 1

    @property
    def count(self) -> int:
        return self.text.count("\n") + 1 if self.text else 0

    @classmethod
    def of(cls, name: str, kind: ListKind, values: Iterable[str]) -> NamedList:
        return cls(name=name, kind=kind, text="\n".join(values))


class Lists:
    """All lists of a section, by name."""

    def __init__(self, lists: Iterable[NamedList] = ()) -> None:
        self._by_name = {each.name: each for each in lists}

    def values(self, names: Iterable[str], kind: ListKind, *also: ListKind) -> Iterator[str]:
        """The values of those of these lists that are of `kind`. ValueError for a name that no list has, and for one of a kind that is not
        among `also` either."""
        for name in names:
            found = self._by_name.get(name)
            if found is None:
                raise ValueError(f"there is no list {name!r}")
            if found.kind is kind:
                yield from found.values
            elif found.kind not in also:
                raise ValueError(f"list {name!r} holds {found.kind}, which this condition does not take")
