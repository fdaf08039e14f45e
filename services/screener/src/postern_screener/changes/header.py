"""The message's own header as it is changed: fields removed, put on top, the subject tagged. Every other field stays octet for octet.

Standards: RFC 5322 section 2.2.3 (folding), RFC 2047 (a tag that is not ASCII, and the blank behind it, which is lost between two encoded words).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from postern_core.changes import AddHeader, RemoveHeader, TagSubject
from postern_core.mail_text import encoded_words, unstructured_field
from postern_screener.changes.edits import Edit
from postern_screener.changes.layout import RawField, read_header

_WIDTH: Final = 78
_FIRST_LINE: Final = re.compile(rb"[^:]*+:([ \t]*+)([^\r]*+)")


class HeaderChanges:
    """Takes changes in their order, then gives the edits. UncertainError when the header is none."""

    def __init__(self, body: bytes, decoded: Mapping[str, Sequence[str]]) -> None:
        """`decoded`: the same fields as the parser reads them, lower-case name → values."""
        self._body = body
        self._decoded = decoded
        self.fields, self.content = read_header(body, 0, may_be_all=True)
        self._removed: set[RawField] = set()
        self._added: list[tuple[str, str]] = []
        self._tags: list[str] = []

    def make(self, change: TagSubject | AddHeader | RemoveHeader) -> str:
        """Take one change; returns what it does, in a few words."""
        match change:
            case AddHeader(name=name, value=value):
                self._added.append((name, value))
                return f"{name} added"
            case RemoveHeader(name=name):
                return self._remove(name)
            case TagSubject(text=text):
                return self._tag(text)

    def edits(self) -> list[Edit]:
        """All of it as edits."""
        edits = [Edit(each.start, each.end, b"") for each in self._removed]
        added = [unstructured_field(name, value) for name, value in self._added]
        subjects = [each for each in self.fields if each.name == "subject" and each not in self._removed]
        if self._tags:
            # the tag that came last stands in front
            edits += [_tagged(self._body, each, list(reversed(self._tags))) for each in subjects]
            if not subjects:
                added.append(unstructured_field("Subject", " ".join(reversed(self._tags))))
        if added:
            edits.append(Edit(0, 0, b"".join(added)))
        return edits

    def _remove(self, name: str) -> str:
        found = [each for each in self.fields if each.name == name.lower()]
        self._removed.update(found)
        before = len(self._added)
        self._added = [each for each in self._added if each[0].lower() != name.lower()]
        return f"{len(found) + before - len(self._added)} {name} removed"

    def _tag(self, tag: str) -> str:
        for k, (name, value) in enumerate(self._added):
            if name.lower() == "subject":  # a rule that sets another subject
                if tag.casefold() not in value.casefold():
                    self._added[k] = (name, f"{tag} {value}")
                return f"subject tagged {tag}"
        subjects = [each for each in self.fields if each.name == "subject" and each not in self._removed]
        read = self._decoded.get("subject", ())
        has_it = bool(subjects) and len(read) == len(subjects) and all(tag.casefold() in value.casefold() for value in read)
        if has_it or tag in self._tags:
            return f"the subject has {tag} already"
        self._tags.append(tag)
        return f"subject tagged {tag}"


def _tagged(body: bytes, subject: RawField, tags: Sequence[str]) -> Edit:
    """The subject's first line with the tags in front; the others stay."""
    raw = body[subject.start : subject.end]
    match = _FIRST_LINE.match(raw)
    assert match is not None  # it is a field
    tag = " ".join(tags)
    blank, rest = match.groups()
    start = subject.start + match.start(1)
    follows = rest or raw[match.end() : -2].strip()
    if tag.isascii() and "=?" not in tag:
        front = tag.encode("ascii")
    else:
        # between two encoded words a blank is not shown: it goes into the first one
        front = encoded_words(f"{tag} " if follows.startswith(b"=?") else tag, first_line=len("Subject: ")).encode("ascii")
    if not rest:  # nothing, or all of it in the lines that follow
        return Edit(start, start + len(blank), b" " + front)
    last = len(front) - front.rfind(b"\n") - 1
    separator = b" " if last + len(rest) + len("Subject:  ") <= _WIDTH else b"\r\n "
    return Edit(start, start + len(blank), b" " + front + separator)
