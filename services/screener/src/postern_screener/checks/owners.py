"""Who wants a value: of a hundred thousand values that a few criteria want, each takes one number and not a list of its own."""

from __future__ import annotations

from array import array
from typing import Final

_NOBODY: Final[tuple[int, ...]] = ()


class Owners:
    """Value by number → the numbers of those who want it. Values are added in the order of their numbers."""

    __slots__ = ("_groups", "_of", "_places")

    def __init__(self) -> None:
        self._of = array("I")
        self._groups: list[tuple[int, ...]] = [_NOBODY]
        self._places: dict[tuple[int, ...], int] = {_NOBODY: 0}

    def add(self, value: int, owner: int) -> None:
        """`owner` wants the value, which is a new one or has been added before."""
        if value == len(self._of):
            self._of.append(0)
        group = self._groups[self._of[value]]
        if not group or group[-1] != owner:  # it may name a value twice
            group = (*group, owner)
            place = self._places.setdefault(group, len(self._groups))
            if place == len(self._groups):
                self._groups.append(group)
            self._of[value] = place

    def __getitem__(self, value: int) -> tuple[int, ...]:
        return self._groups[self._of[value]]

    def __len__(self) -> int:
        return len(self._of)


class Table:
    """Values that are looked up whole → the numbers of the criteria that want them."""

    __slots__ = ("_groups", "_wanted")

    def __init__(self) -> None:
        self._wanted: dict[str, tuple[int, ...]] = {}
        self._groups: dict[tuple[int, ...], tuple[int, ...]] = {
            _NOBODY: _NOBODY
        }  # one tuple for all values that the same ones want

    def add(self, value: str, criterion: int) -> None:
        group = self._wanted.get(value, _NOBODY)
        if not group or group[-1] != criterion:
            group = (*group, criterion)
            self._wanted[value] = self._groups.setdefault(group, group)

    def get(self, value: str) -> tuple[int, ...]:
        """Nobody for a value that was not added."""
        return self._wanted.get(value, _NOBODY)

    def __len__(self) -> int:
        return len(self._wanted)
