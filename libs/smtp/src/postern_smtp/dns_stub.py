"""The one module that knows dnspython: a question goes out, records or the reason why there are none come back. Remembers nothing; see resolver.py."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver

from postern_smtp.resolver import Outcome

_TRY_S: Final = 2.0  # until it asks the next server, or again
_MAX_NONE_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Looked:
    """What was answered; it is good for `keep_s` seconds. `records` are dnspython's."""

    outcome: Outcome
    records: tuple[Any, ...] = ()
    name_exists: bool = True
    reason: str = ""
    keep_s: float = 0.0


class DnsStub:
    """Asks `servers` (address, port), those of the system when there are none; a lookup takes `lookup_s` at most."""

    def __init__(self, servers: tuple[tuple[str, int], ...], lookup_s: float) -> None:
        self._lookup_s = lookup_s
        self._resolver = dns.asyncresolver.Resolver(configure=not servers)
        if servers:
            self._resolver.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in servers]
        self._resolver.cache = None
        self._resolver.timeout = min(_TRY_S, lookup_s / 2)
        self._resolver.use_edns(0, 0, 1232)  # what passes unfragmented (DNS flag day 2020)

    async def look_up(self, name: str, kind: str) -> Looked:
        """Raises nothing but CancelledError."""
        qname = _wire_name(name)
        if qname is None:
            return Looked(Outcome.NONE, name_exists=False, keep_s=_MAX_NONE_S)
        try:
            found = await self._resolver.resolve(qname, kind, lifetime=self._lookup_s, search=False)
        except dns.resolver.NXDOMAIN as nowhere:
            keep_s = _negative_s(nowhere.responses().values())  # type: ignore[no-untyped-call]
            return Looked(Outcome.NONE, name_exists=False, keep_s=keep_s)
        except dns.resolver.NoAnswer as nothing:
            return Looked(Outcome.NONE, keep_s=_negative_s([nothing.response()]))  # type: ignore[no-untyped-call]
        except (dns.exception.DNSException, OSError, ValueError) as error:
            return Looked(Outcome.FAILED, reason=str(error)[:200])
        return Looked(Outcome.FOUND, tuple(found), keep_s=float(found.rrset.ttl if found.rrset is not None else 0))


def _wire_name(name: str) -> dns.name.Name | None:
    """The name, label by label (no escapes); None for one that cannot be in DNS."""
    with contextlib.suppress(dns.exception.DNSException, UnicodeError):
        return dns.name.Name([*(label.encode("ascii") for label in name.split(".")), b""])
    return None


def _negative_s(responses: Iterable[Any]) -> float:
    """For how long it is known that something is not there (RFC 2308 section 5): by the SOA record, if there is one."""
    known = [
        float(min(rrset.ttl, *(record.minimum for record in rrset)))
        for response in responses
        for rrset in response.authority
        if rrset.rdtype == dns.rdatatype.SOA
    ]
    return min([*known, _MAX_NONE_S])
