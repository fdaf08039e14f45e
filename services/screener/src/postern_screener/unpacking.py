"""A message → the same message with what its parts carry in formats of their own: uuencode and yEnc inside texts, winmail.dat, attached .eml files; and with the
text around the parts of its multiparts.

What is found becomes parts behind the one that holds it, with numbers that begin with its own: `1.uu1`, `2.tnef.1`, `3.1` for the first part of the
message in part 3. They are screened like any other part. Damage is a defect: a client may show what we could not read.
Bounds: MAX_PARTS in all, and as many octets as the message has, eight times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from postern_core.file_names import normalise_name
from postern_screener.defects import Defect
from postern_screener.filenames import extensions
from postern_screener.formats.blocks import may_have_blocks, unpack_blocks
from postern_screener.formats.member import Unpacked
from postern_screener.formats.tnef import SIGNATURE, unpack_tnef
from postern_screener.message_tree import Message, Part
from postern_screener.mime import MAX_PARTS, MalformedError, parse_message

_MOST_OPENED: Final = 8  # times the message, in octets
_TNEF_TYPES: Final = frozenset(("application/ms-tnef", "application/vnd.ms-tnef"))
_TNEF_NAMES: Final = frozenset(("winmail.dat", "win.dat"))
_MESSAGE_EXTENSIONS: Final = frozenset(("eml", "mht", "mhtml", "nws"))
_TYPES: Final = {
    **dict.fromkeys(("txt", "text", "log", "csv", "md", "asc", "ini", "ics", "vcf", "xml", "json"), "text/plain"),
    **dict.fromkeys(("htm", "html", "xhtml", "xht", "shtml", "hta", "svg"), "text/html"),
}
_MESSAGE_HEAD: Final = 2000  # octets in which a message that is a file has a header field


def unpack(message: Message, size_bytes: int, *, in_texts: bool) -> Message:
    """`message` with everything opened. `size_bytes`: of the whole message; `in_texts`: whether to look for files inside texts."""
    outside = message.outside if in_texts else ()
    if not outside:
        for part in message.parts:
            if _is_carrier(part, in_texts=in_texts):
                break
        else:
            return message
    texts = [Part.unpacked(path, "text/plain", content, container=path.rpartition(".")[0]) for path, content in outside]
    return _Unpacking(message, size_bytes, in_texts=in_texts).run(texts)


class _Unpacking:
    """One message, part by part, without recursion."""

    def __init__(self, message: Message, size_bytes: int, *, in_texts: bool) -> None:
        self._message = message
        self._in_texts = in_texts
        self._left = _MOST_OPENED * max(size_bytes, 1)
        self._parts: list[Part] = []
        self._headers = list(message.headers)
        self._defects = list(message.defects)
        self._ahead = list(reversed(message.parts))

    def run(self, texts: Sequence[Part]) -> Message:
        self._ahead[:0] = reversed(texts)
        while self._ahead:
            if len(self._parts) >= MAX_PARTS:
                self._defects.append(Defect("1", f"more than {MAX_PARTS} parts"))
                break
            part = self._ahead.pop()
            self._parts.append(part)
            if _is_tnef(part):
                self._open(part, unpack_tnef)
            elif _is_message(part):
                self._open_message(part)
            elif self._in_texts and _has_blocks(part):
                self._open(part, unpack_blocks)
        return Message(
            self._message.fields, tuple(self._headers), tuple(self._parts), tuple(self._defects), self._message.multiparts
        )

    def _open(self, part: Part, unpack: Callable[[bytes], Unpacked]) -> None:
        if not self._may_open(part):
            return
        unpacked = unpack(part.content())
        self._defects += [Defect(part.path, reason) for reason in unpacked.damage]
        self._ahead += [
            Part.unpacked(
                f"{part.path}.{member.label}",
                member.media_type or type_by_name(member.names),
                member.content,
                names=member.names,
                charset=member.charset,
                container=part.path,
            )
            for member in reversed(unpacked.members)
        ]

    def _open_message(self, part: Part) -> None:
        if not self._may_open(part):
            return
        try:
            inner = parse_message(part.content(), path=part.path)
        except MalformedError as error:
            self._defects.append(Defect(part.path, f"attached message: {error}"))
            return
        for path, content in inner.outside if self._in_texts else ():
            self._ahead.append(Part.unpacked(path, "text/plain", content, container=part.path))
        self._headers += inner.headers
        self._defects += inner.defects
        self._ahead += reversed(inner.parts)

    def _may_open(self, part: Part) -> bool:
        self._left -= len(part.content())
        if self._left < 0:
            self._defects.append(Defect(part.path, "what is packed into its parts nests too deep"))
        return self._left >= 0


def _is_carrier(part: Part, *, in_texts: bool) -> bool:
    if in_texts and part.is_text and part.media_type != "text/html" and may_have_blocks(part.content()):
        return True
    if part.names:
        names = part.names[0].lower() if len(part.names) == 1 else "/".join(part.names).lower()
        # whether it is worth while to normalise them
        if not ("eml" in names or "win" in names or "mht" in names or "nws" in names or not names.isascii()):
            return part.media_type in _TNEF_TYPES
        return _is_tnef(part) or _is_message(part)
    return part.media_type in _TNEF_TYPES


def _is_tnef(part: Part) -> bool:
    if part.media_type in _TNEF_TYPES:
        return True
    return any(normalise_name(name) in _TNEF_NAMES for name in part.names) and part.content().startswith(SIGNATURE)


def _is_message(part: Part) -> bool:
    """Whether some client opens it as a message for its name, though its type says something else."""
    if part.media_type in ("message/rfc822", "message/global", "message/news"):
        return False
    return is_named_as_message(part.names, part.content)


def is_named_as_message(names: Iterable[str], content: bytes | bytearray | Callable[[], bytes]) -> bool:
    """Whether a file of these names is opened as a message; its content may be given when it is asked for."""
    if not any(_MESSAGE_EXTENSIONS.intersection(extensions(normalise_name(name))[:1]) for name in names):
        return False
    return b":" in (content() if callable(content) else content)[:_MESSAGE_HEAD]


def _has_blocks(part: Part) -> bool:
    return part.is_text and part.media_type != "text/html" and may_have_blocks(part.content())


def type_by_name(names: tuple[str, ...]) -> str:
    """The media type of a file of which nobody says it."""
    for name in names:
        for extension in extensions(normalise_name(name))[:1]:
            if extension in _TYPES:
                return _TYPES[extension]
    return "application/octet-stream"
