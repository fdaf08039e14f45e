"""From a character of a decoded text back to its octets, exactly, whatever the charset does: shifts, escapes, characters of several octets, damage.

A character begins behind everything that gave the characters before it and behind the escapes and shifts that stand between; it ends with its last octet. In
the base64 of UTF-7, where one octet may hold the end of one character and the beginning of the next, it begins and ends in the octets that hold its bits.
Each look takes time linear in the text. Standards: RFC 2152 (UTF-7), ISO/IEC 2022.
"""

from __future__ import annotations

import codecs
import re
from bisect import bisect_left
from typing import Final

_CHUNK: Final = 4096
_MOST_TRIED: Final = 64 * 1024  # octets that are decoded again and again where there is no other way
_SHIFTED: Final = re.compile(rb"\+[A-Za-z0-9+/]*+(?:-|[\x00-\xff])?")  # with the octet that ends it
# what changes the state and gives no character; not possessive, which Python before 3.11.5 gets wrong for groups
_UNSHOWN: Final = {
    "iso2022": re.compile(rb"(?:\x1b[\x20-\x2f]+[\x30-\x7e]|[\x0e\x0f])*"),
    "hz": re.compile(rb"(?:~[{}\n])*"),
}
_MARKS: Final = {  # of the order of octets, which give no character; without one it is the first order
    "utf-16": (("utf-16-le", codecs.BOM_UTF16_LE), ("utf-16-be", codecs.BOM_UTF16_BE)),
    "utf-32": (("utf-32-le", codecs.BOM_UTF32_LE), ("utf-32-be", codecs.BOM_UTF32_BE)),
}


def span_of(content: bytes, codec: str, first: int, last: int) -> tuple[int, int]:
    """Where the characters `first` up to `last` of `content.decode(codec, "replace")` begin and end."""
    if codec in _MARKS:
        for ordered, mark in _MARKS[codec]:
            if content.startswith(mark):
                begin, end = span_of(content[len(mark) :], ordered, first, last)
                return begin + len(mark), end + len(mark)
        codec = _MARKS[codec][0][0]
    if codec == "utf-7":
        begin, end = _in_utf_7(content, first, is_end=False), _in_utf_7(content, last, is_end=True)
    else:
        begin, end = _behind(content, codec, first), _behind(content, codec, last)
        if (unshown := _UNSHOWN.get("iso2022" if codec.startswith("iso2022") else codec)) is not None:
            skipped = unshown.match(content, begin)
            begin = skipped.end() if skipped is not None else begin
    return begin, max(begin, end)


def _behind(content: bytes, codec: str, count: int) -> int:
    """How many octets it takes to give the first `count` characters."""
    if count <= 0:
        return 0
    try:
        return _counted(content, codec, count)
    except UnicodeError:
        # a decoder that is given a broken escape piece by piece may give up; given all at once it never does
        known = content[:_MOST_TRIED]
        return bisect_left(range(len(known)), count, key=lambda octets: len(known[:octets].decode(codec, "replace")))


def _counted(content: bytes, codec: str, count: int) -> int:
    decoder = codecs.getincrementaldecoder(codec)("replace")
    given = position = 0
    while position < len(content):
        before = decoder.getstate()
        length = len(decoder.decode(content[position : position + _CHUNK], position + _CHUNK >= len(content)))
        if given + length >= count:
            decoder.setstate(before)
            break
        given += length
        position += _CHUNK
    unit = 4 if codec.startswith("utf-32") else 2 if codec.startswith("utf-16") else 1
    for at in range(position, len(content)):
        given += len(decoder.decode(content[at : at + 1], at + 1 == len(content)))
        if given >= count:
            # more than one at once: what came before was damaged, which only the next octet, or the end, told
            return max(at + 1 - unit * (given - count), position)
    return len(content)


def _in_utf_7(content: bytes, index: int, *, is_end: bool) -> int:
    """Where the character at `index` begins or, with `is_end`, the one before it ends."""
    if is_end and index <= 0:
        return 0
    wanted = index - 1 if is_end else index
    given = position = 0
    for run in _SHIFTED.finditer(content):
        direct = run.start() - position
        if given + direct > wanted:
            return position + wanted - given + is_end
        given += direct
        position = run.end()
        text = run.group().decode("utf-7", "replace")
        if given + len(text) <= wanted:
            given += len(text)
            continue
        if (
            run.group()[-1:] not in b"-"
            and wanted == given + len(text) - 1
            and not run.group()[-1:].isalnum()
            and len(run.group()) > 2
        ):
            return run.end() - 1 + is_end  # the octet that ended it, which is a character of its own
        units = len(text[: wanted - given + is_end].encode("utf-16-le", "surrogatepass")) // 2
        bits = 16 * units
        return min(run.start() + 1 + (-(-bits // 6) if is_end else bits // 6), run.end())
    return min(position + max(wanted - given, 0) + is_end, len(content))
