"""Who wants a value: of a hundred thousand values that a few criteria want, each takes one number and not a list of its own."""

from __future__ import annotations

from array import array
from typing import Final

from postern_screener.checks.values import Values

_FEW: Final = 4096  # values in a dict: some hundred kilobytes
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
    """Values that are looked up whole → the numbers of the criteria that want them. A few in a dict, which is faster; many packed."""

    __slots__ = ("_few", "_groups", "_many", "_owners")

    def __init__(self) -> None:
        self._few: dict[str, tuple[int, ...]] = {}
        self._groups: dict[tuple[int, ...], tuple[int, ...]] = {
            _NOBODY: _NOBODY
        }  # one tuple for all values that the same ones want
        self._many: Values | None = None  # then all of them are here
        self._owners = Owners()

    def add(self, value: str, criterion: int) -> None:
        if self._many is not None:
            self._owners.add(self._many.add(_packed(value)), criterion)
            return
        group = self._few.get(value, _NOBODY)
        if not group or group[-1] != criterion:
            group = (*group, criterion)
            self._few[value] = self._groups.setdefault(group, group)
            if len(self._few) > _FEW:
                self._pack()

    def get(self, value: str) -> tuple[int, ...]:
        """Nobody for a value that was not added."""
        if self._many is None:
            return self._few.get(value, _NOBODY)
        number = self._many.find(_packed(value))
        return self._owners[number] if number >= 0 else _NOBODY

    def __len__(self) -> int:
        return len(self._few) if self._many is None else len(self._many)

    def _pack(self) -> None:
        many = Values()
        for value, group in self._few.items():
            number = many.add(_packed(value))
            for criterion in group:
                self._owners.add(number, criterion)
        self._many = many
        self._few = {}


def _packed(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")
