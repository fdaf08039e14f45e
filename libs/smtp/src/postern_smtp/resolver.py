"""What a gate asks DNS, for all checks that do: time-boxed, remembered, and three outcomes that no caller can mix up.

`found` has values. `none` means that DNS answered, and there are none (NXDOMAIN, or a name without records of that type). `failed` means that
nobody knows: no answer in time, SERVFAIL, a server that refuses, an answer that makes no sense. What follows from `failed` is each check's own
decision, and so it is never an exception. Answers are somebody else's words: names are checked before they are given out, and their number is bounded.

Remembered: what was found for as long as it says (at most an hour), what is not there for as long as its SOA says (at most five minutes), failures
for ten seconds, so that a dead server does not cost each connection its time-out. Up to a number of entries; the one used least recently goes first.
Standards: RFC 1035, RFC 2308 (negative answers), RFC 1123 section 6.1.3.2 (again by TCP when an answer is truncated), RFC 5452 (ports and ids at random).
"""

from __future__ import annotations

import asyncio
import enum
import ipaddress
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

import structlog

if TYPE_CHECKING:
    from postern_smtp.dns_stub import DnsStub

log: structlog.stdlib.BoundLogger = structlog.get_logger()
T = TypeVar("T")

LOOKUP_S: Final = 5.0  # one lookup, its repetitions included
_MAX_ENTRIES: Final = 10_000
_MAX_FOUND_S: Final = 3600.0
_FAILED_S: Final = 10.0
_AT_ONCE: Final = 200  # queries on the wire; each has a socket
_MAX_VALUES: Final = 50
_MAX_TEXT_OCTETS: Final = 16_384  # of one TXT record
_HOST: Final = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


class Outcome(enum.Enum):
    """What became of a lookup."""

    FOUND = enum.auto()
    NONE = enum.auto()  # there is nothing, for sure
    FAILED = enum.auto()  # not known


@dataclass(frozen=True, slots=True)
class DnsAnswer(Generic[T]):
    """`values` are there when it is FOUND, and only then."""

    outcome: Outcome
    values: tuple[T, ...] = ()
    name_exists: bool = True  # False: NXDOMAIN, there is no such name with records of any type
    reason: str = ""  # of FAILED, for the log


@dataclass(frozen=True, slots=True, order=True)
class MailExchanger:
    """An MX record. The host is "" in a null MX (RFC 7505): the domain takes no mail."""

    preference: int
    host: str


IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class Resolver:
    """One for each process. `servers` as `parse_dns_servers` gives them; none: those of the system (/etc/resolv.conf), read at the first question."""

    def __init__(
        self, servers: Iterable[tuple[str, int]] = (), *, lookup_s: float = LOOKUP_S, max_entries: int = _MAX_ENTRIES
    ) -> None:
        self._servers = tuple(servers)
        self._lookup_s = lookup_s
        self._max_entries = max_entries
        self._stub: DnsStub | None = None
        self._remembered: OrderedDict[tuple[str, str], tuple[float, DnsAnswer[Any]]] = OrderedDict()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def pointers(self, address: str) -> DnsAnswer[str]:
        """The names of an IP address (PTR), as it claims them: nobody may believe them who does not ask the way back."""
        return await self._ask(reverse_name(address), "PTR", lambda record: host_name(record.target.to_text()))

    async def addresses(self, name: str) -> DnsAnswer[IpAddress]:
        """The IPv4 and IPv6 addresses of a host. Found when either question found some; none when both found none."""
        answers = await asyncio.gather(self.ipv4(name), self.ipv6(name))
        values = tuple(value for answer in answers for value in answer.values)
        if values:
            return DnsAnswer(Outcome.FOUND, values)
        return next((answer for answer in answers if answer.outcome is Outcome.FAILED), answers[0])

    async def ipv4(self, name: str) -> DnsAnswer[IpAddress]:
        """A records: the addresses of a host, or the codes that a DNS list answers with."""
        return await self._ask(name, "A", lambda record: ipaddress.IPv4Address(record.address))

    async def ipv6(self, name: str) -> DnsAnswer[IpAddress]:
        """AAAA records."""
        return await self._ask(name, "AAAA", lambda record: ipaddress.IPv6Address(record.address))

    async def mail_exchangers(self, domain: str) -> DnsAnswer[MailExchanger]:
        """MX records, the most preferred first. None does not mean that the domain takes no mail: it may have an address (RFC 5321 section 5.1)."""
        answer = await self._ask(domain, "MX", _mail_exchanger)
        return DnsAnswer(answer.outcome, tuple(sorted(answer.values)), answer.name_exists, answer.reason)

    async def texts(self, name: str) -> DnsAnswer[bytes]:
        """TXT records, the strings of each joined (RFC 7208 section 3.3, RFC 6376 section 3.6.2.2)."""
        return await self._ask(name, "TXT", lambda record: b"".join(record.strings)[:_MAX_TEXT_OCTETS])

    async def _ask(self, name: str, kind: str, value_of: Callable[[Any], T | None]) -> DnsAnswer[T]:
        question = name.rstrip(".").lower(), kind
        remembered = self._remember(question)
        if remembered is not None:
            return cast("DnsAnswer[T]", remembered)
        try:
            async with asyncio.timeout(self._lookup_s):  # the wait for a slot included
                answer, keep_s = await self._look_up(*question, value_of)
        except TimeoutError:
            answer, keep_s = DnsAnswer(Outcome.FAILED, reason="no answer in time"), _FAILED_S
        if answer.outcome is Outcome.FAILED:
            log.info("dns.failed", name=question[0], type=kind, reason=answer.reason)
        self._keep(question, answer, keep_s)
        return answer

    async def _look_up(self, name: str, kind: str, value_of: Callable[[Any], T | None]) -> tuple[DnsAnswer[T], float]:
        """The answer, and for how many seconds it is good."""
        if self._stub is None:
            self._stub = await asyncio.to_thread(_load_stub, self._servers, self._lookup_s)
        async with self._slots:
            looked = await self._stub.look_up(name, kind)
        if looked.outcome is Outcome.FAILED:
            return DnsAnswer(Outcome.FAILED, reason=looked.reason), _FAILED_S
        values = tuple(value for record in looked.records[:_MAX_VALUES] if (value := value_of(record)) is not None)
        outcome = Outcome.FOUND if values else Outcome.NONE
        return DnsAnswer(outcome, values, looked.name_exists), min(looked.keep_s, _MAX_FOUND_S)

    # --- what was asked before

    def _remember(self, question: tuple[str, str]) -> DnsAnswer[Any] | None:
        until, answer = self._remembered.get(question, (0.0, None))
        if answer is None or until <= asyncio.get_running_loop().time():
            return None
        self._remembered.move_to_end(question)
        return answer

    def _keep(self, question: tuple[str, str], answer: DnsAnswer[Any], keep_s: float) -> None:
        self._remembered[question] = (asyncio.get_running_loop().time() + keep_s, answer)
        self._remembered.move_to_end(question)
        while len(self._remembered) > self._max_entries:
            self._remembered.popitem(last=False)


def parse_dns_servers(text: str) -> tuple[tuple[str, int], ...]:
    """`address[:port][,…]`, IPv6 with a port in brackets; "" gives none. ValueError that names what is wrong."""
    servers = []
    for item in filter(None, (item.strip() for item in text.split(","))):
        host, port = item, "53"
        if item.startswith("["):
            host, bracket, rest = item[1:].partition("]")
            port = rest.removeprefix(":") or (port if bracket else "")
        elif item.count(":") == 1:
            host, _, port = item.partition(":")
        try:
            address, number = str(ipaddress.ip_address(host)), int(port)
        except ValueError:
            raise ValueError(f"{item!r} is not an IP address, with :port or without (IPv6 in brackets then)") from None
        if not 0 < number < 65536:
            raise ValueError(f"{item!r}: there is no port {number}")
        servers.append((address, number))
    return tuple(servers)


def reverse_name(address: str, zone: str = "") -> str:
    """The name below which an IP address is looked up: in in-addr.arpa or ip6.arpa, or in the `zone` of a DNS list (RFC 5782). ValueError for no address."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    reverse = parsed.reverse_pointer
    return f"{reverse.rsplit('.', 2)[0]}.{zone}" if zone else reverse


def host_name(text: str) -> str | None:
    """A name out of DNS as we use it: lower case, no dot at its end; None for what is no host's name (escapes, blanks, too long)."""
    name = text.removesuffix(".").lower()
    return name if _HOST.fullmatch(name) else None


def _mail_exchanger(record: Any) -> MailExchanger | None:
    exchange = record.exchange.to_text()
    if exchange == ".":
        return MailExchanger(record.preference, "")
    host = host_name(exchange)
    return MailExchanger(record.preference, host) if host is not None else None


def _load_stub(servers: tuple[tuple[str, int], ...], lookup_s: float) -> DnsStub:
    # at the first question: dnspython takes some megabytes, and many gates never ask anything
    from postern_smtp.dns_stub import DnsStub

    return DnsStub(servers, lookup_s)
