"""DMARC: whether a domain that passed stands for the author's, and what the author's domain asks for if none does.

RFC 7489, with what its successor (DMARCbis) changed: the organizational domain is found by a walk up the tree of DNS, which needs no list of public
suffixes; `np=`, `psd=` and `t=`; no `pct=` (0 counts as `t=y`). No reports are sent.
"""

from __future__ import annotations

import asyncio
import email.errors
import email.utils
import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from postern_core.policy.domains import normalise_domain
from postern_smtp.mail_authentication.fields import SignedMessage
from postern_smtp.mail_authentication.results import Result
from postern_smtp.resolver import Outcome, Resolver

_MAX_LABELS: Final = 8  # a walk asks at most so many names
_MAX_FROM_OCTETS: Final = 16_384
_MAX_FROM_ADDRESSES: Final = 50


class Asked(enum.StrEnum):
    """What the author's domain asks for."""

    NONE = "none"
    QUARANTINE = "quarantine"
    REJECT = "reject"


_LESS: Final = {Asked.REJECT: Asked.QUARANTINE, Asked.QUARANTINE: Asked.NONE, Asked.NONE: Asked.NONE}


@dataclass(frozen=True, slots=True)
class DmarcResult:
    """`asked` is what holds for this domain."""

    result: Result
    author_domain: str = ""
    asked: Asked = Asked.NONE
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DmarcRecord:
    """A DMARC record (RFC 7489 section 6.3)."""

    policy: Asked
    subdomain_policy: Asked
    missing_policy: Asked
    spf_strict: bool = False
    dkim_strict: bool = False
    psd: str = "u"


@dataclass(frozen=True, slots=True)
class _Walk:
    """What the tree says of a domain. `organizational` is the domain itself when there is no record."""

    own: DmarcRecord | None
    organizational: str
    above: DmarcRecord | None
    is_known: bool  # DNS answered each question


async def check_dmarc(message: SignedMessage, resolver: Resolver, *, spf_domain: str, dkim_domains: Iterable[str]) -> DmarcResult:
    """`spf_domain` and `dkim_domains` are those that passed. Never raises."""
    author = author_domain(message)
    if author is None:
        return DmarcResult(Result.PERMERROR, reason="no single author")
    walk = await _walk(author, resolver)
    record = walk.own or walk.above
    if record is None:
        return DmarcResult(Result.NONE if walk.is_known else Result.TEMPERROR, author)
    for domain, is_strict in ((spf_domain, record.spf_strict), *((domain, record.dkim_strict) for domain in dkim_domains)):
        if domain and await _is_aligned(domain, author, walk, resolver, is_strict=is_strict):
            return DmarcResult(Result.PASS, author, await _asked(author, walk, record, resolver))
    return DmarcResult(Result.FAIL, author, await _asked(author, walk, record, resolver))


async def _asked(author: str, walk: _Walk, record: DmarcRecord, resolver: Resolver) -> Asked:
    if walk.own is not None:
        return record.policy
    if record.missing_policy is not record.subdomain_policy:
        answer = await resolver.ipv4(author)
        if answer.outcome is Outcome.NONE and not answer.name_exists:
            return record.missing_policy
    return record.subdomain_policy


async def _is_aligned(domain: str, author: str, walk: _Walk, resolver: Resolver, *, is_strict: bool) -> bool:
    if domain == author:
        return True
    if is_strict or not f".{domain}".endswith(f".{walk.organizational}"):
        return False
    return (await _walk(domain, resolver)).organizational == walk.organizational


async def _walk(domain: str, resolver: Resolver) -> _Walk:
    """The records at `domain` and above it, all asked at once, and what follows from them."""
    labels = domain.split(".")
    lengths = [len(labels), *range(min(len(labels) - 1, _MAX_LABELS - 1), 0, -1)]
    names = [".".join(labels[-length:]) for length in lengths]
    answers = await asyncio.gather(*(resolver.texts(f"_dmarc.{name}") for name in names))
    found = {name: record for name, answer in zip(names, answers, strict=True) if (record := _single(answer.values)) is not None}
    is_known = all(answer.outcome is not Outcome.FAILED for answer in answers)
    organizational = _organizational(domain, names, found)
    above = found.get(organizational)
    if above is None and found:
        above = next(iter(found.values()))  # of a public suffix
    own = found.get(domain)
    if own is None and answers[0].outcome is Outcome.FAILED:
        above = None  # nobody knows which of them holds
    return _Walk(own, organizational, above, is_known)


def _organizational(domain: str, names: list[str], found: dict[str, DmarcRecord]) -> str:
    """From the bottom to the top: a record with psd=n ends the walk at its domain, one with psd=y one label below; else the topmost with a record."""
    best = domain
    for k, name in enumerate(names):
        record = found.get(name)
        if record is None:
            continue
        if record.psd == "n":
            return name
        if record.psd == "y" and k > 0:
            return names[k - 1]
        best = name
    return best


def _single(texts: Iterable[bytes]) -> DmarcRecord | None:
    records = [record for record in map(parse_dmarc, texts) if record is not None]
    return records[0] if len(records) == 1 else None  # RFC 7489 section 6.6.3: of more than one, none


def parse_dmarc(text: bytes) -> DmarcRecord | None:
    """None for what is no DMARC record."""
    tags = [(key.strip().lower(), value.strip()) for key, _, value in (item.partition(b"=") for item in text.split(b";"))]
    if tags[0] != (b"v", b"DMARC1"):
        return None
    words = {key: value.lower().decode("ascii", "replace") for key, value in tags}  # what is no tag is passed over (section 6.3)
    policy = _word(words.get(b"p"))
    if policy is None:
        if b"rua" not in words:
            return None
        policy = Asked.NONE
    subdomain = _word(words.get(b"sp")) or policy
    missing = _word(words.get(b"np")) or subdomain
    if words.get(b"t") == "y" or words.get(b"pct") == "0":
        policy, subdomain, missing = _LESS[policy], _LESS[subdomain], _LESS[missing]
    return DmarcRecord(
        policy=policy,
        subdomain_policy=subdomain,
        missing_policy=missing,
        spf_strict=words.get(b"aspf") == "s",
        dkim_strict=words.get(b"adkim") == "s",
        psd=words.get(b"psd", "u"),
    )


def _word(text: str | None) -> Asked | None:
    return Asked(text) if text in set(Asked) else None


def author_domain(message: SignedMessage) -> str | None:
    """The domain of From:; None when there is no such field, more than one, or addresses of more than one domain (RFC 7489 section 6.6.1)."""
    fields = message.named(b"from")
    if len(fields) != 1 or len(fields[0].raw) > _MAX_FROM_OCTETS:
        return None
    text = fields[0].value.decode("utf-8", "replace").replace("\r\n", "")
    if text.count("@") > _MAX_FROM_ADDRESSES:
        return None
    try:
        addresses = [address for _, address in email.utils.getaddresses([text])]
        domains = {normalise_domain(address.rpartition("@")[2]) for address in addresses}
    except (ValueError, IndexError, email.errors.MessageError):
        return None
    if not all("@" in address for address in addresses):
        return None
    return domains.pop() if len(domains) == 1 else None
