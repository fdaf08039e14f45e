"""Phrases in shards of about ten thousand, each a hyperscan database of plain literals, shared by all rulesets of the process that have the same.

A revision that changes one rule, or one line of a long list, so takes over what the revision before has compiled: neither time nor memory goes into
the rest again. For that, where a shard ends depends on the phrases around and not on how many stand before. A shard lives as long as a ruleset
that uses it.
hyperscan releases the interpreter lock while it compiles.
"""

from __future__ import annotations

import hashlib
import time
import weakref
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import hyperscan

from postern_core.heap import give_back

# the time and the memory to compile a database grow faster than its size; and many of them are slower to search than few
_LEAST: Final = 8192
_MOST: Final = 10_240
_ENDS_ONE_OF: Final = 1024  # behind the least, any phrase is the last with this probability
# hyperscan's binding (0.9) never lets go of the numbers that it is given: the same ones each time, else each revision leaves a hundred thousand
_NUMBERS: Final = tuple(range(_MOST))


class Shard:
    """Some phrases, folded, with single blanks; compiled."""

    __slots__ = ("__weakref__", "_ends", "_text", "compiled_in_s", "database")

    def __init__(self, phrases: Sequence[bytes]) -> None:
        """ValueError when the compiler refuses them."""
        self._text = b"".join(phrases)
        self._ends = array("I", _running(map(len, phrases)))
        started = time.perf_counter()
        self.database = _database(phrases)
        self.compiled_in_s = time.perf_counter() - started

    def __getitem__(self, number: int) -> bytes:
        return self._text[self._ends[number - 1] if number else 0 : self._ends[number]]

    def __len__(self) -> int:
        return len(self._ends)


_in_use: Final[weakref.WeakValueDictionary[bytes, Shard]] = weakref.WeakValueDictionary()


def shards(phrases: Iterable[bytes]) -> Iterator[Shard]:
    """All of them, in order. ValueError when the compiler refuses one."""
    gathered: list[bytes] = []
    for phrase in phrases:
        gathered.append(phrase)
        if len(gathered) >= _MOST or (len(gathered) >= _LEAST and not zlib.crc32(phrase) % _ENDS_ONE_OF):
            yield _shard(gathered)
            gathered = []
    if gathered:
        yield _shard(gathered)


def _shard(phrases: Sequence[bytes]) -> Shard:
    # no phrase holds a line feed
    key = hashlib.blake2b(b"\n".join(phrases), digest_size=32).digest()
    shard = _in_use.get(key)
    if shard is None:
        large = len(phrases) >= _LEAST
        if large:
            give_back()  # what is free, else it stands beside what the compiler takes
        shard = Shard(phrases)
        if large:
            give_back()  # what the compiler took, some 30 MB
        shard = _in_use.setdefault(key, shard)
    return shard


def _running(lengths: Iterable[int]) -> Iterator[int]:
    end = 0
    for length in lengths:
        end += length
        yield end


def literal(text: bytes) -> bytes:
    """`text` as an expression that means these bytes and nothing else."""
    return b"".join(b"\\x%02x" % byte for byte in text)


def _database(phrases: Sequence[bytes]) -> hyperscan.Database:
    """A database that reports these phrases by their places."""
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    try:
        database.compile(
            expressions=[literal(phrase) for phrase in phrases],
            ids=_NUMBERS[: len(phrases)],
            elements=len(phrases),
            # one report a phrase and scan: texts full of one phrase cost no more than others
            flags=[hyperscan.HS_FLAG_SINGLEMATCH] * len(phrases),
        )
    except hyperscan.error as error:
        raise ValueError(f"phrases do not compile: {error}") from error
    return database
