"""Attachment conditions that need no look into the content: names, declared type, decoded size (OLD-PRODUCT 2.10).

Names and extensions look at every name that a part gives itself; extensions at inner ones too (`a.exe.txt` has txt and exe), so that
neither a double extension nor trailing dots and blanks evade them. Sizes look at what has a name, is marked as an attachment or is not text.
What needs a look into the content is in `checks/contents.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from postern_core.policy import AttachmentCondition, AttachmentMatch, Lists
from postern_screener.checks.file_names import NAME_MATCHES, NameTables, names_of
from postern_screener.checks.hit import Hit, at_start
from postern_screener.message_tree import Part


class AttachmentCheck:
    """All of these conditions in a few tables."""

    def __init__(self, criteria: Iterable[tuple[int, AttachmentCondition]], lists: Lists | None = None) -> None:
        """`criteria`: number and condition. ValueError for a value that could never match."""
        self._names = NameTables()
        self._declared: dict[str, list[int]] = {}
        self._sizes: list[tuple[int, int]] = []  # criterion, larger than bytes
        for criterion, condition in criteria:
            if condition.needs_content:
                continue
            if condition.match in NAME_MATCHES:
                self._names.add(criterion, condition.match, names_of(condition, lists or Lists()))
            elif condition.match is AttachmentMatch.SIZE:
                self._sizes.append((criterion, condition.larger_than_bytes))
            elif condition.match is AttachmentMatch.DECLARED_TYPE:
                for value in condition.values:
                    self._declared.setdefault(_checked_type(value), []).append(criterion)

    @property
    def has_any(self) -> bool:
        """Whether there is any rule at all."""
        return bool(self._names or self._declared or self._sizes)

    def check(self, part: Part) -> Iterator[Hit]:
        """Hits on one part."""
        if part.names and self._names:
            for name in part.names:
                for criterion in self._names.matching(name):
                    yield Hit(criterion, part.path, at_start(name))
        if self._declared and part.is_attachment:
            for value in (part.media_type, part.media_type.partition("/")[0] + "/*"):
                for criterion in self._declared.get(value, ()):
                    yield Hit(criterion, part.path, at_start(part.media_type))
        if self._sizes and part.is_attachment:
            size = len(part.content())
            for criterion, larger_than in self._sizes:
                if size > larger_than:
                    yield Hit(criterion, part.path, at_start(f"{size} bytes"))


def _checked_type(value: str) -> str:
    kind, slash, subtype = value.strip().lower().partition("/")
    if not (kind and slash and subtype) or "/" in subtype:
        raise ValueError(f"attachment rule: {value!r} is no type as in application/pdf or image/*")
    return f"{kind}/{subtype}"
