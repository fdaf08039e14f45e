"""An attachment and everything that lies in it, at any depth, within the budget of its message.

Pure but for the child processes of `opener.py`. Whatever is not read is an obstacle; nothing that is in an archive raises anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from postern_core.policy.file_types import FILE_TYPES, Family
from postern_screener.contents import office
from postern_screener.contents.budget import Budget
from postern_screener.contents.compressed import COMPRESSED, open_compressed
from postern_screener.contents.embedded import embedded_at
from postern_screener.contents.entry import (
    HEADER_TYPE,
    Content,
    Entry,
    LimitError,
    Obstacle,
    ObstacleKind,
    OpeningError,
    Trouble,
)
from postern_screener.contents.message import open_message
from postern_screener.contents.opener import OPENED, SINGLE, open_with_library
from postern_screener.contents.real_type import real_types
from postern_screener.contents.tar_archive import open_tar
from postern_screener.contents.zip_archive import open_zip
from postern_screener.unpacking import is_named_as_message

_IN_ONE_STREAM: Final = COMPRESSED | SINGLE  # archives of one file that has no name of its own
MOST_OBSTACLES: Final = 100  # told of one part


@dataclass(frozen=True, slots=True)
class Member:
    """The attachment itself, or a file in it."""

    part: str
    chain: tuple[str, ...]  # the part's name, then the names of those that lie in each other down to this one
    names: tuple[str, ...]  # all under which some program would show or unpack it
    content: Content | None  # None: it was not read, and an obstacle says why
    types: tuple[str, ...]  # what it is (`real_types`), the likeliest first
    nesting: int  # archives that it lies in; a compressed stream and a document count as none
    package: str  # type of the document that it is a part of, "" for none
    in_message: bool = False  # whether it is a part of a message, or its header
    media_type: str = ""  # as its message declares it
    charset: str = ""

    @property
    def archives(self) -> int:
        """How many archives there are down to it, itself included where it is one."""
        return self.nesting + any(_is_container(name) for name in self.types)

    @property
    def is_inside(self) -> bool:
        return len(self.chain) > 1

    @property
    def is_structural(self) -> bool:
        """A part that every such document, or message, has: its name is nobody's choice."""
        if self.in_message:
            return not self.names[0]
        return bool(self.package) and office.is_structural(self.names[0])

    @property
    def says_it_is_a_message(self) -> bool:
        """By its name."""
        return self.content is not None and is_named_as_message(self.names, self.content)

    @property
    def is_message(self) -> bool:
        """Whether it is a file that some client opens as a message. Attachments that are one are parts already, and so are messages in messages."""
        return self.is_inside and not self.in_message and ("mail" in self.types or self.says_it_is_a_message)

    @property
    def has_macros(self) -> bool:
        """Whether it is a document with macros, or that part of one which has them."""
        if self.package and office.is_macro_part(self.names[0]):
            return True
        return self.content is not None and office.is_binary(self.types) and office.has_macros(self.content)


@dataclass(frozen=True, slots=True)
class _Open:
    """An archive that is being read."""

    entries: Iterator[Entry | Trouble]
    chain: tuple[str, ...]
    depth: int
    nesting: int
    package: str
    is_stream: bool
    in_message: bool = False


def _is_container(name: str) -> bool:
    return name in ("jar", "apk") or (FILE_TYPES[name].family is Family.ARCHIVE and name not in _IN_ONE_STREAM)


def holds_more(types: tuple[str, ...]) -> bool:
    """Whether there is anything to open, or to fail to open, in an attachment of these types."""
    return office.is_binary(types) or any(
        FILE_TYPES[name].family is Family.ARCHIVE or FILE_TYPES[name].within == "zip" for name in types
    )


def walk(part: str, names: tuple[str, ...], content: Content, budget: Budget) -> Iterator[Member | Obstacle]:
    """The attachment first, then what lies in it, depth first. `part`: its number; `names`: its own."""
    walking = _Walk(part, budget)
    try:
        yield from walking.run(names, content)
    except LimitError as error:
        yield Obstacle(error.kind, part, walking.chain, error.reason)
    except MemoryError:
        yield Obstacle(ObstacleKind.BYTES, part, walking.chain, "it does not fit into the memory that is left")


