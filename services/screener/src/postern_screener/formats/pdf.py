"""Text of PDF (ISO 32000-1 section 9), without rendering it: strings of the content streams, by the fonts' own tables of characters.

Which table belongs to which string is not followed through the objects: every table is tried for all strings, and each makes a reading. Where single
letters are placed and not words, so is the text without blanks. A rule that looks for phrases finds them in one.
Known gaps: encrypted files, other filters than Flate, ASCIIHex and none, text that is drawn as a picture, more than a few tables.
"""

from __future__ import annotations

import binascii
import re
import time
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Final

_MOST_TABLES: Final = 12
_MOST_STREAMS: Final = 3000
_MOST_TOKENS: Final = 400_000  # of a stream
_MOST_CODES: Final = 0x20000  # of a table
_DICTIONARY: Final = 2000  # octets in front of a stream in which its dictionary stands
_STREAM: Final = re.compile(rb"stream\r?\n")
_NOT_TEXT: Final = re.compile(
    rb"/Subtype\s*/(?:Image|Type1C|CIDFontType0C|OpenType)|/(?:DCT|JPX|JBIG2|CCITTFax|LZW|RunLength|Crypt)\w*Decode|/FontFile|/ObjStm|/XRef"
)
_TOKEN: Final = re.compile(
    rb"\(((?:[^\\()]++|\\.|\((?:[^\\()]++|\\.)*+(?:\)|\Z))*+)(?:\)|\Z)|<([0-9A-Fa-f\s]*+)>|(\[)|(\])|(-?\d{1,9}(?:\.\d{0,9})?)|(?<![\w*])(Td|TD|Tm|T\*|'|\"|Tj|TJ|ET|BT)(?![\w*])",
    re.DOTALL,
)
_ESCAPE: Final = re.compile(rb"\\(?:([0-7]{1,3})|(\r\n?|\n)|(.))", re.DOTALL)
_ESCAPED: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}
_CHARS: Final = re.compile(rb"beginbfchar(.*?)(?:endbfchar|\Z)", re.DOTALL)
_RANGES: Final = re.compile(rb"beginbfrange(.*?)(?:endbfrange|\Z)", re.DOTALL)
_PAIR: Final = re.compile(rb"<([0-9A-Fa-f\s]{1,16})>\s*<([0-9A-Fa-f\s]{1,80})>")
_RANGE: Final = re.compile(rb"<([0-9A-Fa-f]{1,8})>\s*<([0-9A-Fa-f]{1,8})>\s*(?:<([0-9A-Fa-f]{1,80})>|\[([^\[\]]{0,20000})\])")
_HEX: Final = re.compile(rb"<([0-9A-Fa-f\s]{1,80})>")
_LETTERS: Final = 3  # strings shorter than this, on average, are letters placed by themselves and not words
_WORD_GAP: Final = -150.0  # thousandths of the font's size between two strings that are two words


def pdf_text(content: bytes, max_octets: int, max_seconds: float) -> Iterator[str]:
    """Readings of its text."""
    end = time.monotonic() + max_seconds
    decoders: list[tuple[dict[int, str], int]] = [({}, 1)]
    texts: list[list[bytes | None]] = []
    for stream in _streams(content, max_octets):
        if time.monotonic() > end:
            break
        if b"beginbf" in stream:
            if len(decoders) <= _MOST_TABLES and (decoder := _table(stream))[0]:
                decoders.append(decoder)
        elif b"BT" in stream and b"T" in stream:
            texts.append(_strings(stream))
    for table, octets in decoders:
        for pieces in texts:
            if time.monotonic() > end:
                return
            decoded = [None if piece is None else _decoded(piece, table, octets) for piece in pieces]
            spaced = "".join(" " if piece is None else piece for piece in decoded)
            joined = "".join(piece for piece in decoded if piece is not None)
            yield spaced
            if joined and len(joined) < _LETTERS * len(decoded):
                yield joined


def _streams(content: bytes, max_octets: int) -> Iterator[bytes]:
    """Streams that may hold text or a table, unpacked."""
    position, left = 0, max_octets
    for _ in range(_MOST_STREAMS):
        begin = _STREAM.search(content, position)
        if begin is None or left <= 0:
            return
        stop = content.find(b"endstream", begin.end())
        stop = len(content) if stop < 0 else stop
        before = content[max(position, begin.start() - _DICTIONARY) : begin.start()]
        before = before[before.rfind(b" obj") + 1 :]
        position = stop + len(b"endstream")
        if _NOT_TEXT.search(before):
            continue
        data = content[begin.end() : stop]
        if b"ASCIIHex" in before:
            data = _octets(data.partition(b">")[0])
        if b"/Fl" in before:
            try:
                data = zlib.decompressobj().decompress(data, left)
            except zlib.error:
                continue
        left -= min(len(data), left) + 100
        yield data[:max_octets]


def _strings(stream: bytes) -> list[bytes | None]:
    """Its strings in order, None where a blank may be."""
    found: list[bytes | None] = []
    in_array = False
    for token in islice(_TOKEN.finditer(stream), _MOST_TOKENS):
        literal, coded, opens, closes, number, operator = token.groups()
        if literal:
            found.append(_ESCAPE.sub(_unescaped, literal) if b"\\" in literal else literal)
        elif coded:
            found.append(_octets(coded))
        elif opens or closes:
            in_array = bool(opens)
        elif number:
            if in_array and float(number) < _WORD_GAP:
                found.append(None)
        elif operator and operator not in (b"Tj", b"TJ"):
            found.append(None)
    return found


def _unescaped(found: re.Match[bytes]) -> bytes:
    octal, line_end, character = found.groups()
    if octal:
        return bytes([int(octal, 8) & 255])
    return b"" if line_end else _ESCAPED.get(character, character)


def _octets(digits: bytes) -> bytes:
    digits = digits.translate(None, b" \t\r\n\f\0")
    try:
        return binascii.unhexlify(digits + b"0" * (len(digits) % 2))
    except ValueError:
        return b""


def _table(stream: bytes) -> tuple[dict[int, str], int]:
    """Characters by code (a ToUnicode table, ISO 32000-1 section 9.10.3), and the octets of a code."""
    table: dict[int, str] = {}
    octets, left = 1, _MOST_CODES
    for block in _CHARS.findall(stream):
        for code, character in _PAIR.findall(block):
            octets = max(octets, len(code.split()[0]) // 2 if code.split() else 1)
            table[int(b"".join(code.split()) or b"0", 16)] = _characters(character)
    for block in _RANGES.findall(stream):
        for first, last, start, listed in _RANGE.findall(block):
            octets = max(octets, len(first) // 2)
            low, high = int(first, 16), min(int(last, 16), int(first, 16) + 0xFFFF)
            if listed:
                table.update(zip(range(low, high + 1), map(_characters, _HEX.findall(listed)), strict=False))
            elif (left := left - (high - low + 1)) >= 0:
                base = _characters(start)
                table.update((low + k, base[:-1] + chr(min(ord(base[-1]) + k, 0x10FFFF))) for k in range(high - low + 1) if base)
    return table, min(octets, 2)


def _characters(digits: bytes) -> str:
    return _octets(digits).decode("utf-16-be", "replace")


def _decoded(piece: bytes, table: dict[int, str], octets: int) -> str:
    if not table:
        return piece.decode("utf-16", "replace") if piece.startswith(b"\xfe\xff") else piece.decode("cp1252", "replace")
    if octets == 2:
        return "".join(table.get(piece[k] << 8 | piece[k + 1], "") for k in range(0, len(piece) - 1, 2))
    return "".join(table.get(octet, chr(octet)) for octet in piece)
