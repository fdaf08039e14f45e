"""A disclaimer behind the message's text and its HTML: in the charset and the transfer encoding that they have, where it fits them.

Where it does not fit a text's charset the text is written anew in UTF-8; where that cannot be done surely either, the disclaimer becomes a text part of
its own at the end. Signed and encrypted mail gets none, since it would be broken by it. What is added is 7-bit unless the part is 8-bit and may be.
Standards: RFC 2045 section 6, RFC 2046 sections 4.1.2 and 5.1.3, RFC 5751, RFC 3156, RFC 1847.
"""

from __future__ import annotations

import base64
import codecs
import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from postern_core.changes import AddDisclaimer
from postern_core.envelope import BodyType
from postern_screener.changes.edits import Edit
from postern_screener.changes.layout import Layout, Node
from postern_screener.changes.strip import safe_part, safe_quoted_printable
from postern_screener.filenames import parameter
from postern_screener.message_tree import Message, Part

_LONGEST_LINE: Final = 990
_END_OF_HTML: Final = re.compile(rb"</(?:body|html)\b", re.IGNORECASE)
_CHARSET: Final = re.compile(rb'(;[ \t\r\n]*charset[ \t]*=[ \t]*)("[^"\r\n]*"|[^;"\r\n\t ]+)', re.IGNORECASE)
_LIKE_BOUNDARY: Final = re.compile(rb"^--", re.MULTILINE)
_NOT_TOUCHED: Final = frozenset({"multipart/signed", "multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime"})
_ASCII: Final = "".join(map(chr, (*range(32, 127), 9, 10, 13)))


class NoRoomError(ValueError):
    """A disclaimer cannot be put into this part."""


@dataclass(frozen=True, slots=True)
class Disclaimed:
    """The edits, and the parts that have the disclaimer now; `skipped` says why there is none."""

    edits: tuple[Edit, ...] = ()
    parts: tuple[str, ...] = ()
    skipped: str = ""


def disclaim(
    layout: Layout, message: Message, changes: Sequence[AddDisclaimer], body_type: BodyType, boundary: str, gone: Sequence[Node]
) -> Disclaimed:
    """All disclaimers of a message. `boundary`: for a multipart that may have to be made. `gone`: parts that were removed."""
    own = [node for node in layout.nodes if not _in_message(node)]
    if any(node.media_type in _NOT_TOUCHED for node in own):
        return Disclaimed(skipped="the message is signed or encrypted")
    parts = {part.path: part for part in message.parts}
    edits: list[Edit] = []
    done: list[str] = []
    has_it = needs_part = False
    texts = [node for node in own if node not in gone and _is_shown(node, parts)]
    for media_type in ("text/plain", "text/html"):
        node = next((node for node in texts if node.media_type == media_type), None)
        if node is None:
            continue
        wanted = _joined(changes, media_type)
        content = parts[node.path].content()
        if layout.decoded(node) != content:
            needs_part = True
            continue
        try:
            found = _appended(layout, node, content, wanted, body_type)
        except NoRoomError:
            needs_part = True
            continue
        has_it |= not found
        edits += found
        done += [node.path] * bool(found)
    if needs_part or not (done or has_it):
        edits += _as_part(layout, _joined(changes, "text/plain"), boundary)
        done.append("a part of its own")
    return Disclaimed(tuple(edits), tuple(done), "" if done else "the message has it already")


def plain_text(changes: Sequence[AddDisclaimer]) -> str:
    """All of them, for a text that Postern itself writes."""
    return _joined(changes, "text/plain")


def _joined(changes: Sequence[AddDisclaimer], media_type: str) -> str:
    texts = [(change.html or _as_html(change.text)) if media_type == "text/html" else change.text for change in changes]
    lines = [line.rstrip() for text in dict.fromkeys(texts) for line in (*text.strip().splitlines(), "")]
    return "\r\n".join(lines)


def _as_html(text: str) -> str:
    return "<p>" + "<br>\n".join(html.escape(line) for line in text.strip().splitlines()) + "</p>"


def _in_message(node: Node) -> bool:
    parent = node.parent
    while parent is not None:
        if parent.is_message:
            return True
        parent = parent.parent
    return False


def _is_shown(node: Node, parts: dict[str, Part]) -> bool:
    return node.media_type in ("text/plain", "text/html") and not parts[node.path].is_attachment


# -- in place


def _appended(layout: Layout, node: Node, content: bytes, text: str, body_type: BodyType) -> list[Edit]:
    """The edits that put `text` behind the part's own; none when it ends with it already. NoRoomError when it does not fit."""
    charset = parameter(node.value("content-type"), "charset") or "us-ascii"
    codec = _codec(charset)
    is_html = node.media_type == "text/html"
    if codec.startswith(("iso2022", "hz")) and (is_html or b"\x1b" in content[content.rfind(b"\x1b(") + 1 :]):
        raise NoRoomError("a charset of which nobody knows the state")
    try:
        added = text.encode(codec, "xmlcharrefreplace" if is_html else "strict")
    except UnicodeEncodeError as error:
        return _in_utf8(layout, node, content, text, codec, error)
    if added.rstrip() in content if is_html else content.rstrip().endswith(added.rstrip()):
        return []
    if node.encoding == "base64":
        return [Edit(node.content, node.end, _base64(_inserted(content, added, is_html=is_html)))]
    raw = layout.body[node.content : node.end]
    if node.encoding == "quoted-printable":
        place, piece = _place(raw, is_html=is_html), safe_quoted_printable(added)
        soft = b"\r\n" * (raw[:place].rstrip(b" \t").endswith(b"="))  # a soft line break at the very end
        at = node.content + place
        return [Edit(at, at, soft + _line_break(raw[:place]) + piece)]
    if node.encoding:
        raise NoRoomError("a transfer encoding that is not ours")
    may_be_8bit = body_type is not BodyType.SEVEN_BIT and node.value("content-transfer-encoding").strip().lower() in (
        "8bit",
        "binary",
    )
    if (added.isascii() or may_be_8bit) and _fits(added):
        at = node.content + _place(raw, is_html=is_html)
        return [Edit(at, at, _line_break(raw[: at - node.content]) + added)]
    return _quoted(node, _inserted(content, added, is_html=is_html))


