"""TLS for the server side: certificates chosen by the name that the client asks for (SNI), read again when their files change.

TLS 1.2 or newer (RFC 8996, RFC 9325); the policy may ask for more, and new handshakes do as it says. A pair that does not load leaves the
last good one in force. Every handshake begins in `context`, which stays the same for the life of the gate and hands over to the context of
the certificate that fits.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from postern_core.control import CertificateStatus
from postern_core.errors import ConfigurationError
from postern_core.notices import NoticeKind, TellNotice
from postern_core.policy import CipherFloor, ListenerTls, TlsVersion
from postern_smtp.certificate_facts import read_facts
from postern_smtp.tls_pairs import ByName, Loaded, Pair, Stamp, pairs_in, stamp

log: structlog.stdlib.BoundLogger = structlog.get_logger()

EXPIRES_SOON: Final = timedelta(days=30)
_TOLD_EVERY: Final = timedelta(days=1)
_LOOK_S: Final = 30.0
_NOBODY: Final = "!aNULL:!eNULL:!aDSS:!AESCCM"
# of TLS 1.2; those of 1.3 are all AEAD, and which of them are taken cannot be said here (`is_too_weak`)
_CIPHERS: Final = {
    CipherFloor.STANDARD: f"@SECLEVEL=2:ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:DHE+AES:!SHA1:{_NOBODY}",
    CipherFloor.AEAD: f"@SECLEVEL=2:ECDH+AESGCM:ECDH+CHACHA20:DHE+AESGCM:DHE+CHACHA20:{_NOBODY}",
    CipherFloor.BITS_256: f"@SECLEVEL=2:ECDH+AES256+AESGCM:ECDH+CHACHA20:DHE+AES256+AESGCM:DHE+CHACHA20:{_NOBODY}",
}
_VERSIONS: Final = {TlsVersion.TLS_1_2: ssl.TLSVersion.TLSv1_2, TlsVersion.TLS_1_3: ssl.TLSVersion.TLSv1_3}


class ServerTls:
    """The certificates of a gate. `notice` is told of what an administrator has to know; it is set when there is somebody to tell."""

    def __init__(
        self, certificate: Path, key: Path, *, directory: Path | None = None, client_authorities: Path | None = None
    ) -> None:
        """The pair is for clients that name no host, or one that no certificate names; `directory` holds further ones. With
        `client_authorities`, clients are asked for a certificate of theirs. ConfigurationError when the pair, or that file, cannot be used."""
        self._default = Pair(certificate, key)
        self._directory = directory
        self._authorities = client_authorities
        self._authorities_seen: Stamp | None = None
        self._policy = ListenerTls()
        self._hostname = ""
        self._loaded: dict[Pair, Loaded] = {}
        self._by_name = ByName(())
        self._told: dict[tuple[NoticeKind, Path, str], datetime] = {}
        self.notice: TellNotice = _nobody_to_tell
        self.context = _context(self._policy, asks_client=client_authorities is not None)
        self.context.sni_callback = self._choose
        self.reload_if_changed()
        default = self._loaded[self._default]
        if default.context is None:
            raise ConfigurationError(f"certificate {certificate} with key {key}: {default.problem}")

    # --- what the policy says

    def follow(self, policy: ListenerTls, hostname: str) -> None:
        """Do as `policy` says from the next handshake on; `hostname` is how the gate calls itself."""
        if policy != self._policy:
            self._policy = policy
            for context in (self.context, *(each.context for each in self._loaded.values() if each.context is not None)):
                _obey(context, policy)
        if hostname != self._hostname:
            self._hostname = hostname
            if not self._is_named(hostname):
                log.warning("certificate.name_differs", hostname=hostname, names=self._loaded[self._default].facts.names)

    def _is_named(self, hostname: str) -> bool:
        return not hostname or self._by_name.find(hostname) is not None

    # --- handshakes

    def _choose(self, connection: ssl.SSLSocket | ssl.SSLObject, host: str | None, _: ssl.SSLContext) -> None:
        # RFC 6066 section 3: a name that is not known need not be an error, and many clients send one that nobody chose
        fitting = self._by_name.find(host) if host else None
        connection.context = fitting or self._loaded[self._default].context  # type: ignore[assignment]  # one is there from the start

    # --- files

    async def watch(self, stop: asyncio.Event) -> None:
        """Look every 30 seconds whether files have changed, and tell of what is wrong with them, until `stop`."""
        while not stop.is_set():
            self.tell(datetime.now(UTC))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await stop.wait()
            changed = await asyncio.to_thread(self._changed)
            if changed:
                self._take(*await asyncio.to_thread(self._load, changed))

    def reload_if_changed(self) -> None:
        """Take changed files into use for handshakes from now on."""
        changed = self._changed()
        if changed:
            self._take(*self._load(changed))

    def _pairs(self) -> list[Pair]:
        more = pairs_in(self._directory) if self._directory is not None else []
        return list(dict.fromkeys((self._default, *more)))

    def _changed(self) -> list[Pair] | None:
        """All pairs that there are when there is something to do, else None."""
        pairs = self._pairs()
        is_as_before = pairs == list(self._loaded) and self._authorities_stamp() == self._authorities_seen
        if is_as_before and all(self._loaded[pair].stamps == pair.stamps() for pair in pairs):
            return None
        return pairs

    def _authorities_stamp(self) -> Stamp | None:
        if self._authorities is None:
            return None
        try:
            return stamp(self._authorities)
        except OSError:
            return self._authorities_seen  # the last good ones stay

    def _load(self, pairs: Sequence[Pair]) -> tuple[dict[Pair, Loaded], Stamp | None]:
        """Everything anew; what does not load keeps what it had."""
        authorities = self._authorities_stamp()
        loaded = {pair: self._load_one(pair) for pair in pairs}
        fresh = [each for each in loaded.values() if not each.problem]
        for each, facts in zip(fresh, read_facts([each.pair.certificate for each in fresh]), strict=True):
            each.facts = facts
        return loaded, authorities

    def _load_one(self, pair: Pair) -> Loaded:
        before, stamps = self._loaded.get(pair, Loaded(pair)), pair.stamps()
        try:
            context = _context(self._policy, asks_client=self._authorities is not None)
            if self._authorities is not None:
                context.load_verify_locations(self._authorities)
            context.load_cert_chain(pair.certificate, pair.key, password=_no_password)
        except (OSError, ssl.SSLError) as error:
            return Loaded(pair, before.facts, before.context, stamps, str(error) or type(error).__name__)
        return Loaded(pair, context=context, stamps=stamps)

    def _take(self, loaded: dict[Pair, Loaded], authorities: Stamp | None) -> None:
        before, self._loaded, self._authorities_seen = self._loaded, loaded, authorities
        self._by_name = ByName(loaded.values())
        for pair, each in loaded.items():
            if each.context is not None:
                _obey(each.context, self._policy)  # it may have changed while files were read
            old = before.get(pair)
            if old is not None and old.stamps == each.stamps and old.problem == each.problem:
                continue
            if each.problem:
                log.error("certificate.refused", certificate=str(pair.certificate), reason=each.problem)
            else:
                ends = each.facts.not_after
                log.info("certificate.loaded", certificate=str(pair.certificate), names=each.facts.names, not_after=ends)

    # --- what is told

    def status(self, now: datetime) -> tuple[CertificateStatus, ...]:
        """What the api shows: the default one first."""
        return tuple(
            CertificateStatus(
                file=str(each.pair.certificate),
                names=each.facts.names,
                not_after=each.facts.not_after,
                problem=self._problem(each, now),
            )
            for each in self._loaded.values()
        )

    def _problem(self, loaded: Loaded, now: datetime) -> str:
        facts = loaded.facts
        if loaded.problem:
            return f"the files as they are cannot be used: {loaded.problem}"
        if facts.error:
            return f"what it says is not known: {facts.error}"
        if facts.not_after is not None and facts.not_after <= now:
            return "it has expired"
        if facts.not_before is not None and facts.not_before > now:
            return "it is not valid yet"
        if loaded.pair == self._default and not self._is_named(self._hostname):
            return f"no certificate names {self._hostname}, as which this gate answers"
        return ""

    def tell(self, now: datetime) -> None:
        """Tell of pairs that are not in use, once, and of those that have expired or soon will, once a day."""
        for each in self._loaded.values():
            file, ends = each.pair.certificate, each.facts.not_after
            if each.problem and self._is_news((NoticeKind.TLS_FAILED, file, each.problem), now, again=None):
                self.notice(NoticeKind.TLS_FAILED, str(file), reason=each.problem)
            if ends is None or ends - now > EXPIRES_SOON:
                continue
            if self._is_news((NoticeKind.CERTIFICATE_EXPIRING, file, str(ends)), now, again=_TOLD_EVERY):
                days = (ends - now) // timedelta(days=1)
                log.warning("certificate.expiring", certificate=str(file), not_after=ends, days_left=days)
                self.notice(NoticeKind.CERTIFICATE_EXPIRING, str(file), days_left=days, not_after=ends.isoformat())

    def _is_news(self, what: tuple[NoticeKind, Path, str], now: datetime, *, again: timedelta | None) -> bool:
        before = self._told.get(what)
        if before is not None and (again is None or now - before < again):
            return False
        self._told[what] = now
        return True


def is_too_weak(cipher_bits: int, policy: ListenerTls) -> bool:
    """Whether a session's cipher is below the floor: OpenSSL's own choice of ciphers cannot be narrowed for TLS 1.3 (before Python 3.15).
    It prefers 256 bits, so that this is about clients that can do no better."""
    return policy.ciphers is CipherFloor.BITS_256 and cipher_bits < 256


def _context(policy: ListenerTls, *, asks_client: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    if asks_client:
        context.verify_mode = ssl.CERT_OPTIONAL  # one that is shown has to be good, else the handshake fails
        context.options |= ssl.OP_NO_TICKET  # a resumed session would not have its certificate looked at again
        context.num_tickets = 0
    _obey(context, policy)
    return context


def _obey(context: ssl.SSLContext, policy: ListenerTls) -> None:
    context.minimum_version = _VERSIONS[policy.min_version]
    context.set_ciphers(_CIPHERS[policy.ciphers])


def _nobody_to_tell(kind: NoticeKind, about: str, **fields: str | int | float | bool) -> None:
    """Before the gate runs; what is still so then is told by `watch`."""


def _no_password() -> str:
    # else OpenSSL would ask on the terminal
    raise ssl.SSLError("the key is encrypted: give it without a passphrase")
