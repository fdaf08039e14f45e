"""The PROXY header: what a load balancer says, before all else, of the client whose connection it hands on. Versions 1 and 2. Pure but for `read`.

Source: HAProxy's proxy-protocol.txt. A header that announces no client (LOCAL, UNKNOWN, UNSPEC: a health check of the balancer's own) leaves the connection
as the balancer's. Whatever is not a header to the last octet is ProxyHeaderError: nothing is guessed. TLVs of version 2 are skipped, its checksum included.
Exactly the header is read, so that what follows it (TLS, maybe) is untouched.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Awaitable, Callable
from typing import Final

from postern_core.policy.networks import plain_address

HEADER_S: Final = 5.0  # for the whole header to come
SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"  # of version 2
TEXT_START: Final = b"PROXY "  # of version 1
_MAX_TEXT_OCTETS: Final = 107  # a line of version 1, with CRLF (section 2.1)
MAX_BINARY_OCTETS: Final = 4096  # of version 2, after its first sixteen: addresses and TLVs
_PORT: Final = re.compile(r"0|[1-9][0-9]{0,4}")

_LOCAL, _PROXY = 0x20, 0x21  # version 2 in the upper half
_UNSPEC, _TCP4, _TCP6 = 0x00, 0x11, 0x21
_ADDRESSES: Final = {_TCP4: struct.Struct("!4s4sHH"), _TCP6: struct.Struct("!16s16sHH")}


class ProxyHeaderError(Exception):
    """What came is no PROXY header, or one that cannot be meant for us. `is_silence`: nothing came at all, and then the end."""

    def __init__(self, reason: str, *, is_silence: bool = False) -> None:
        super().__init__(reason)
        self.is_silence = is_silence


async def read_header(read: Callable[[int], Awaitable[bytes]]) -> str:
    """The announced address of the client, "" when none is. `read` gives at most so many octets, b"" at the end. Time is the caller's to bound."""
    start = await read(len(SIGNATURE))
    if not start:
        raise ProxyHeaderError("no PROXY header", is_silence=True)
    start += await _exactly(read, len(SIGNATURE) - len(start))
    if start == SIGNATURE:
        return await _binary(read)
    if not start.startswith(TEXT_START):
        raise ProxyHeaderError("no PROXY header")
    line = bytearray(start)
    while not line.endswith(b"\r\n"):  # single octets: what follows the line is not ours to read
        if len(line) >= _MAX_TEXT_OCTETS:
            raise ProxyHeaderError("the line is too long")
        line += await _exactly(read, 1)
    return parse_text(bytes(line))


def parse_text(line: bytes) -> str:
    """The address in a line of version 1, CRLF included; "" for UNKNOWN."""
    if len(line) > _MAX_TEXT_OCTETS or not line.endswith(b"\r\n") or not line.isascii():
        raise ProxyHeaderError("the line is no PROXY header")
    words = line[:-2].decode("ascii").split(" ")
    if words[:2] == ["PROXY", "UNKNOWN"]:
        return ""  # whatever stands behind it (section 2.1)
    if len(words) != 6 or words[0] != "PROXY" or words[1] not in {"TCP4", "TCP6"}:
        raise ProxyHeaderError("the line is no PROXY header")
    family = ipaddress.IPv4Address if words[1] == "TCP4" else ipaddress.IPv6Address
    try:
        source = family(words[2])
        family(words[3])
    except ValueError as error:
        raise ProxyHeaderError(str(error)) from error
    if "%" in words[2] or not all(_PORT.fullmatch(port) and int(port) < 65536 for port in words[4:]):
        raise ProxyHeaderError("the line has no possible address or port")
    return plain_address(str(source))


async def _binary(read: Callable[[int], Awaitable[bytes]]) -> str:
    command, family, octets = struct.unpack("!BBH", await _exactly(read, 4))
    if command not in {_LOCAL, _PROXY}:
        raise ProxyHeaderError(f"version or command {command:#04x} is not known")
    if octets > MAX_BINARY_OCTETS:
        raise ProxyHeaderError(f"{octets} octets of header are too many")
    rest = await _exactly(read, octets)
    if command == _LOCAL or family == _UNSPEC:
        return ""
    addresses = _ADDRESSES.get(family)
    if addresses is None or octets < addresses.size:
        raise ProxyHeaderError(f"family {family:#04x} with {octets} octets is no TCP connection")
    return plain_address(str(ipaddress.ip_address(addresses.unpack_from(rest)[0])))


async def _exactly(read: Callable[[int], Awaitable[bytes]], octets: int) -> bytes:
    got = bytearray()
    while len(got) < octets:
        block = await read(octets - len(got))
        if not block:
            raise ProxyHeaderError("the connection ended in the header")
        got += block
    return bytes(got)
