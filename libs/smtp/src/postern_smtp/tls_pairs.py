"""Certificates and the files they are in: which pairs there are, and what was found in each."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from postern_smtp.certificate_facts import Facts

# a folder of one host's: as certbot names its files, and as Kubernetes does those of a secret
_IN_FOLDER: Final = (("fullchain.pem", "privkey.pem"), ("tls.crt", "tls.key"), ("cert.pem", "key.pem"))
_SUFFIXES: Final = (".crt", ".pem")
MAX_PAIRS: Final = 1000

Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True, order=True)
class Pair:
    """A certificate chain and its key, PEM."""

    certificate: Path
    key: Path

    def stamps(self) -> tuple[Stamp, Stamp] | None:
        """Different once a file was written, or another put in its place. None when one is not there."""
        try:
            return stamp(self.certificate), stamp(self.key)
        except OSError:
            return None


@dataclass(slots=True)
class Loaded:
    """What came of a pair. `context` is the last one that was good, None when there was none yet; `stamps` are of what was tried last, and
    `problem` says why that is not in use, "" when it is."""

    pair: Pair
    facts: Facts = field(default_factory=Facts)  # of what is in use
    context: ssl.SSLContext | None = None
    stamps: tuple[Stamp, Stamp] | None = None
    problem: str = ""


def stamp(file: Path) -> Stamp:
    """OSError when the file is not there."""
    status = file.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def pairs_in(directory: Path) -> list[Pair]:
    """`name.crt` or `name.pem` with `name.key` beside it, and folders of one pair each. Empty when the directory cannot be read."""
    try:
        return sorted(set(_pairs_in(directory)))[:MAX_PAIRS]
    except OSError:
        return []


def _pairs_in(directory: Path) -> Iterator[Pair]:
    for entry in directory.iterdir():
        if entry.suffix in _SUFFIXES and (key := entry.with_suffix(".key")).is_file():
            yield Pair(entry, key)
        elif entry.is_dir() and not entry.name.startswith("."):
            for certificate, key_name in _IN_FOLDER:
                if (entry / certificate).is_file() and (entry / key_name).is_file():
                    yield Pair(entry / certificate, entry / key_name)
                    break


class ByName:
    """Finds the certificate for a host name (RFC 6066 section 3, RFC 6125 section 6.4.3: `*` stands for one label). Where two fit, the exact
    name wins, then the one that is valid for longer."""

    def __init__(self, loaded: Iterable[Loaded]) -> None:
        self._contexts: dict[str, ssl.SSLContext] = {}
        usable = [each for each in loaded if each.context is not None]
        for each in sorted(usable, key=_not_after):
            for name in each.facts.names:
                assert each.context is not None
                self._contexts[name] = each.context

    def find(self, host: str) -> ssl.SSLContext | None:
        name = host.lower().removesuffix(".")
        return self._contexts.get(name) or self._contexts.get(f"*.{name.partition('.')[2]}")


def _not_after(loaded: Loaded) -> float:
    ends: datetime | None = loaded.facts.not_after
    return ends.timestamp() if ends is not None else 0.0
