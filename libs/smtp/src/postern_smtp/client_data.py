"""A message as it goes out after DATA: CRLF line ends throughout, dot-stuffed, in blocks.

A message that was announced as BINARYMIME goes out by BDAT where the peer takes that, and then none of this is done to it.

Promise (the outbound half of SMTP smuggling is closed here): whatever comes in, what goes out holds no bare CR and no bare LF
(RFC 5321 section 2.3.8), no undoubled dot at the start of a line (section 4.5.2), and ends with CRLF, so that `.` CRLF behind it
ends the data and nothing before it does. A message that was in order already goes out as it came in.
Lines over 998 octets are passed on as they are: cutting them would change the message, and the next hop may refuse it itself.

Pure, and by block operations only: about 0.06 ms for 50 KB.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Final

import msgspec

END_OF_DATA = b".\r\n"
_PIECE_OCTETS: Final = 128 * 1024
_STRETCH_OCTETS: Final = 4096  # that are searched behind a dot, before the next dot is looked for
BLOCK_BYTES = 64 * 1024  # the peer has one command time-out to take each


class WireMessage(msgspec.Struct, frozen=True):
    """A message ready for the wire, without its end-of-data line."""

    stuffed: bytes  # ends with CRLF, or is empty
    size_bytes: int  # before dot-stuffing: the SIZE of RFC 1870
    eight_bit: bool  # holds octets over 127
    normalised: bool  # line ends had to be put right
    binary: bool = False  # goes by BDAT, octet for octet: nothing was normalised or stuffed
    cannot_go: bool = False  # binary, and there is no form of it that this peer can take

    def blocks(self) -> Iterator[bytes | memoryview]:
        """What to write after the 354, in order; the last block ends with the end-of-data line. A binary one: BDAT and its one chunk."""
        if self.binary:
            yield b"BDAT %d LAST\r\n" % self.size_bytes + self.stuffed[:BLOCK_BYTES]
            view = memoryview(self.stuffed)
            for start in range(BLOCK_BYTES, len(view), BLOCK_BYTES):
                yield view[start : start + BLOCK_BYTES]
            return
        if len(self.stuffed) <= BLOCK_BYTES:
            yield self.stuffed + END_OF_DATA
            return
        view = memoryview(self.stuffed)
        last = (len(view) - 1) // BLOCK_BYTES * BLOCK_BYTES
        for start in range(0, last, BLOCK_BYTES):
            yield view[start : start + BLOCK_BYTES]
        yield bytes(view[last:]) + END_OF_DATA


def has_only_crlf(data: bytes) -> bool:
    """Whether every CR and every LF of `data` is half of a CRLF.

    The newline decoder of the standard library records which kinds of line end it met, in one pass at memory speed: a fifth
    of the time of counting CR, LF and CRLF. A CR at the very end counts as bare.
    """
    decoder = io.IncrementalNewlineDecoder(None, translate=False)
    view = memoryview(data)
    # piece by piece: the text that the decoder wants is then made in the same memory, which is in the processor's cache
    for start in range(0, len(view), _PIECE_OCTETS):
        decoder.decode(str(view[start : start + _PIECE_OCTETS], "latin-1"), final=start + _PIECE_OCTETS >= len(view))
    return decoder.newlines in (None, "\r\n")


def find_dotted(data: bytes | bytearray, what: bytes, start: int = 0) -> int:
    """`data.find(what, start)` for what has its dot behind CRLF. A search for one octet runs at memory speed, one for more does not; and most of
    a large message is base64, which holds no dot."""
    while (dot := data.find(b".", start + 2)) >= 0:
        end = dot + _STRETCH_OCTETS
        hit = data.find(what, dot - 2, end)
        if hit >= 0:
            return hit
        start = end - len(what) + 1
    return -1


def in_lines(body: bytes | memoryview) -> tuple[bytes, bool]:
    """`body` in lines that end with CRLF, the last one included; and whether line ends had to be put right for that."""
    data = bytes(body)  # no copy of bytes
    normalised = not has_only_crlf(data)
    if normalised:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    if data and not data.endswith(b"\r\n"):
        data += b"\r\n"
    return data, normalised


def to_chunk(body: bytes | memoryview) -> WireMessage:
    """`body` as it is, for BDAT to a peer that takes BINARYMIME (RFC 3030)."""
    data = bytes(body)
    return WireMessage(data, len(data), eight_bit=True, normalised=False, binary=True)


def to_wire(body: bytes | memoryview) -> WireMessage:
    """`body` normalised where that is needed, dot-stuffed, and closed with CRLF."""
    data, normalised = in_lines(body)
    stuffed = data
    if find_dotted(data, b"\r\n.") >= 0:
        stuffed = stuffed.replace(b"\r\n.", b"\r\n..")
    if data.startswith(b"."):
        stuffed = b"." + stuffed
    return WireMessage(stuffed, len(data), not data.isascii(), normalised)
