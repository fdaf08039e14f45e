"""Where the parts of a message lie: octet ranges, which the parser does not tell. Strict, since bytes are cut by what it says.

A message that can be read in more than one way is not located at all: UncertainError. And what is located is compared with what the parser read
(`agrees_with`), so that a part that is cut is the part that a rule matched. Linear in the size of the message, without recursion.
Standards: RFC 5322 section 2.2, RFC 2045 section 5, RFC 2046 sections 5.1 and 5.2, RFC 3501 section 6.4.5 (part numbers).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from postern_screener.charsets import decode_transfer, transfer_encoding
from postern_screener.defects import MEDIA_TYPE
from postern_screener.filenames import parameters
from postern_screener.message_tree import Message
from postern_screener.mime import MAX_PARTS

MAX_FIELDS: Final = 5000  # of one header
_FIELD: Final = re.compile(rb"([!-9;-~]++)[ \t]*+:[^\r\n\x00]*+(?:\r\n[ \t][^\r\n\x00]*+)*+\r\n")
_IN_PLACE: Final = frozenset({"", "7bit", "8bit", "binary"})
_MESSAGES: Final = frozenset({"message/rfc822", "message/global", "message/news"})


class UncertainError(ValueError):
    """Where something lies cannot be told for sure; the text says why."""


@dataclass(frozen=True, slots=True)
class RawField:
    """One header field: octets `start` to `end`, its CRLF included."""

    name: str  # lower case
    start: int
    end: int
    value: str  # unfolded, octets as latin-1, no blanks around it


@dataclass(slots=True)
class Node:
    """A part, or the message itself. Octets: header from `start`, content from `content` to `end` (the CRLF in front of a boundary is the boundary's)."""

    path: str  # as `mime.Part.path`; of a multipart: what its parts' numbers begin with
    start: int
    content: int
    fields: tuple[RawField, ...]
    media_type: str
    is_root: bool  # of a message
    parent: Node | None
    end: int = -1
    closing: int = -1  # of a multipart: where the CRLF of its last boundary stands
    children: list[Node] = field(default_factory=list)

    def field(self, name: str) -> RawField | None:
        return next((each for each in self.fields if each.name == name), None)

    def value(self, name: str) -> str:
        found = self.field(name)
        return "" if found is None else found.value

    @property
    def encoding(self) -> str:
        """Its transfer encoding; "" for those that change nothing."""
        encoding = transfer_encoding(self.value("content-transfer-encoding").lower())
        return "" if encoding in _IN_PLACE else encoding

    @property
    def is_multipart(self) -> bool:
        return self.media_type.startswith("multipart/")

    @property
    def is_message(self) -> bool:
        return self.media_type in _MESSAGES


def read_header(body: bytes, start: int, *, may_be_all: bool = False) -> tuple[tuple[RawField, ...], int]:
    """The fields from `start` on, and where the content begins. UncertainError for a line that is no field, or a header without an end, but where
    `may_be_all` allows for a message that is nothing but a header."""
    fields: list[RawField] = []
    at = start
    while not body.startswith(b"\r\n", at):
        if may_be_all and at == len(body):
            return tuple(fields), at
        match = _FIELD.match(body, at)
        if match is None:
            raise UncertainError("a line in a header is no header field, or the header does not end")
        value = match.group().partition(b":")[2].replace(b"\r\n", b"").strip(b" \t").decode("latin-1")
        fields.append(RawField(match.group(1).decode("ascii").lower(), at, match.end(), value))
        at = match.end()
        if len(fields) > MAX_FIELDS:
            raise UncertainError(f"a header has more than {MAX_FIELDS} fields")
    return tuple(fields), at + 2


class Layout:
    """The located parts of a message."""

    def __init__(self, body: bytes) -> None:
        """UncertainError when it cannot be told where they lie."""
        self.body = body
        self._open: list[Node] = []  # the nodes that the reading is in, from the outermost
        self._boundaries: dict[bytes, Node] = {}  # of those
        self.boundaries: set[bytes] = set()  # of all multiparts
        self.nodes: list[Node] = []  # in the order of the message
        self.root = self._begin(0, None, "", is_root=True, default="text/plain")
        self._read()

    def leaves(self) -> Iterator[Node]:
        """What has content of its own: what `mime.Message.parts` lists, as far as it lies in place."""
        return (node for node in self.nodes if not node.is_multipart)

    def find(self, path: str) -> Node:
        """The part of this number, or the innermost that it lies in: what is in an encoded message is nowhere in the bytes."""
        by_path = {node.path: node for node in self.leaves()}
        while path not in by_path:
            path, dot, _ = path.rpartition(".")
            if not dot:
                raise UncertainError("the part is not where its number says")
        return by_path[path]

    def decoded(self, node: Node) -> bytes:
        """The content of a part without its transfer encoding."""
        raw = self.body[node.content : node.end]
        return decode_transfer(raw, node.encoding) if node.encoding else raw

    def agrees_with(self, message: Message) -> None:
        """UncertainError unless the parser read the same parts."""
        here = [(node.path, node.media_type) for node in self.leaves()]
        closed = tuple(f"{node.path}." for node in self.leaves() if node.is_message and not node.children)
        there = [(part.path, part.media_type) for part in message.parts if not (closed and part.path.startswith(closed))]
        if message.defects:
            raise UncertainError(f"part {message.defects[0].part}: {message.defects[0].reason}")
        if here != there:
            raise UncertainError("its parts can be read in more than one way")

    # -- reading

    def _begin(self, start: int, parent: Node | None, path: str, *, is_root: bool, default: str) -> Node:
        """A node whose header begins at `start`, and all that begins with it (a message's own root). Returns the outermost."""
        first: Node | None = None
        while True:
            fields, content = read_header(self.body, start)
            media_type = _media_type(fields, default)
            node = Node(path, start, content, fields, media_type, is_root, parent)
            if is_root and not node.is_multipart:
                node.path = f"{path}.1" if path else "1"
            if parent is not None:
                parent.children.append(node)
            self.nodes.append(node)
            if len(self.nodes) > 2 * MAX_PARTS:
                raise UncertainError(f"more than {MAX_PARTS} parts")
            self._open.append(node)
            first = first or node
            if node.is_multipart:
                self._expect(node)
            if not (node.is_message and not node.encoding):
                return first
            start, parent, path, is_root, default = content, node, node.path, True, "text/plain"

    def _expect(self, node: Node) -> None:
        if node.encoding:
            raise UncertainError("a multipart with a transfer encoding")
        boundaries = [value for name, value in parameters(node.value("content-type")) if name.partition("*")[0] == "boundary"]
        if len(boundaries) != 1 or not boundaries[0] or boundaries[0] != boundaries[0].strip():
            raise UncertainError("a multipart without one clear boundary")
        boundary = boundaries[0].encode("latin-1")
        if boundary in self.boundaries:
            raise UncertainError("two multiparts with the same boundary")
        self._boundaries[boundary] = node
        self.boundaries.add(boundary)

    def _read(self) -> None:
        at = self.root.content - 2  # the blank line may be the line end in front of a boundary
        while self._boundaries and (at := self.body.find(b"\r\n--", at)) >= 0:
            line_end = self.body.find(b"\r\n", at + 2)
            if line_end < 0:
                line_end = len(self.body)
            line = self.body[at + 4 : line_end].rstrip(b" \t")
            if (node := self._boundaries.get(line)) is not None:
                self._close_inside(node, at)
                at = self._next_part(node, line_end)
            elif line.endswith(b"--") and (node := self._boundaries.get(line[:-2])) is not None:
                self._close_inside(node, at)
                node.closing = at
                del self._boundaries[line[:-2]]
                at = line_end
            else:
                at = line_end
        for node in self._open:
            node.end = len(self.body)
        if any(node.is_multipart and not node.children for node in self.nodes):
            raise UncertainError("a multipart without parts")

    def _next_part(self, node: Node, line_end: int) -> int:
        """Begin the part behind a boundary; returns where to look for the next one."""
        number = len(node.children) + 1
        path = f"{node.path}.{number}" if node.path else f"{number}"
        default = "message/rfc822" if node.media_type == "multipart/digest" else "text/plain"
        self._begin(line_end + 2, node, path, is_root=False, default=default)
        if self._has_boundary(line_end, self.nodes[-1].content - 2):
            raise UncertainError("a boundary in the header of a part")
        return self.nodes[-1].content - 2

    def _has_boundary(self, start: int, end: int) -> bool:
        lines = self.body[start:end].split(b"\r\n--")[1:]
        return any(line.partition(b"\r\n")[0].rstrip(b" \t").removesuffix(b"--") in self.boundaries for line in lines)

    def _close_inside(self, node: Node, at: int) -> None:
        """A boundary of `node` ends whatever was open inside it (RFC 2046 section 5.1.2)."""
        while self._open[-1] is not node:
            ended = self._open.pop()
            if at < ended.content:
                # the blank line behind the header is the line end of the boundary: no content
                if at != ended.content - 2:
                    raise UncertainError("a part that ends before its header does")
                ended.end = ended.content
                continue
            ended.end = at
            if ended.is_multipart and ended.closing < 0:
                self._boundaries = {line: each for line, each in self._boundaries.items() if each is not ended}


def _media_type(fields: tuple[RawField, ...], default: str) -> str:
    for name in ("content-type", "content-transfer-encoding", "content-disposition"):
        if sum(each.name == name for each in fields) > 1:
            raise UncertainError(f"two {name} fields")
    value = next((each.value for each in fields if each.name == "content-type"), "")
    if not value:
        return default
    written = value.partition(";")[0].strip().lower()
    if not MEDIA_TYPE.fullmatch(written):
        raise UncertainError("a Content-Type that can be read in more than one way")
    return written
