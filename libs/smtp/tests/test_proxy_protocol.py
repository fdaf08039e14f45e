"""The PROXY header, whole and octet by octet, and everything that is none."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postern_smtp.proxy_protocol import MAX_BINARY_OCTETS, SIGNATURE, ProxyHeaderError, read_header

PORTS = st.integers(0, 65535)
FOUR, SIX = st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str)


def reader_of(wire: bytes, chunk: int = 1 << 20) -> tuple[Callable[[int], Awaitable[bytes]], bytearray]:
    left = bytearray(wire)

    async def read(octets: int) -> bytes:
        taken = bytes(left[: min(octets, chunk)])
        del left[: len(taken)]
        return taken

    return read, left


def heard(wire: bytes, chunk: int = 1 << 20) -> tuple[str, bytes]:
    """The announced address, and what is left unread."""
    read, left = reader_of(wire, chunk)
    return asyncio.run(read_header(read)), bytes(left)


def binary(command: int, family: int, body: bytes, tlvs: bytes = b"") -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body) + len(tlvs)) + body + tlvs


def tcp(source: str, destination: str, ports: tuple[int, int] = (1, 25), tlvs: bytes = b"") -> bytes:
    addresses = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    family = 0x11 if addresses[0].version == 4 else 0x21
    return binary(0x21, family, b"".join(each.packed for each in addresses) + struct.pack("!HH", *ports), tlvs)


def shown(address: str) -> str:
    parsed = ipaddress.ip_address(address)
    return str((parsed.version == 6 and parsed.ipv4_mapped) or parsed)


@given(st.one_of(st.tuples(st.just("TCP4"), FOUR, FOUR), st.tuples(st.just("TCP6"), SIX, SIX)), PORTS, PORTS, st.integers(1, 200))
def test_a_line_announces_what_was_written_into_it(said: tuple[str, str, str], one: int, other: int, chunk: int) -> None:
    family, source, destination = said
    line = f"PROXY {family} {source} {destination} {one} {other}\r\n".encode()
    assert heard(line + b"\x16\x03tls", chunk) == (shown(source), b"\x16\x03tls")


@given(st.one_of(st.tuples(FOUR, FOUR), st.tuples(SIX, SIX)), PORTS, PORTS, st.binary(max_size=300), st.integers(1, 400))
def test_version_two_announces_what_was_written_into_it(
    addresses: tuple[str, str], one: int, other: int, tlvs: bytes, chunk: int
) -> None:
    wire = tcp(*addresses, (one, other), tlvs)
    assert heard(wire + b"EHLO x\r\n", chunk) == (shown(addresses[0]), b"EHLO x\r\n")


@pytest.mark.parametrize("chunk", [1, 7, 4096])
@pytest.mark.parametrize(
    "wire",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
        binary(0x20, 0x00, b""),
        binary(0x20, 0x11, b"\x7f\x00\x00\x01" * 2 + b"\x00\x01" * 2),
        binary(0x21, 0x00, b"whatever"),
    ],
)
def test_a_balancer_that_speaks_for_itself_announces_nobody(wire: bytes, chunk: int) -> None:
    assert heard(wire + b"QUIT\r\n", chunk) == ("", b"QUIT\r\n")


def test_an_address_that_is_mapped_is_the_one_that_it_is() -> None:
    assert heard(b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 25\r\n")[0] == "192.0.2.1"
    assert heard(tcp("::ffff:192.0.2.1", "::1"))[0] == "192.0.2.1"


@pytest.mark.parametrize("chunk", [1, 4096])
@pytest.mark.parametrize(
    "wire",
    [
        b"EHLO client.example\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello",
        b"PROXY\r\n" + b" " * 20,
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 25\n" + b"x" * 200,
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 25 26\r\n",
        b"PROXY TCP4  192.0.2.1 192.0.2.2 1 25\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 25\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 01 25\r\n",
        b"PROXY TCP4 192.0.2.256 192.0.2.2 1 25\r\n",
        b"PROXY TCP4 192.0.02.1 192.0.2.2 1 25\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1 25\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 1 25\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 1 25\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 1 25\r\n",
        b"proxy tcp4 192.0.2.1 192.0.2.2 1 25\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 25 \xe4\r\n",
        b"PROXY UNKNOWN " + b"x" * 200 + b"\r\n",
        b"PROXY UNKNOWNX\r\n",
        SIGNATURE[:-1] + b"\r!\x11\x00\x0c" + bytes(12),
        binary(0x11, 0x11, bytes(12)),
        binary(0x22, 0x11, bytes(12)),
        binary(0x21, 0x12, bytes(12)),
        binary(0x21, 0x31, bytes(216)),
        binary(0x21, 0x11, bytes(11)),
        binary(0x21, 0x21, bytes(35)),
        binary(0x21, 0x11, bytes(12), bytes(MAX_BINARY_OCTETS)),
    ],
)
def test_what_is_no_header_is_refused(wire: bytes, chunk: int) -> None:
    with pytest.raises(ProxyHeaderError) as refused:
        heard(wire, chunk)
    assert not refused.value.is_silence


@given(st.integers(0, 60), st.booleans())
def test_a_header_that_is_cut_off_is_refused(length: int, is_text: bool) -> None:
    whole = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 25\r\n" if is_text else tcp("192.0.2.1", "192.0.2.2")
    with pytest.raises(ProxyHeaderError) as refused:
        heard(whole[: min(length, len(whole) - 1)])
    assert refused.value.is_silence == (length == 0)


@given(
    st.one_of(
        st.binary(max_size=300), st.binary(max_size=200).map(SIGNATURE.__add__), st.binary(max_size=200).map(b"PROXY ".__add__)
    )
)
def test_anything_is_an_address_or_nobody_or_refused(wire: bytes) -> None:
    try:
        announced, left = heard(wire, 3)
    except ProxyHeaderError:
        return
    assert not announced or ipaddress.ip_address(announced)
    assert wire.endswith(left)


def test_no_more_than_the_header_is_read() -> None:
    asked = 0

    async def read(octets: int) -> bytes:
        nonlocal asked
        asked += octets
        return b"PROXY UNKNOWN\r\n"[asked - octets : asked]

    assert asyncio.run(read_header(read)) == ""
    assert asked == len(b"PROXY UNKNOWN\r\n")


def test_a_line_without_an_end_is_not_read_for_ever() -> None:
    read, left = reader_of(b"PROXY UNKNOWN " + b"x" * 1000)
    with pytest.raises(ProxyHeaderError, match="too long"):
        asyncio.run(read_header(read))
    assert len(left) == 1014 - 107


def test_addresses_are_those_of_their_family() -> None:
    assert isinstance(ipaddress.ip_address(heard(tcp("192.0.2.1", "192.0.2.2"))[0]), IPv4Address)
    assert isinstance(ipaddress.ip_address(heard(tcp("2001:db8::1", "2001:db8::2"))[0]), IPv6Address)