class _Walk:
    def __init__(self, part: str, budget: Budget) -> None:
        self._part = part
        self._budget = budget
        self._open: list[_Open] = []
        self._told = 0
        self.chain: tuple[str, ...] = ()  # of what is at hand

    def run(self, names: tuple[str, ...], content: Content) -> Iterator[Member | Obstacle]:
        self.chain = (names[0] if names else "",)
        top = Member(self._part, self.chain, names or ("",), content, real_types(content), 0, "")
        yield top
        yield from self._enter(top, _Open(iter(()), (), 0, 0, "", is_stream=False))
        while self._open:
            current = self._open[-1]
            self.chain = current.chain
            found = self._next(current)
            if found is None:
                self._open.pop()
            elif isinstance(found, Trouble):
                chain = (*current.chain, found.name) if found.name and not current.is_stream else current.chain
                yield from self._obstacle(found.kind, chain, found.reason)
            else:
                member = self._member(found, current)
                self.chain = member.chain
                yield member
                if member.content is not None:
                    yield from self._enter(member, current)

    def _next(self, current: _Open) -> Entry | Trouble | None:
        """The next of what lies in it; None at its end. What its opener did not foresee is damage: it is a hostile file."""
        try:
            return next(current.entries, None)
        except LimitError:
            raise
        except OpeningError as error:
            trouble = Trouble(error.kind, error.reason)
        except MemoryError:
            raise
        except Exception as error:  # the one handler of an archive
            trouble = Trouble(ObstacleKind.DAMAGED, f"it cannot be read: {type(error).__name__}")
        self._open[-1] = replace(current, entries=iter(()))
        return trouble

    def _member(self, entry: Entry, within: _Open) -> Member:
        names = tuple(name for name in entry.names if name) or ("",)
        types = () if entry.content is None or entry.media_type == HEADER_TYPE else real_types(entry.content)
        return Member(
            self._part,
            (*within.chain, names[0] or entry.label),
            names,
            entry.content,
            types,
            within.nesting,
            within.package,
            within.in_message,
            entry.media_type,
            entry.charset,
        )

    def _enter(self, member: Member, within: _Open) -> Iterator[Obstacle]:
        """Open what can be opened of `member`."""
        assert member.content is not None
        # a tar in a gz goes by the name of the gz
        chain = within.chain if within.is_stream else member.chain
        if office.is_binary(member.types) and office.is_encrypted(member.content):
            yield from self._obstacle(ObstacleKind.ENCRYPTED, chain, "an encrypted document")
        if member.package and office.is_encrypted_manifest(member.names[0], member.content):
            yield from self._obstacle(ObstacleKind.ENCRYPTED, within.chain, "an encrypted document")
        kinds = (*member.types, "mail") if member.is_message and "mail" not in member.types else member.types
        for kind in reversed(kinds):
            entries = self._opened(kind, member, self._budget)
            if entries is None:
                if FILE_TYPES[kind].family is Family.ARCHIVE:
                    yield from self._obstacle(ObstacleKind.UNSUPPORTED, chain, f"{kind} is not opened")
                continue
            if within.depth >= self._budget.limits.depth:
                yield from self._obstacle(ObstacleKind.DEPTH, chain, f"archives inside archives over {within.depth} levels deep")
                return
            package = kind if kind in office.DOCUMENT_PACKAGES else ""
            is_stream = kind in _IN_ONE_STREAM
            nesting = within.nesting + _is_container(kind)
            is_message = kind == "mail"
            self._open.append(_Open(entries, chain, within.depth + 1, nesting, package, is_stream, is_message))

    @staticmethod
    def _opened(kind: str, member: Member, budget: Budget) -> Iterator[Entry | Trouble] | None:
        content, name = member.content, member.names[0]
        assert content is not None
        if kind == "zip" or FILE_TYPES[kind].within == "zip":
            return open_zip(content, budget)
        if kind == "tar":
            return open_tar(content, budget)
        if kind in COMPRESSED:
            return open_compressed(kind, content, name, budget)
        if kind == "mail" and member.is_message:
            return open_message(content, budget, says_so=member.says_it_is_a_message)
        if kind in OPENED:
            at = 0 if member.types[0] == kind else embedded_at(kind, content)
            return open_with_library(kind, content[at:] if at else content, name, budget)
        return None

    def _obstacle(self, kind: ObstacleKind, chain: tuple[str, ...], reason: str) -> Iterator[Obstacle]:
        self._told += 1
        if self._told <= MOST_OBSTACLES:
            yield Obstacle(kind, self._part, chain, reason)
