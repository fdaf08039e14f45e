"""Files inside a text: uuencode (POSIX uuencode, with its base64 form) and yEnc (draft 1.3 of www.yenc.org), as clients take them out of a text body.

A line that only talks of `begin 644 name` is no file: what follows must be a line of the format. Damaged lines are left out and said.
"""

from __future__ import annotations

import re
import zlib
from typing import Final

from postern_screener.charsets import decode_base64
from postern_screener.formats.member import Member, Unpacked

MAX_BLOCKS: Final = 500  # in a text
_BEGIN: Final = re.compile(rb"^(?:(begin|begin-base64) [0-7]{3,4} ([^\r\n]{1,1000})|=ybegin ([^\r\n]{1,1000}))\r?$", re.MULTILINE)
_END: Final = re.compile(rb"^(?:end|`?end|====)[ \t]*\r?$", re.MULTILINE)
_YENC_END: Final = re.compile(rb"^=yend\b([^\r\n]{0,1000})", re.MULTILINE)
_YENC_PART: Final = re.compile(rb"=ypart ([^\r\n]{0,1000})\r?\n")
_NUMBER: Final = re.compile(rb"\b(line|size|part|total|begin|end)=(\d{1,15})\b")
_NAME: Final = re.compile(rb"\bname=(.*)")
_CRC: Final = re.compile(rb"\bp?crc32=([0-9a-fA-F]{1,8})\b")
_BASE64_LINE: Final = re.compile(rb"\r?\n[A-Za-z0-9+/]{2,76}={0,2}[ \t]*\r?(?:\n|\Z)")
_UU_FULL: Final = 61  # characters of a full line: its length, and 60 for 45 octets
_TO_BASE64: Final = bytes.maketrans(
    bytes(range(0x20, 0x61)), b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/A"
)
_MINUS_42: Final = bytes((octet - 42) % 256 for octet in range(256))
_ESCAPED: Final = [bytes([(octet - 42 - 64) % 256]) for octet in range(256)]


def may_have_blocks(content: bytes) -> bool:
    """Whether to look closer: both formats begin with a line that has this word in it."""
    return b"begin" in content and _BEGIN.search(content) is not None


def unpack_blocks(content: bytes) -> Unpacked:
    """The files in a text, in order."""
    found = Unpacked()
    position = 0
    counts = {"uu": 0, "yenc": 0}
    while (begin := _BEGIN.search(content, position)) is not None:
        if sum(counts.values()) >= MAX_BLOCKS:
            found.damage.append(f"more than {MAX_BLOCKS} files in a text")
            break
        kind = "uu" if begin[1] else "yenc"
        unpack = _yenc if begin[3] else _base64 if begin[1].endswith(b"64") else _uuencoded
        position, data, name, damage = unpack(content, begin)
        if data is None:
            continue
        counts[kind] += 1
        found.members.append(Member(f"{kind}{counts[kind]}", data, (name,) if name else ()))
        if damage:
            found.damage.append(f"{damage}: {name[:80]!r}")
    return found


_Block = tuple[int, bytes | None, str, str]  # where to read on, the file if it is one, its name, what is wrong


def _uuencoded(content: bytes, begin: re.Match[bytes]) -> _Block:
    start = content.find(b"\n", begin.end()) + 1
    first = content[start : start + 200].split(b"\n", 1)[0].rstrip(b"\r")
    if not start or not _is_uu_line(first):
        return begin.end(), None, "", ""
    end = _END.search(content, start)
    stop = end.start() if end else len(content)
    name = begin[2].decode("utf-8", "replace").strip()
    pieces: list[bytes] = []
    full: list[bytes] = []
    damaged = end is None
    for line in content[start:stop].splitlines():
        if len(line) == _UU_FULL and line[0] == 0x4D:
            full.append(line[1:])  # the usual line; all of them are decoded at once
            continue
        if full:
            damaged |= _decode_full(full, pieces)
        damaged |= _decode_line(line, pieces)
    if full:
        damaged |= _decode_full(full, pieces)
    return stop, b"".join(pieces), name, "a uuencoded file is damaged" if damaged else ""


def _is_uu_line(line: bytes) -> bool:
    """Whether it has about as many characters as its first one says, all of them of the alphabet."""
    if not line or not 0x20 <= line[0] <= 0x60 or line.translate(None, bytes(range(0x20, 0x61))):
        return False
    octets = (line[0] - 0x20) & 0x3F
    needed = (octets * 4 + 2) // 3
    return needed <= len(line) - 1 <= (octets + 2) // 3 * 4 + 2


def _decode_full(lines: list[bytes], pieces: list[bytes]) -> bool:
    joined = b"".join(lines)
    lines.clear()
    damaged = bool(joined.translate(None, bytes(range(0x20, 0x61))))
    pieces.append(decode_base64(joined.translate(_TO_BASE64)))
    return damaged


def _decode_line(line: bytes, pieces: list[bytes]) -> bool:
    """Appends what one line holds; returns whether it is damaged. Blanks at its end may have got lost on the way."""
    if not line.strip() or line.strip() == b"`":
        return False
    octets = (line[0] - 0x20) & 0x3F
    data = line[1 : 1 + (octets + 2) // 3 * 4]
    data += b" " * (-len(data) % 4)
    pieces.append(decode_base64(data.translate(_TO_BASE64))[:octets])
    return not _is_uu_line(line)


def _base64(content: bytes, begin: re.Match[bytes]) -> _Block:
    if not _BASE64_LINE.match(content, begin.end()):
        return begin.end(), None, "", ""
    end = _END.search(content, begin.end())
    stop = end.start() if end else len(content)
    data = decode_base64(content[begin.end() : stop])
    name = begin[2].decode("utf-8", "replace").strip()
    return stop, data, name, "" if end else "a file in uuencode's base64 does not end"


def _yenc(content: bytes, begin: re.Match[bytes]) -> _Block:
    said = dict(_NUMBER.findall(begin[3]))
    if b"line" not in said or b"size" not in said:
        return begin.end(), None, "", ""
    start = content.find(b"\n", begin.end()) + 1 or len(content)
    name = next(iter(_NAME.findall(begin[3])), b"").strip().strip(b'"').decode("utf-8", "replace")
    size = int(said[b"size"])
    if part := _YENC_PART.match(content, start):
        piece = dict(_NUMBER.findall(part[1]))
        size = int(piece.get(b"end", 0)) - int(piece.get(b"begin", 1)) + 1
        start = part.end()
    end = _YENC_END.search(content, start)
    stop = end.start() if end else len(content)
    data = _decode_yenc(content[start:stop])
    if data is None:
        return stop, content[start:stop], name, "a yEnc file of nothing but escapes"
    damage = ""
    if end is None or len(data) != size:
        damage = "a yEnc file is damaged"
    elif (crc := _CRC.search(end[1])) and int(crc[1], 16) != zlib.crc32(data):
        damage = "a yEnc file does not have the checksum that it says"
    elif b"part" in said and said.get(b"total") != b"1":
        damage = "a piece of a yEnc file: the others are elsewhere"
    return end.end() if end else stop, data, name, damage


def _decode_yenc(raw: bytes) -> bytes | None:
    raw = raw.translate(None, b"\r\n")
    if raw.count(b"=") > len(raw) // 4 + 100:
        return None  # an encoder escapes one octet in sixty
    first, *escaped = raw.split(b"=")
    pieces = [first.translate(_MINUS_42)]
    for piece in escaped:
        if piece:
            pieces += (_ESCAPED[piece[0]], piece[1:].translate(_MINUS_42))
    return b"".join(pieces)
