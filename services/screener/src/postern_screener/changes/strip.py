"""An attachment gives way to a text that says what was removed: name, type, size, SHA-256, and the rule.

The part is replaced as a whole, header and content. Where the attachment is all that a message consists of, the fields that describe it are replaced and
the message's others stay. What lies in an attached message that is encoded cannot be cut out of it: that message gives way as a whole.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from postern_core.mail_text import line, quoted_printable
from postern_screener.changes.edits import Edit
from postern_screener.changes.layout import Layout, Node, UncertainError
from postern_screener.message_tree import Message, Part

_MOST_NAME: Final = 200
_LIKE_BOUNDARY: Final = re.compile(rb"^--", re.MULTILINE)
_SIGNATURES: Final = frozenset({"application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature"})
_SEALED: Final = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime"})


@dataclass(frozen=True, slots=True)
class Stripped:
    """What was removed, and the text that takes its place."""

    node: Node
    text: str
    detail: str  # one line


def attachments(message: Message, layout: Layout) -> list[str]:
    """The numbers of all attachments: what has a name, is marked as one, or is no text; not signatures, nor what an encrypted message consists of."""
    sealed = tuple(f"{node.path}." for node in layout.nodes if node.media_type == "multipart/encrypted" and node.path)
    if layout.root.media_type == "multipart/encrypted":
        return []
    return [
        each.path
        for each in message.parts
        if each.is_attachment
        and not (each.is_text and not each.names and each.media_type.startswith("message/"))  # reports
        and each.media_type not in _SIGNATURES | _SEALED
        and not (sealed and each.path.startswith(sealed))
    ]


def strip(layout: Layout, message: Message, paths: Sequence[str], rule_name: str) -> list[Stripped]:
    """The parts of these numbers, or those that they lie in, each once. UncertainError when it cannot be told where one lies."""
    parts = {each.path: each for each in message.parts}
    nodes: dict[int, Node] = {}
    for path in paths:
        node = layout.find(path)
        nodes[node.start] = node
    found: list[Stripped] = []
    end = -1
    for _, node in sorted(nodes.items()):
        if node.start < end:  # in one that is removed already
            continue
        end = node.end
        found.append(_stripped(layout, node, parts[node.path], rule_name))
    return found


def _stripped(layout: Layout, node: Node, removed: Part, rule_name: str) -> Stripped:
    content = removed.content()
    if layout.decoded(node) != content:
        raise UncertainError(f"part {node.path} can be read in more than one way")
    name = line(removed.names[0])[:_MOST_NAME] if removed.names else "(no name)"
    digest = hashlib.sha256(content).hexdigest()
    rows = (
        ("Name", name),
        ("Type", line(node.media_type)[:_MOST_NAME]),
        ("Size", f"{len(content)} bytes"),
        ("SHA-256", digest),
        ("Rule", line(rule_name)[:_MOST_NAME]),
    )
    text = "An attachment was removed from this message.\r\n\r\n" + "".join(f"{what + ':':<9}{value}\r\n" for what, value in rows)
    return Stripped(node, text, f"removed {name} ({node.media_type}, {len(content)} bytes, SHA-256 {digest})")


def edits_of(stripped: Stripped, also: str = "") -> list[Edit]:
    """The edits that put the text (and `also` behind it) in the place of the part."""
    node = stripped.node
    replacement = safe_part(f"{stripped.text}\r\n{also}" if also else stripped.text)
    if not node.is_root:
        return [Edit(node.start, node.end, replacement)]
    header, _, content = replacement.partition(b"\r\n\r\n")
    # the message keeps its other fields
    edits = [Edit(each.start, each.end, b"") for each in node.fields if each.name.startswith("content-")]
    if node.field("mime-version") is None:
        header = b"MIME-Version: 1.0\r\n" + header
    at = node.content - 2
    return [*edits, Edit(at, at, header + b"\r\n"), Edit(node.content, node.end, content)]


def safe_part(text: str) -> bytes:
    """A text part, of whose lines none can be a boundary, whatever an attacker makes his boundaries look like."""
    content = text.encode("utf-8")
    if text.isascii() and not _LIKE_BOUNDARY.search(content):
        return b"Content-Type: text/plain; charset=us-ascii\r\n\r\n" + content
    head = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    return head + safe_quoted_printable(content)


def safe_quoted_printable(content: bytes) -> bytes:
    """As `quoted_printable`; no line begins as a boundary does."""
    return _LIKE_BOUNDARY.sub(b"=2D-", quoted_printable(content))
