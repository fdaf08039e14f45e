"""The rules of a benchmark, the same for every system that screens: 1,000 keyword patterns, 50 attachment and 200 sender rules.

None of them matches a message of the mixes but the one keyword that is there to be caught: a system does all of the work for nearly all mail.
Each system's own file turns them into that system's configuration.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from bench.mix import CAUGHT_WORD

_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
_EXTENSIONS = (
    "ade adp app asp bas bat cer chm cmd com cpl crt csh exe fxp gadget hlp hta inf ins isp its js jse ksh lnk mad maf mda mdb "
    "mde mdt msc msi msp mst ops pcd pif prf prg reg scf scr sct shb shs vbe vbs wsf"
)


@dataclass(frozen=True, slots=True)
class Rules:
    """What to catch. Phrases are found in text, caseless; a sender is an address or a domain."""

    phrases: tuple[str, ...]
    extensions: tuple[str, ...]
    addresses: tuple[str, ...]
    domains: tuple[str, ...]

    def phrase_groups(self, size: int = 100) -> list[tuple[str, ...]]:
        """The phrases in groups, for systems that are faster with alternatives in one pattern than with a pattern for each."""
        return [self.phrases[start : start + size] for start in range(0, len(self.phrases), size)]


def rules(*, seed: int = 1) -> Rules:
    """The rules, the same for the same seed. Phrases are of two made-up words: letters and a blank, nothing to escape in a pattern."""
    source = random.Random(f"{seed}/rules")
    words = _words(source, 2 * 999 + 2 * 100 + 100)
    phrases = [f"{next(words)} {next(words)}" for _ in range(999)]
    addresses = [f"{next(words)}@{next(words)}.example" for _ in range(100)]
    domains = [f"{next(words)}.example" for _ in range(100)]
    return Rules((*phrases, CAUGHT_WORD), tuple(_EXTENSIONS.split()), tuple(addresses), tuple(domains))


def phrases(source: random.Random, count: int) -> Iterator[str]:
    """So many phrases of two made-up words."""
    words = _words(source, 2 * count)
    return (f"{word} {next(words)}" for word in words)


def _words(source: random.Random, count: int) -> Iterator[str]:
    """So many words, no two alike."""
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(source.choices(_SYLLABLES, k=4))] = None
    return iter(found)