def _in_utf8(layout: Layout, node: Node, content: bytes, text: str, codec: str, error: UnicodeEncodeError) -> list[Edit]:
    """The whole text anew in UTF-8."""
    try:
        whole = content.decode(codec)
    except UnicodeDecodeError:
        raise NoRoomError("a text that is not in its charset") from error
    if whole.encode(codec) != content:
        raise NoRoomError("a text that would not come back") from error
    if whole.rstrip().endswith(text.rstrip()):
        return []
    field = node.field("content-type")
    edits: list[Edit] = []
    if field is None:
        at = node.content - 2
        missing = b"" if node.field("mime-version") is not None or not node.is_root else b"MIME-Version: 1.0\r\n"
        edits.append(Edit(at, at, missing + b"Content-Type: text/plain; charset=utf-8\r\n"))
    else:
        raw = layout.body[field.start : field.end]
        found = list(_CHARSET.finditer(raw))
        if len(found) > 1 or raw.lower().count(b"charset") != len(found):
            raise NoRoomError("a charset that is said in an unusual way") from error
        if found:
            start, end = (field.start + place for place in found[0].span(2))
            edits.append(Edit(start, end, b"utf-8"))
        else:
            edits.append(Edit(field.end - 2, field.end - 2, b"; charset=utf-8"))
    return edits + _quoted(node, _inserted(whole.encode("utf-8"), text.encode("utf-8"), is_html=False))


def _quoted(node: Node, content: bytes) -> list[Edit]:
    """The part's content as quoted-printable, and the field that says so."""
    field = node.field("content-transfer-encoding")
    says = b"Content-Transfer-Encoding: quoted-printable\r\n"
    where = (node.content - 2, node.content - 2) if field is None else (field.start, field.end)
    return [Edit(*where, says), Edit(node.content, node.end, safe_quoted_printable(content))]


def _inserted(content: bytes, added: bytes, *, is_html: bool) -> bytes:
    place = _place(content, is_html=is_html)
    return content[:place] + _line_break(content[:place]) + added + content[place:]


def _place(content: bytes, *, is_html: bool) -> int:
    """Where the disclaimer goes: the end, or in front of the last end tag of the body."""
    if not is_html:
        return len(content)
    tags = list(_END_OF_HTML.finditer(content))
    bodies = [tag for tag in tags if tag.group().lower() == b"</body"] or tags
    return bodies[-1].start() if bodies else len(content)


def _line_break(before: bytes) -> bytes:
    """What stands between the text and the disclaimer: an empty line, unless there is no text."""
    if not before:
        return b""
    return b"\r\n" if before.endswith(b"\r\n") else b"\r\n\r\n"


def _fits(added: bytes) -> bool:
    return not _LIKE_BOUNDARY.search(added) and all(len(line) <= _LONGEST_LINE for line in added.split(b"\r\n"))


def _base64(content: bytes) -> bytes:
    return base64.encodebytes(content).replace(b"\n", b"\r\n")


def _codec(charset: str) -> str:
    """Python's name of a charset in which ASCII means itself. NoRoomError for another one."""
    try:
        name = codecs.lookup(charset).name
        if _ASCII.encode(name) == _ASCII.encode("ascii"):
            return name
    except (LookupError, ValueError, UnicodeError):
        pass
    raise NoRoomError("a charset of another kind")


# -- as a part of its own


def _as_part(layout: Layout, text: str, boundary: str) -> list[Edit]:
    root, body = layout.root, layout.body
    part = safe_part(text)
    if root.media_type == "multipart/mixed" and root.closing >= 0:
        return [Edit(root.closing, root.closing, b"\r\n--" + _boundary(layout, root) + b"\r\n" + part)]
    marker = next(_markers(boundary, body))
    moved = [each for each in root.fields if each.name.startswith("content-")]
    edits = [Edit(each.start, each.end, b"") for each in moved]
    version = b"" if root.field("mime-version") is not None else b"MIME-Version: 1.0\r\n"
    head = version + b'Content-Type: multipart/mixed; boundary="' + marker + b'"\r\n'
    inner = b"".join(body[each.start : each.end] for each in moved)
    edits += [
        Edit(root.content - 2, root.content - 2, head),
        Edit(root.content, root.content, b"--" + marker + b"\r\n" + inner + b"\r\n"),
        Edit(len(body), len(body), b"\r\n--" + marker + b"\r\n" + part + b"\r\n--" + marker + b"--\r\n"),
    ]
    return edits


def _boundary(layout: Layout, node: Node) -> bytes:
    line = layout.body[node.closing + 4 : node.closing + 4 + 400].partition(b"\r\n")[0].rstrip(b" \t")
    return line.removesuffix(b"--")


def _markers(boundary: str, body: bytes) -> Iterator[bytes]:
    """Boundaries that do not stand in the message: the same one for the same message."""
    n = 0
    while True:
        marker = f"{boundary}{n or ''}".encode("ascii")
        if marker not in body:
            yield marker
        n += 1
