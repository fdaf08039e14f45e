"""A message as signatures see it: header fields, canonical forms, and the hash of its body (RFC 6376 sections 3.2 to 3.5, 3.7). Pure.

All of it takes time in proportion to the octets. A body is hashed in blocks, so that a thread that does it lets others work.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

MAX_HEADER_OCTETS: Final = 256 * 1024
MAX_FIELDS: Final = 2000
_MAX_TAGS: Final = 50
_BLOCK_OCTETS: Final = 128 * 1024
_BLANKS: Final = re.compile(rb"[ \t]+")
_MORE_THAN_A_SPACE: Final = re.compile(rb"[ \t]{2,}|\t")
_TAG_NAME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class HeaderField:
    """One field. `name` is in lower case; `raw` is all of it, folded as it came, without the CRLF at its end."""

    name: bytes
    raw: bytes

    @property
    def value(self) -> bytes:
        return self.raw.partition(b":")[2]

    def relaxed(self) -> bytes:
        """RFC 6376 section 3.4.2, without CRLF."""
        return relaxed_field(self.raw)


@dataclass(frozen=True)
class SignedMessage:
    """A message, parsed. `fields` is None when the header is too large to be looked at."""

    fields: tuple[HeaderField, ...] | None
    content: memoryview  # what is behind the empty line

    def named(self, name: bytes) -> list[HeaderField]:
        """The fields of that name, from the top."""
        return [field for field in self.fields or () if field.name == name]

    @cached_property
    def body_hashes(self) -> dict[bytes, bytes]:
        """SHA-256 by canonicalization, as far as it was computed (`hash_bodies`)."""
        return {}

    def hash_bodies(self, canonicalizations: Iterable[bytes]) -> None:
        """Compute what is not there yet."""
        for form in set(canonicalizations) - self.body_hashes.keys():
            digest = hashlib.sha256()
            for block in canonical_body(self.content, is_relaxed=form == b"relaxed"):
                digest.update(block)
            self.body_hashes[form] = digest.digest()


def parse_signed(message: bytes) -> SignedMessage:
    """Never raises."""
    view = memoryview(message)
    if message.startswith(b"\r\n"):
        return SignedMessage((), view[2:])
    end = message.find(b"\r\n\r\n", 0, MAX_HEADER_OCTETS + 4)
    if end < 0 and len(message) > MAX_HEADER_OCTETS:
        return SignedMessage(None, view[:0])
    header = message[: end if end >= 0 else len(message)].removesuffix(b"\r\n")
    content = view[end + 4 :] if end >= 0 else view[:0]
    gathered: list[list[bytes]] = []
    for line in header.split(b"\r\n"):
        if line[:1] in (b" ", b"\t") and gathered:
            gathered[-1].append(line)
        else:
            gathered.append([line])
    if len(gathered) > MAX_FIELDS:
        return SignedMessage(None, content)
    raws = (b"\r\n".join(lines) for lines in gathered)
    return SignedMessage(
        tuple(HeaderField(raw.partition(b":")[0].rstrip(b" \t").lower(), raw) for raw in raws if b":" in raw), content
    )


def relaxed_field(raw: bytes) -> bytes:
    """Its relaxed form (section 3.4.2), without CRLF."""
    name, _, value = raw.partition(b":")
    return name.strip(b" \t").lower() + b":" + _BLANKS.sub(b" ", value.replace(b"\r\n", b"")).strip(b" ")


def canonical_body(content: memoryview, *, is_relaxed: bool) -> Iterator[bytes]:
    """The body in its canonical form, block by block (sections 3.4.3 and 3.4.4)."""
    end = _end(content, b"\r\n \t" if is_relaxed else b"\r\n")
    if not end:
        yield b"" if is_relaxed else b"\r\n"
        return
    start = 0
    while start < end:
        stop = min(start + _BLOCK_OCTETS, end)
        block = bytes(content[start:stop])
        if stop < end:  # at the end of a line, else white space that belongs together would be in two blocks
            cut = block.rfind(b"\n") + 1
            while not cut and stop < end:
                stop = min(stop + _BLOCK_OCTETS, end)
                block = bytes(content[start:stop])
                cut = block.rfind(b"\n") + 1
            block = block[:cut] if stop < end else block
        start += len(block)
        yield _MORE_THAN_A_SPACE.sub(b" ", block).replace(b" \r\n", b"\r\n") if is_relaxed else block
    yield b"\r\n"


def _end(content: memoryview, blank: bytes) -> int:
    """Behind the last octet that is none of `blank`."""
    stop = len(content)
    while stop:
        start = max(0, stop - _BLOCK_OCTETS)
        kept = bytes(content[start:stop]).rstrip(blank)
        if kept:
            return start + len(kept)
        stop = start
    return 0


def signed_header(fields: Iterable[HeaderField], names: Iterable[bytes], *, is_relaxed: bool) -> Iterator[bytes]:
    """The fields that a signature names, each with CRLF; of those with one name the last comes first, one that is not there is nothing (section 5.4.2)."""
    below: dict[bytes, list[HeaderField]] = {}
    for field in fields:
        below.setdefault(field.name, []).append(field)
    for name in names:
        remaining = below.get(name)
        if remaining:
            field = remaining.pop()
            yield (field.relaxed() if is_relaxed else field.raw) + b"\r\n"


def without_signature(raw: bytes) -> bytes:
    """A signature's field with its b= tag emptied (section 3.7)."""
    name, colon, value = raw.partition(b":")
    tags = value.split(b";")
    for k, tag in enumerate(tags):
        key, equals, _ = tag.partition(b"=")
        if equals and key.strip() == b"b":
            tags[k] = key + equals
    return name + colon + b";".join(tags)


def parse_tags(value: bytes) -> Mapping[bytes, bytes] | None:
    """A tag-list (section 3.2), white space inside values kept but for folds; None for what is none."""
    tags: dict[bytes, bytes] = {}
    items = value.strip().removesuffix(b";").split(b";")
    if len(items) > _MAX_TAGS:
        return None
    for item in items:
        key, equals, text = (part.strip() for part in item.partition(b"="))
        if not equals or not _TAG_NAME.fullmatch(key) or key in tags:
            return None
        tags[key] = text
    return tags


def compact(value: bytes) -> bytes:
    """Without any white space: base64, and lists."""
    return b"".join(value.split())
