"""Attachment conditions that need a look into the content: real types, archives, encryption, macros (OLD-PRODUCT 2.12).

Looked at only when a rule comes to one of them, in two steps: what the attachments themselves are, and, for conditions that ask, what lies in them. Each
step is taken once for a message and for all conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from postern_core.file_names import compared_names
from postern_core.policy import AttachmentCondition, AttachmentMatch, Lists
from postern_core.policy.file_types import FILE_TYPES, UNKNOWN, Family, types_of
from postern_screener.checks.file_names import NAME_MATCHES, NameTables, names_of
from postern_screener.checks.hit import Hit, at_start
from postern_screener.contents.archives import Member, holds_more, walk
from postern_screener.contents.budget import Budget
from postern_screener.contents.entry import Obstacle, ObstacleKind
from postern_screener.contents.real_type import real_types
from postern_screener.filenames import extensions
from postern_screener.message_tree import Part

_DEEP: Final = frozenset({AttachmentMatch.NESTING, AttachmentMatch.ENCRYPTED, AttachmentMatch.MACRO, AttachmentMatch.UNOPENED})
_BY_EXTENSION: Final = {extension: one.name for one in FILE_TYPES.values() for extension in one.extensions}
_BY_MEDIA_TYPE: Final = {media_type: one.name for one in FILE_TYPES.values() for media_type in one.media_types}
# the same thing by other names: programs open them as what they say, whatever lies in them
_ALSO: Final = {
    # an OOXML document that is encrypted lies in a compound file
    "docx": frozenset({"ooxml", "ole"}),
    "xlsx": frozenset({"ooxml", "ole"}),
    "pptx": frozenset({"ooxml", "ole"}),
    "ooxml": frozenset({"ole"}),
    "doc": frozenset({"rtf", "docx", "ole"}),
    "xls": frozenset({"xlsx", "ole"}),
    "ppt": frozenset({"pptx", "ole"}),
    "msg": frozenset({"ole"}),
    "msi": frozenset({"ole"}),
    "jar": frozenset({"zip"}),
    "apk": frozenset({"zip", "jar"}),
    "epub": frozenset({"zip"}),
    "postscript": frozenset({"pdf"}),
    "xml": frozenset({"html", "svg"}),
    "html": frozenset({"xml", "mail"}),  # .mht is a message
    "pgp": frozenset({"data"}),
}


Search = Callable[[Member], Iterable[Hit | Obstacle]]  # what somebody else wants to know of a member


class ContentCheck:
    """All of these conditions. `surface` and `deep`: numbers of those that each step answers."""

    def __init__(self, criteria: Iterable[tuple[int, AttachmentCondition]], lists: Lists | None = None) -> None:
        """`criteria`: number and condition. ValueError for a value that could never match."""
        self._lists = lists or Lists()
        self._types: dict[str, list[int]] = {}
        self._types_inside: dict[str, list[int]] = {}
        self._names = NameTables()
        self._sizes: list[tuple[int, int]] = []  # criterion, larger than bytes
        self._more_than: dict[AttachmentMatch, list[tuple[int, int]]] = {AttachmentMatch.COUNT: [], AttachmentMatch.NESTING: []}
        self._plain: dict[AttachmentMatch, list[int]] = {match: [] for match in AttachmentMatch}
        self._mismatch_inside: list[int] = []
        surface, deep = set(), set()
        for criterion, condition in criteria:
            self._add(criterion, condition)
            if condition.match in _DEEP or condition.inside:
                deep.add(criterion)
            elif condition.needs_content:
                surface.add(criterion)
        self.surface = frozenset(surface)
        self.deep = frozenset(deep)

    def _add(self, criterion: int, condition: AttachmentCondition) -> None:
        match, inside = condition.match, condition.inside
        if match is AttachmentMatch.REAL_TYPE:
            for value in condition.values:
                for name in types_of(value):
                    self._types.setdefault(name, []).append(criterion)
                    if inside:
                        self._types_inside.setdefault(name, []).append(criterion)
        elif match in self._more_than:
            self._more_than[match].append((criterion, condition.more_than))
        elif match in _DEEP or match is AttachmentMatch.TYPE_MISMATCH:
            self._plain[match].append(criterion)
            if inside and match is AttachmentMatch.TYPE_MISMATCH:
                self._mismatch_inside.append(criterion)
        elif inside and match in NAME_MATCHES:
            self._names.add(criterion, match, names_of(condition, self._lists))
        elif inside and match is AttachmentMatch.SIZE:
            self._sizes.append((criterion, condition.larger_than_bytes))

    def look_at(self, parts: Sequence[Part]) -> list[Hit]:
        """What the attachments themselves are: answers `surface`, and those of `deep` that hold already."""
        attachments = [part for part in parts if part.is_attachment]
        hits: list[Hit] = []
        for criterion, more_than in self._more_than[AttachmentMatch.COUNT]:
            if len(attachments) > more_than:
                hits.append(Hit(criterion, attachments[more_than].path, at_start(f"{len(attachments)} attachments")))
        if not self._types and not self._plain[AttachmentMatch.TYPE_MISMATCH]:
            return hits
        for part in attachments:
            if not part.media_type.startswith("message/"):
                hits += self._of_types(part, real_types(part.content()))
        return hits

    def look_into(self, parts: Sequence[Part], search: Search) -> Iterator[Hit | Obstacle]:
        """What lies in them: answers `deep`. One walk for these conditions and for `search`, so that they share its limits."""
        for part in parts:
            yield from self._of_part(part)
        for found in opened(parts):
            if isinstance(found, Obstacle):
                yield found
                yield from self._of_obstacle(found)
            else:
                yield from self._of_member(found)
                yield from search(found)

    def _of_types(self, part: Part, types: tuple[str, ...]) -> Iterator[Hit]:
        for name in types:
            for criterion in self._types.get(name, ()):
                yield Hit(criterion, part.path, at_start(name))
        wanted = self._plain[AttachmentMatch.TYPE_MISMATCH]
        if wanted and (reason := mismatch(types, part.names, part.media_type)):
            for criterion in wanted:
                yield Hit(criterion, part.path, at_start(reason))

    def _of_part(self, part: Part) -> Iterator[Hit]:
        """What conditions with `inside` say of the name and the size of the attachment itself."""
        if self._names:
            for name in part.names:
                for criterion in self._names.matching(name):
                    yield Hit(criterion, part.path, at_start(name))
        if self._sizes and part.is_attachment:
            size = len(part.content())
            for criterion, larger_than in self._sizes:
                if size > larger_than:
                    yield Hit(criterion, part.path, at_start(f"{size} bytes"))

    def _of_obstacle(self, obstacle: Obstacle) -> Iterator[Hit]:
        if obstacle.kind is ObstacleKind.ENCRYPTED:
            wanted = self._plain[AttachmentMatch.ENCRYPTED]
        elif obstacle.kind is ObstacleKind.AMBIGUOUS:
            return
        else:
            wanted = self._plain[AttachmentMatch.UNOPENED]
        for criterion in wanted:
            yield Hit(criterion, obstacle.part, at_start(obstacle.reason), obstacle.chain)

    def _of_member(self, member: Member) -> Iterator[Hit]:
        def hit(criterion: int, text: str) -> Hit:
            return Hit(criterion, member.part, at_start(text), member.chain if member.is_inside else ())

        if member.is_inside:
            for criterion, text in self._of_inner(member):
                yield hit(criterion, text)
        for criterion, more_than in self._more_than[AttachmentMatch.NESTING]:
            if member.archives > more_than:
                yield hit(criterion, f"{member.archives} archives inside each other")
        if self._plain[AttachmentMatch.MACRO] and member.has_macros:
            for criterion in self._plain[AttachmentMatch.MACRO]:
                yield hit(criterion, "macros")

    def _of_inner(self, member: Member) -> Iterator[tuple[int, str]]:
        """What conditions with `inside` say of a member."""
        for name in member.types:
            for criterion in self._types_inside.get(name, ()):
                yield criterion, name
        if member.is_structural:
            return
        if self._names:
            for name in member.names:
                for criterion in self._names.matching(name):
                    yield criterion, name
        if self._mismatch_inside and (reason := mismatch(member.types, member.names, "")):
            for criterion in self._mismatch_inside:
                yield criterion, reason
        if member.content is not None:
            for criterion, larger_than in self._sizes:
                if len(member.content) > larger_than:
                    yield criterion, f"{len(member.content)} bytes"


def opened(parts: Sequence[Part]) -> Iterator[Member | Obstacle]:
    """The attachments of a message and all that lies in them, within one budget. Attached messages are parts, and not opened again."""
    attachments = [part for part in parts if part.is_attachment and not part.media_type.startswith("message/")]
    budget = Budget(sum(len(part.content()) for part in attachments))
    for part in attachments:
        yield from walk(part.path, part.names, part.content(), budget)


def hold_more(parts: Iterable[Part]) -> bool:
    """Whether any of the attachments is one that `opened` finds something in, or fails to."""
    return any(
        part.is_attachment and not part.media_type.startswith("message/") and holds_more(real_types(part.content()))
        for part in parts
    )


def mismatch(types: tuple[str, ...], names: Iterable[str], media_type: str) -> str:
    """How the declared type, or the last extension of a name, is not what the content is; "" when it is, or when that cannot be known."""
    if not types:
        return ""
    for name in names:
        for compared in compared_names(name):
            found = extensions(compared)
            if found and (wanted := _BY_EXTENSION.get(found[0])) and not _is_as(types, wanted):
                return f".{found[0]} is {types[0]}"
    if (wanted := _BY_MEDIA_TYPE.get(media_type)) and not _is_as(types, wanted):
        return f"{media_type} is {types[0]}"
    return ""


def _is_as(types: tuple[str, ...], wanted: str) -> bool:
    """Whether content of these types passes for the type that it is said to be."""
    one = FILE_TYPES[wanted]
    for found in types:
        other = FILE_TYPES[found]
        if wanted in (found, other.within) or found in _ALSO.get(wanted, ()):
            return True
        if one.family is other.family and one.family in (Family.IMAGE, Family.MEDIA):
            return True  # pictures go about under each other's extensions, and programs show them all the same
    # what does not always show what it is may look like anything without a face
    return not one.certain and types[0] in (UNKNOWN, "text")
