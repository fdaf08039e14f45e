"""DKIM: which domains signed a message (RFC 6376), with the algorithms of RFC 8301 and RFC 8463.

A signature that leaves a part of the body out (`l=`) is none that we take: whoever likes may add to such a message. Nor are those by SHA-1 or
with RSA keys below 1024 bits (RFC 8301), or above 4096. At most ten signatures are looked at, from the top.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from postern_smtp.mail_authentication.fields import (
    HeaderField,
    SignedMessage,
    compact,
    parse_tags,
    signed_header,
    without_signature,
)
from postern_smtp.mail_authentication.results import Result
from postern_smtp.resolver import Outcome, Resolver, host_name

MAX_SIGNATURES: Final = 10
_MAX_KEYS: Final = 3  # records of one selector that are tried
_RSA_BITS: Final = range(1024, 4097)
_FORMS: Final = (b"simple", b"relaxed")
_FUTURE_S: Final = 3600

PublicKey = RSAPublicKey | Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that can be read; `flaw` when it is none that we take."""

    field: HeaderField
    domain: str
    selector: str
    algorithm: str
    identity_domain: str
    header_form: bytes
    body_form: bytes
    body_hash: bytes
    value: bytes
    names: tuple[bytes, ...]
    flaw: str = ""
    flaw_result: Result = Result.POLICY

    @property
    def key_name(self) -> str:
        return f"{self.selector}._domainkey.{self.domain}"


@dataclass(frozen=True, slots=True)
class DkimResult:
    """Of one signature."""

    result: Result
    domain: str = ""
    selector: str = ""
    algorithm: str = ""
    signature: str = ""  # its first characters, which tell one of a domain from another
    reason: str = ""


async def check_dkim(message: SignedMessage, resolver: Resolver, now: float) -> list[DkimResult]:
    """A result for each signature; none when there is none."""
    if message.fields is None:
        return [DkimResult(Result.POLICY, reason="the header is too large")]
    fields = message.named(b"dkim-signature")[:MAX_SIGNATURES]
    read = [parse_signature(field, now) for field in fields]
    usable = [signature for signature in read if signature is not None and not signature.flaw]
    if usable:
        await hash_bodies(message, (signature.body_form for signature in usable))
    return list(await asyncio.gather(*(_checked(signature, message, resolver) for signature in read)))


async def hash_bodies(message: SignedMessage, forms: Iterable[bytes]) -> None:
    """Off the loop when that takes long."""
    if len(message.content) > 64 * 1024:
        await asyncio.to_thread(message.hash_bodies, list(forms))
    else:
        message.hash_bodies(forms)


async def _checked(signature: Signature | None, message: SignedMessage, resolver: Resolver) -> DkimResult:
    if signature is None:
        return DkimResult(Result.NEUTRAL, reason="the signature cannot be read")
    if signature.flaw:
        return _of(signature, signature.flaw_result, signature.flaw)
    if message.body_hashes[signature.body_form] != signature.body_hash:
        return _of(signature, Result.FAIL, "the body has changed")
    chosen = signed_header(message.fields or (), signature.names, is_relaxed=signature.header_form == b"relaxed")
    own = HeaderField(b"", without_signature(signature.field.raw))
    data = b"".join((*chosen, own.relaxed() if signature.header_form == b"relaxed" else own.raw))
    return _of(signature, *await check_signature(signature, data, resolver))


async def check_signature(signature: Signature, data: bytes, resolver: Resolver) -> tuple[Result, str]:
    """Whether `data` bears the signature, by the domain's key."""
    answer = await resolver.texts(signature.key_name)
    if answer.outcome is Outcome.FAILED:
        return Result.TEMPERROR, "no answer about the key"
    outcome = Result.PERMERROR, "there is no such key"
    for record in answer.values[:_MAX_KEYS]:
        key = parse_key(record, signature)
        if isinstance(key, str):
            outcome = Result.PERMERROR, key
        elif isinstance(key, RSAPublicKey) and key.key_size not in _RSA_BITS:
            outcome = Result.POLICY, f"a key of {key.key_size} bits"
        elif _verifies(key, signature.value, data):
            return Result.PASS, ""
        else:
            outcome = Result.FAIL, "the signature does not fit"
    return outcome


def _verifies(key: PublicKey, value: bytes, data: bytes) -> bool:
    digest = hashlib.sha256(data).digest()
    try:
        if isinstance(key, RSAPublicKey):
            key.verify(value, digest, PKCS1v15(), Prehashed(SHA256()))
        else:
            key.verify(value, digest)  # RFC 8463 section 3: the hash is what is signed
    except InvalidSignature:
        return False
    return True


