"""Where the parts of an embedded stack listen: `host:port` as the administrator writes it, port 0 meaning any free one.

A free port is looked for below the range from which the kernel takes ports for outgoing connections, else such a connection could sit on
the port of a service in the moment in which it is started again. The ports of the last start are preferred, so that routes, bookmarks and
clients stay right over a restart.
"""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from postern_core.errors import ConfigurationError

_FREE_PORTS: Final = range(20_000, 32_000)
_TRIES: Final = 100


@dataclass(frozen=True)
class Addresses:
    """Each `host:port`, an IPv6 host in brackets. The defaults are those of `postern up`."""

    anon: str = "127.0.0.1:2525"
    auth_starttls: str = "127.0.0.1:2587"
    auth_tls: str = "127.0.0.1:2465"
    api: str = "127.0.0.1:8080"
    smart_host: str = "127.0.0.1:2626"
    nats: str = "127.0.0.1:0"
    monitor: str = "127.0.0.1:0"

    def named(self) -> Iterator[tuple[str, str]]:
        for field in fields(self):
            yield field.name, getattr(self, field.name)


def split_address(address: str) -> tuple[str, int]:
    """Host without brackets, and port. ValueError when `address` is not host:port."""
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535 or (":" in host and not bracketed):
        raise ValueError(f"{address!r}: write HOST:PORT, an IPv6 address in brackets")
    return host.strip("[]"), int(port)


def join_address(host: str, port: int) -> str:
    """The opposite of `split_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reachable(address: str) -> str:
    """What a client on this machine connects to: the loopback address where we listen on all of them."""
    host, port = split_address(address)
    return join_address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port)


def settle_addresses(wanted: Addresses, remembered: Addresses | None = None) -> Addresses:
    """`wanted` with a free port in place of every 0, the remembered one if it may be.

    ConfigurationError that names option and port when an address is malformed, taken, or wanted twice.
    """
    held: list[socket.socket] = []
    settled: dict[str, str] = {}
    try:
        # first those with a port of their own, so that no free one is taken from under them
        for name, address in sorted(wanted.named(), key=lambda item: item[1].endswith(":0")):
            option = f"--{name.replace('_', '-')} {address}"
            try:
                host, port = split_address(address)
            except ValueError as error:
                raise ConfigurationError(f"{option}: {error}") from error
            before = getattr(remembered, name) if remembered is not None else ""
            listening = _listen(host, port) if port else _listen_anywhere(host, before)
            if isinstance(listening, OSError):
                raise ConfigurationError(f"{option}: cannot listen there: {listening.strerror}")
            held.append(listening)
            settled[name] = join_address(host, listening.getsockname()[1])
        return Addresses(**settled)
    finally:
        for listening in held:
            listening.close()


def _listen_anywhere(host: str, before: str) -> socket.socket | OSError:
    remembered_host, port = split_address(before) if before else ("", 0)
    if remembered_host == host and not isinstance(again := _listen(host, port), OSError):
        return again
    listening: socket.socket | OSError = OSError("no free port")
    for port in random.sample(_FREE_PORTS, _TRIES):
        listening = _listen(host, port)
        if not isinstance(listening, OSError):
            break
    return listening


def _listen(host: str, port: int) -> socket.socket | OSError:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        probe = socket.socket(family, kind, protocol)
    except OSError as error:
        return error
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        # two sockets may share a port as long as neither listens
        probe.listen(1)
    except OSError as error:
        probe.close()
        return error
    return probe


def read_remembered(path: Path) -> Addresses | None:
    """The addresses of the last start; None when there was none, or its file is of no use."""
    try:
        remembered = Addresses(**json.loads(path.read_text(encoding="utf-8")))
        for _, address in remembered.named():
            split_address(address)
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return remembered


def remember(path: Path, addresses: Addresses) -> None:
    path.write_text(json.dumps(dict(addresses.named()), indent=2), encoding="utf-8")
