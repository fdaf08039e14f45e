"""The NATS client, and what it needs to get in."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from nats.aio.client import Client as NatsClient

from postern_core.errors import ConfigurationError
from postern_core.settings import BusSettings


class Client(NatsClient):
    """The library's client, without two of its faults."""

    async def _process_pong(self) -> None:
        """A flush that timed out leaves its cancelled future behind. The library sets a result on it when the pong comes after all, which
        raises, and that ends the task that reads the connection: the service then hears nothing until the keep-alive gives up on it."""
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def publish(self, subject: str, payload: bytes = b"", reply: str = "", headers: dict[str, Any] | None = None) -> None:
        """Header values may be lists, as the client itself reads them: else it could not answer a request that has headers."""
        if headers is not None:
            headers = {name: value if isinstance(value, str) else value[0] for name, value in headers.items()}
        await super().publish(subject, payload, reply, headers)


def credentials(settings: BusSettings) -> tuple[str | None, ssl.SSLContext | None]:
    """Password and TLS context. ConfigurationError when a file cannot be used."""
    try:
        password = settings.nats_password()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"POSTERN_NATS_PASSWORD_FILE cannot be read: {error}") from error
    tls = None
    if settings.nats_ca_file is not None:
        try:
            tls = ssl.create_default_context(cafile=str(settings.nats_ca_file))
        except OSError as error:  # ssl.SSLError is one
            raise ConfigurationError(f"POSTERN_NATS_CA_FILE holds no CA certificates: {error}") from error
    return password.get_secret_value() if password else None, tls
