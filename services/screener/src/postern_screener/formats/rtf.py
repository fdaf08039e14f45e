"""Text of RTF: compressed RTF as in Outlook's messages (MS-OXRTFCP), and its text without markup (RTF 1.9.1, MS-OXRTFEX), as far as words need it.

What belongs to a font or style table is read as text as well: it hides nothing.
"""

from __future__ import annotations

import re
import struct
from typing import Final

MAX_OCTETS: Final = 1_000_000  # unpacked
_COMPRESSED: Final = 0x75465A4C  # "LZFu"
_AS_IT_IS: Final = 0x414C454D  # "MELA"
_DICTIONARY: Final = (
    b"{\\rtf1\\ansi\\mac\\deff0\\deftab720{\\fonttbl;}{\\f0\\fnil \\froman \\fswiss \\fmodern \\fscript \\fdecor "
    b"MS Sans SerifSymbolArialTimes New RomanCourier{\\colortbl\\red0\\green0\\blue0\r\n\\par \\pard\\plain\\f0\\fs20\\b\\i\\u\\tab\\tx"
)
_TOKEN: Final = re.compile(
    rb"\\'([0-9a-fA-F]{2})|\\u(-?\d{1,6}) ?(?:\\'[0-9a-fA-F]{2}|\?)?|\\(par|line|tab|cell|row|sect|page|~|_)(?![a-z])(?:-?\d{1,9})? ?|\\([\\{}])"
    rb"|(\\[\r\n])|\\bin(\d{1,9}) ?|\\\*\\htmltag\d{0,9} ?|\\\*|\\-|\\[a-zA-Z]{1,40}(?:-?\d{1,9})? ?|[{}\r\n]"
)
_CODEPAGE: Final = re.compile(rb"\\ansicpg(\d{3,5})")


def decompress(data: bytes) -> tuple[bytes, bool]:
    """The RTF in `data`, and whether that is all of it."""
    if len(data) < 16:
        return b"", False
    _, raw_size, kind, _ = struct.unpack_from("<4I", data)
    if kind == _AS_IT_IS:
        return data[16 : 16 + min(raw_size, MAX_OCTETS)], raw_size <= min(len(data) - 16, MAX_OCTETS)
    if kind != _COMPRESSED:
        return b"", False
    size = min(raw_size, MAX_OCTETS)
    window = bytearray(4096)
    window[: len(_DICTIONARY)] = _DICTIONARY
    write, position, end, out = len(_DICTIONARY), 16, len(data), bytearray()
    while position < end and len(out) < size:
        flags = data[position]
        position += 1
        for bit in range(8):
            if position + (flags >> bit & 1) >= end or len(out) >= size:
                break
            if not flags >> bit & 1:
                window[write] = data[position]
                out.append(data[position])
                write = (write + 1) & 4095
                position += 1
                continue
            reference = data[position] << 8 | data[position + 1]
            position += 2
            read, length = reference >> 4, (reference & 15) + 2
            if read == write:  # the end
                return bytes(out[:size]), raw_size == len(out)
            for _ in range(length):
                octet = window[read]
                window[write] = octet
                out.append(octet)
                read, write = (read + 1) & 4095, (write + 1) & 4095
    return bytes(out[:size]), raw_size <= len(out)


def rtf_text(source: bytes) -> str:
    """Its text. Encapsulated HTML comes with its tags."""
    named = _CODEPAGE.search(source)
    codec = "cp" + named[1].decode() if named else "cp1252"
    try:
        b"".decode(codec)
    except LookupError:
        codec = "cp1252"
    pieces: list[str] = []
    octets = bytearray()
    position = 0
    for token in _TOKEN.finditer(source):
        if token.start() < position:
            continue  # inside of binary data
        octets += source[position : token.start()]
        position = token.end()
        octet, character, blank, literal, line_end, binary = token.groups()
        if octet:
            octets += bytes.fromhex(octet.decode())
        elif literal or line_end:
            octets += literal or b"\n"
        elif blank:
            octets += b" " if blank in (b"tab", b"~", b"cell") else b"" if blank == b"_" else b"\n"
        elif binary:
            position = min(len(source), position + int(binary))
        elif character:
            pieces += (octets.decode(codec, "replace"), chr(int(character) % 0x10000))
            octets.clear()
    octets += source[position:]
    pieces.append(octets.decode(codec, "replace"))
    # characters beyond the basic plane are written as two surrogates
    return "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
