"""SPF: whether an address may send for a domain (RFC 7208).

Bounded as section 4.6.4 says: ten terms that ask DNS, two of them in vain, ten names of an MX or PTR. Of macros, `p` is always "unknown".
Explanations (`exp=`) are not fetched: they are text that somebody else would have us say.
"""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass, replace
from typing import Final

from postern_core.policy.domains import normalise_domain
from postern_core.policy.networks import IpAddress, parse_address
from postern_smtp.mail_authentication.results import Result
from postern_smtp.mail_authentication.spf_record import (
    Directive,
    Macros,
    SpfRecord,
    SpfSyntaxError,
    expand,
    is_spf,
    parse_record,
)
from postern_smtp.resolver import DnsAnswer, Outcome, Resolver, T, host_name

_MAX_LOOKUPS: Final = 10
_MAX_IN_VAIN: Final = 2
_MAX_NAMES: Final = 10


@dataclass(frozen=True, slots=True)
class SpfResult:
    """`domain` is the one that was asked; `sender` what it was asked for, the HELO name when `is_helo`."""

    result: Result
    domain: str = ""
    sender: str = ""
    is_helo: bool = False


class _Stop(Exception):  # noqa: N818  (how an evaluation ends early)
    def __init__(self, result: Result) -> None:
        super().__init__(result)
        self.result = result


async def check_spf(resolver: Resolver, client_address: str, helo: str, reverse_path: str) -> SpfResult:
    """For the reverse-path, and for the HELO name where that is null (section 2.4). Never raises."""
    local_part, _, domain = reverse_path.rpartition("@")
    is_helo = not reverse_path
    domain = _ascii(helo if is_helo else domain)
    sender = helo if is_helo else reverse_path
    address = parse_address(client_address)
    if address is None or "." not in domain:
        return SpfResult(Result.NONE, domain, sender, is_helo)  # section 4.3
    whole = f"{local_part or 'postmaster'}@{domain}"
    evaluation = _Evaluation(resolver, Macros(address, whole, helo, domain))
    try:
        result = await evaluation.check_host(domain)
    except _Stop as stop:
        result = stop.result
    return SpfResult(result, domain, sender, is_helo)


def _ascii(name: str) -> str:
    """The name as DNS has it; "" for what is none."""
    try:
        return host_name(name if name.isascii() else normalise_domain(name)) or ""
    except ValueError:
        return ""


class _Evaluation:
    """One check_host() with all that it includes."""

    def __init__(self, resolver: Resolver, macros: Macros) -> None:
        self._resolver = resolver
        self._macros = macros
        self._lookups = 0
        self._in_vain = 0

    async def check_host(self, domain: str) -> Result:
        record = await self._record(domain)
        if record is None:
            return Result.NONE
        macros = replace(self._macros, domain=domain)
        for directive in record.directives:
            if await self._matches(directive, macros):
                return directive.result
        if record.redirect is None:
            return Result.NEUTRAL
        self._count()
        result = await self.check_host(expand(record.redirect, macros))
        return Result.PERMERROR if result is Result.NONE else result  # section 6.1

    async def _record(self, domain: str) -> SpfRecord | None:
        if host_name(domain) is None:
            return None
        answer = await self._resolver.texts(domain)
        if answer.outcome is Outcome.FAILED:
            raise _Stop(Result.TEMPERROR)
        records = [text for text in answer.values if is_spf(text)]
        if len(records) > 1:
            raise _Stop(Result.PERMERROR)  # section 4.5
        try:
            return parse_record(records[0]) if records else None
        except SpfSyntaxError:
            raise _Stop(Result.PERMERROR) from None

    async def _matches(self, directive: Directive, macros: Macros) -> bool:
        address = macros.address
        if directive.mechanism == "all":
            return True
        if directive.network is not None:
            return directive.network.version == address.version and address in directive.network
        self._count()
        name = expand(directive.name, macros) if directive.name else macros.domain
        match directive.mechanism:
            case "include":
                result = await self.check_host(name)
                if result is Result.NONE or result is Result.PERMERROR:
                    raise _Stop(Result.PERMERROR)  # section 5.2
                return result is Result.PASS
            case "a":
                return self._is_near(await self._addresses(name), directive)
            case "mx":
                return await self._is_exchanger(name, directive)
            case "exists":
                return bool(self._taken(await self._resolver.ipv4(name)))
            case _:
                return await self._is_named(name)

    async def _is_exchanger(self, name: str, directive: Directive) -> bool:
        hosts = [exchanger.host for exchanger in self._taken(await self._resolver.mail_exchangers(name)) if exchanger.host]
        if len(hosts) > _MAX_NAMES:
            raise _Stop(Result.PERMERROR)
        for host in hosts:
            if self._is_near(await self._addresses(host, is_counted=False), directive):
                return True
        return False

    async def _is_named(self, name: str) -> bool:
        """The ptr mechanism (section 5.5); failures are no match."""
        pointers = await self._resolver.pointers(str(self._macros.address))
        wanted = [host for host in pointers.values[:_MAX_NAMES] if f".{host}".endswith(f".{name.lower()}")]
        forward = self._resolver.ipv4 if self._macros.address.version == 4 else self._resolver.ipv6
        answers = await asyncio.gather(*map(forward, wanted))
        return any(self._macros.address in answer.values for answer in answers)

    async def _addresses(self, name: str, *, is_counted: bool = True) -> tuple[IpAddress, ...]:
        ask = self._resolver.ipv4 if self._macros.address.version == 4 else self._resolver.ipv6
        return self._taken(await ask(name), is_counted=is_counted)

    def _is_near(self, addresses: tuple[IpAddress, ...], directive: Directive) -> bool:
        own = self._macros.address
        bits = directive.ipv4_bits if own.version == 4 else directive.ipv6_bits
        return any(own in ipaddress.ip_network(f"{address}/{bits}", strict=False) for address in addresses)

    def _taken(self, answer: DnsAnswer[T], *, is_counted: bool = True) -> tuple[T, ...]:
        if answer.outcome is Outcome.FAILED:
            raise _Stop(Result.TEMPERROR)
        if answer.outcome is Outcome.NONE and is_counted:
            self._in_vain += 1
            if self._in_vain > _MAX_IN_VAIN:
                raise _Stop(Result.PERMERROR)
        return answer.values

    def _count(self) -> None:
        self._lookups += 1
        if self._lookups > _MAX_LOOKUPS:
            raise _Stop(Result.PERMERROR)