def parse_key(record: bytes, signature: Signature) -> PublicKey | str:
    """The public key out of DNS (RFC 6376 section 3.6.1), or what is wrong with it."""
    tags = parse_tags(record)
    if tags is None or tags.get(b"v", b"DKIM1") != b"DKIM1":
        return "the key cannot be read"
    kind = tags.get(b"k", b"rsa").lower()
    encoded = compact(tags.get(b"p", b""))
    if not encoded:
        return "the key is revoked"
    if kind.decode("ascii", "replace") != signature.algorithm.partition("-")[0]:
        return "the key is of another kind"
    if b"h" in tags and b"sha256" not in _list(tags[b"h"]):
        return "the key is not for SHA-256"
    if not {b"*", b"email"} & set(_list(tags.get(b"s", b"*"))):
        return "the key is not for mail"
    if b"s" in _list(tags.get(b"t", b"")) and signature.identity_domain != signature.domain:
        return "the key is not for subdomains"
    try:
        der = base64.b64decode(encoded, validate=True)
        key = Ed25519PublicKey.from_public_bytes(der) if kind == b"ed25519" else load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "the key cannot be read"
    return key if isinstance(key, RSAPublicKey | Ed25519PublicKey) else "the key is of another kind"


def parse_signature(field: HeaderField, now: float, *, is_arc: bool = False) -> Signature | None:
    """A DKIM-Signature field, or with `is_arc` an ARC-Message-Signature (RFC 8617 section 4.1.2); None when it cannot be read."""
    tags = parse_tags(field.value)
    if tags is None or any(tag not in tags for tag in (b"a", b"b", b"bh", b"d", b"h", b"s")):
        return None
    domain, selector = host_name(tags[b"d"].decode("ascii", "replace")), host_name(tags[b"s"].decode("ascii", "replace"))
    header_form, _, body_form = compact(tags.get(b"c", b"simple/simple")).lower().partition(b"/")
    body_form = body_form or b"simple"
    value, body_hash = decode(tags[b"b"]), decode(tags[b"bh"])
    if not domain or not selector or value is None or body_hash is None or {header_form, body_form} - set(_FORMS):
        return None
    if not is_arc and tags.get(b"v") != b"1":
        return None
    identity = domain if is_arc else _identity_domain(tags, domain)
    names = tuple(name.lower() for name in _list(tags[b"h"]))
    algorithm = compact(tags[b"a"]).lower().decode("ascii", "replace")
    if identity is None or (b"from" not in names and not is_arc):
        return None
    flaw, flaw_result = _flaw(tags, algorithm, now)
    return Signature(
        field=field,
        domain=domain,
        selector=selector,
        algorithm=algorithm,
        identity_domain=identity,
        header_form=header_form,
        body_form=body_form,
        body_hash=body_hash,
        value=value,
        names=names,
        flaw=flaw,
        flaw_result=flaw_result,
    )


def _flaw(tags: Mapping[bytes, bytes], algorithm: str, now: float) -> tuple[str, Result]:
    if algorithm not in ("rsa-sha256", "ed25519-sha256"):
        return "an algorithm that is not taken", Result.POLICY
    if b"l" in tags:
        return "it leaves a part of the body out", Result.POLICY
    made, until = _seconds(tags.get(b"t")), _seconds(tags.get(b"x"))
    if until is not None and until < now:
        return "it has expired", Result.FAIL
    if made is not None and (made > now + _FUTURE_S or (until is not None and until < made)):
        return "it is from the future", Result.FAIL
    return "", Result.NONE


def _identity_domain(tags: Mapping[bytes, bytes], domain: str) -> str | None:
    """The domain of i=, which is `domain` or below it; None when it is not."""
    if b"i" not in tags:
        return domain
    identity = host_name(tags[b"i"].rpartition(b"@")[2].decode("ascii", "replace"))
    return identity if identity is not None and f".{identity}".endswith(f".{domain}") else None


def decode(value: bytes) -> bytes | None:
    """Base64 with white space in it."""
    try:
        return base64.b64decode(compact(value), validate=True)
    except (binascii.Error, ValueError):
        return None


def _list(value: bytes) -> list[bytes]:
    return [item for item in map(bytes.strip, value.split(b":")) if item]


def _seconds(value: bytes | None) -> int | None:
    return int(value) if value is not None and value.isdigit() and len(value) <= 12 else None


def _of(signature: Signature, result: Result, reason: str) -> DkimResult:
    encoded = base64.b64encode(signature.value).decode()
    return DkimResult(result, signature.domain, signature.selector, signature.algorithm, encoded[:8], reason)
