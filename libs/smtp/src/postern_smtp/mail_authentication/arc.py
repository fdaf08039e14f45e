"""ARC: what those say who changed a message on its way, each sealed over what came before (RFC 8617 section 5.2).

The newest message signature and every seal are checked; at most fifty sets (section 4.2.1).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from postern_smtp.mail_authentication.dkim import Signature, check_signature, decode, hash_bodies, parse_signature
from postern_smtp.mail_authentication.fields import (
    HeaderField,
    SignedMessage,
    compact,
    parse_tags,
    signed_header,
    without_signature,
)
from postern_smtp.mail_authentication.results import Result
from postern_smtp.resolver import Resolver, host_name

_MAX_SETS: Final = 50
_RESULTS: Final = b"arc-authentication-results"
_SIGNATURE: Final = b"arc-message-signature"
_SEAL: Final = b"arc-seal"
_INSTANCE: Final = re.compile(rb"\s*i\s*=\s*(\d{1,2})\s*;")
_DMARC_PASSED: Final = re.compile(rb";\s*dmarc\s*=\s*pass\b", re.IGNORECASE)
_COMMENT: Final = re.compile(rb"\([^()]*\)")


@dataclass(frozen=True, slots=True)
class ArcResult:
    """Of the chain. `sealers` are the domains that sealed it, the newest first, when it passes, and then only."""

    result: Result
    sealers: tuple[str, ...] = ()
    dmarc_passed: bool = False  # as the newest sealer saw it
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Set:
    results: HeaderField
    signature: HeaderField
    seal: HeaderField


async def check_arc(message: SignedMessage, resolver: Resolver, now: float) -> ArcResult:
    """See the module. Never raises."""
    sets = _sets(message)
    if sets is None:
        return ArcResult(Result.FAIL, reason="the sets are not complete")
    if not sets:
        return ArcResult(Result.NONE)
    seals = [parse_seal(each.seal, first=k == 0) for k, each in enumerate(sets)]
    newest = parse_signature(sets[-1].signature, now, is_arc=True)
    if newest is None or newest.flaw or _SEAL in newest.names:
        return ArcResult(Result.FAIL, reason="the newest signature cannot be taken")
    await hash_bodies(message, [newest.body_form])
    if message.body_hashes[newest.body_form] != newest.body_hash:
        return ArcResult(Result.FAIL, reason="the body has changed")
    signed: list[tuple[Signature, bytes]] = [(newest, _signed_by(newest, message))]
    for k, seal in enumerate(seals):
        if seal is None:
            return ArcResult(Result.FAIL, reason=f"seal {k + 1} does not say that the chain is whole")
        signed.append((seal, _sealed(sets[: k + 1])))
    outcomes = await asyncio.gather(*(check_signature(signature, data, resolver) for signature, data in signed))
    for outcome, reason in outcomes:
        if outcome is not Result.PASS:
            return ArcResult(Result.TEMPERROR if outcome is Result.TEMPERROR else Result.FAIL, reason=reason)
    sealers = tuple(seal.domain for seal in reversed(seals) if seal is not None)
    return ArcResult(Result.PASS, sealers, _DMARC_PASSED.search(_without_comments(sets[-1].results.value)) is not None)


def _sets(message: SignedMessage) -> list[_Set] | None:
    """By instance, from 1 without a gap; None when they are not."""
    by_name: dict[bytes, dict[int, HeaderField]] = {_RESULTS: {}, _SIGNATURE: {}, _SEAL: {}}
    for field in message.fields or ():
        if field.name not in by_name:
            continue
        instance = _instance(field)
        if not 0 < instance <= _MAX_SETS or instance in by_name[field.name]:
            return None
        by_name[field.name][instance] = field
    most = max(map(len, by_name.values()))
    wanted = set(range(1, most + 1))
    if any(set(fields) != wanted for fields in by_name.values()):
        return None
    return [_Set(by_name[_RESULTS][k], by_name[_SIGNATURE][k], by_name[_SEAL][k]) for k in range(1, most + 1)]


def _instance(field: HeaderField) -> int:
    if field.name == _RESULTS:
        match = _INSTANCE.match(field.value)
        return int(match[1]) if match else 0
    tags: Mapping[bytes, bytes] = parse_tags(field.value) or {}
    text = tags.get(b"i", b"")
    return int(text) if text.isdigit() and len(text) <= 2 else 0


def parse_seal(field: HeaderField, *, first: bool) -> Signature | None:
    """A seal as a signature (section 4.1.3); None when it cannot be read, or does not say that all before it was right."""
    tags = parse_tags(field.value)
    if tags is None or any(tag not in tags for tag in (b"a", b"b", b"cv", b"d", b"s")) or b"h" in tags:
        return None
    domain, selector = host_name(tags[b"d"].decode("ascii", "replace")), host_name(tags[b"s"].decode("ascii", "replace"))
    value, algorithm = decode(tags[b"b"]), compact(tags[b"a"]).lower().decode("ascii", "replace")
    if not domain or not selector or value is None or algorithm not in ("rsa-sha256", "ed25519-sha256"):
        return None
    if tags[b"cv"].lower() != (b"none" if first else b"pass"):
        return None
    return Signature(field, domain, selector, algorithm, domain, b"relaxed", b"relaxed", b"", value, ())


def _signed_by(signature: Signature, message: SignedMessage) -> bytes:
    is_relaxed = signature.header_form == b"relaxed"
    own = HeaderField(b"", without_signature(signature.field.raw))
    chosen = signed_header(message.fields or (), signature.names, is_relaxed=is_relaxed)
    return b"".join((*chosen, own.relaxed() if is_relaxed else own.raw))


def _sealed(sets: Iterable[_Set]) -> bytes:
    """What the seal of the last of `sets` covers (section 5.1.1)."""
    *earlier, own = sets
    fields = [field for each in earlier for field in (each.results, each.signature, each.seal)]
    lines = [field.relaxed() for field in (*fields, own.results, own.signature)]
    return b"\r\n".join((*lines, HeaderField(b"", without_signature(own.seal.raw)).relaxed()))


def _without_comments(value: bytes) -> bytes:
    return _COMMENT.sub(b"", value)
