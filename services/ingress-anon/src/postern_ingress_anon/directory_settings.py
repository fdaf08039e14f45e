"""Where the directory is, and how to look a mailbox up in it. Without ldap3, which is loaded where there is a directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

_PORTS: Final = {"ldap": 389, "ldaps": 636}
# the forms in which OpenLDAP's usual schemas and Active Directory have mail addresses
DEFAULT_FILTER: Final = "(|(mail={address})(proxyAddresses=smtp:{address}))"
_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@.-_+=")


@dataclass(frozen=True, slots=True)
class LdapServer:
    """One server."""

    host: str
    port: int
    implicit_tls: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectorySettings:
    """One directory."""

    servers: tuple[LdapServer, ...]  # tried in this order
    start_tls: bool = True  # where TLS does not begin at once
    ca_file: Path | None = None  # None: the system's authorities
    base_dn: str = ""
    filter: str = DEFAULT_FILTER
    bind_dn: str = ""  # "": anonymous
    password_file: Path | None = None
    timeout_s: int = 5  # each of connecting, TLS, binding and searching


def parse_uris(text: str) -> tuple[LdapServer, ...]:
    """`ldap[s]://host[:port]`, several separated by blanks. ValueError that names what is wrong."""
    return tuple(map(_server, text.split()))


def _server(uri: str) -> LdapServer:
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{uri!r}: {error}") from error
    if parts.scheme not in _PORTS or not host or parts.path.strip("/") or parts.query or parts.username is not None:
        raise ValueError(f"{uri!r} is not of the form ldaps://host:port or ldap://host:port")
    return LdapServer(host, port or _PORTS[parts.scheme], parts.scheme == "ldaps")


def checked_filter(text: str) -> str:
    """A filter template. ValueError for one that asks nothing, or would be none."""
    if "{address}" not in text and "{local_part}" not in text:
        raise ValueError("the filter names neither {address} nor {local_part}: it would find the same for everybody")
    depth = 0
    for character in filter_for(text, "a@b.example"):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0:
            break
    if depth or not text.startswith("(") or not text.endswith(")"):
        raise ValueError("the parentheses of the filter do not match")
    return text


def filter_for(template: str, address: str) -> str:
    """The filter for one address, no octet of which means anything to a filter (RFC 4515 section 3)."""
    local_part, _, domain = address.rpartition("@")
    found = template
    for name, value in (("{address}", address), ("{local_part}", local_part), ("{domain}", domain)):
        found = found.replace(name, escaped(value))  # what is put in holds no brace
    return found


def escaped(value: str) -> str:
    r"""Letters and digits as they are, each other octet as `\\xx`."""
    return "".join(chr(octet) if octet in _PLAIN else f"\\{octet:02x}" for octet in value.encode("utf-8", "replace"))
