"""TLS for the server side: one context, TLS 1.2 or newer (RFC 8996), whose certificate is read again when its files change."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Final

import structlog

from postern_core.errors import ConfigurationError

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_LOOK_S: Final = 30.0


class ServerTls:
    """A context and the files behind it."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """ConfigurationError when the two do not make a certificate."""
        self._certificate = certificate
        self._key = key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
        try:
            self._seen = self._stamps()
            self._read()
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"certificate {certificate} with key {key}: {error}") from error

    async def watch(self, stop: asyncio.Event) -> None:
        """Look every 30 seconds whether the files have changed, until `stop`. A pair that does not fit leaves the old one in force."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await stop.wait()
            self.reload_if_changed()

    def reload_if_changed(self) -> None:
        """Take a changed certificate into use for handshakes from now on."""
        try:
            stamps = self._stamps()
            if stamps == self._seen:
                return
            # first apart: a pair caught between the writing of its two files must not spoil the context in use
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._certificate, self._key, password=_no_password)
            self._read()
        except (OSError, ssl.SSLError) as error:
            log.error("certificate.refused", certificate=str(self._certificate), reason=str(error))
            return
        self._seen = stamps
        log.info("certificate.loaded", certificate=str(self._certificate))

    def _read(self) -> None:
        self.context.load_cert_chain(self._certificate, self._key, password=_no_password)

    def _stamps(self) -> tuple[int, int]:
        return self._certificate.stat().st_mtime_ns, self._key.stat().st_mtime_ns


def _no_password() -> str:
    # else OpenSSL would ask on the terminal
    raise ssl.SSLError("the key is encrypted: give it without a passphrase")
