"""Verifies a name and a password against KV USERS: argon2id (RFC 9106), off the event loop, a few at a time.

An unknown user, a disabled one and a wrong password cost the same time and get the same `535 5.7.8`: where there is no user, a hash with the
parameters of the users' hashes is verified, else the time would tell who exists. When the bus is away or too many
wait, the answer is `454 4.7.0`: nobody is let in unverified. Neither names of unknown users nor passwords are logged.
"""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import argon2
import msgspec
import structlog

from postern_core.bus import Bus
from postern_core.bus.topology import KV_USERS
from postern_core.credentials import SmtpUser, user_key
from postern_core.errors import Reply, TransientError
from postern_ingress_auth.throttle import Throttle
from postern_smtp import replies
from postern_smtp.authentication import MECHANISMS
from postern_smtp.reception import client_network

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_PATIENCE_S: Final = 20.0  # for a free place to verify in, and the verification
# those that the api hashes with; what is found in a user's hash later replaces them
_USUAL: Final = argon2.Parameters(
    type=argon2.Type.ID,
    version=argon2.low_level.ARGON2_VERSION,
    salt_len=16,
    hash_len=32,
    time_cost=2,
    memory_cost=19456,
    parallelism=1,
)


class UserCredentials:
    """The authenticator of the gate (postern_smtp.gate.Authenticator)."""

    mechanisms = MECHANISMS

    def __init__(self, bus: Bus, throttle: Throttle, *, concurrency: int, max_attempts: int) -> None:
        self.max_attempts = max_attempts
        self._bus = bus
        self._throttle = throttle
        # a pool of its own: also a client that hangs up meanwhile keeps its place until its verification is over
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="argon2")
        self._hasher = argon2.PasswordHasher()
        self._parameters = _USUAL
        self._nobody = SmtpUser(name="", password_hash=_hash_of_nobody(_USUAL))

    async def verify(self, name: str, password: str, client_address: str) -> str | Reply:
        """The user's name as the administrator wrote it, or the reply that refuses."""
        loop = asyncio.get_running_loop()
        network = client_network(client_address)
        if self._throttle.is_blocked(network, loop.time()):
            log.warning("user.throttled", client=client_address)
            return replies.AUTH_THROTTLED
        try:
            user = await self._find(name)
            async with asyncio.timeout(_PATIENCE_S):
                known = await loop.run_in_executor(self._pool, self._matches, user, password)
        except (TransientError, TimeoutError) as error:
            log.warning("user.unverified", client=client_address, reason=getattr(error, "reason", "too many wait"))
            return replies.AUTH_UNAVAILABLE
        if known and user.enabled and user.name:
            self._throttle.succeeded(network, name)
            return user.name
        delay_s = self._throttle.failed(network, name, loop.time())
        log.warning("user.refused", client=client_address, delay_s=delay_s)
        await asyncio.sleep(delay_s)
        return replies.BAD_CREDENTIALS

    async def _find(self, name: str) -> SmtpUser:
        data = await self._bus.kv_get(KV_USERS, user_key(name))
        if data is None:
            return self._nobody
        try:
            return msgspec.json.decode(data, type=SmtpUser)
        except msgspec.DecodeError as error:
            raise TransientError(
                454, "4.7.0", "cannot check credentials now", reason=f"user entry does not decode: {error}"
            ) from error

    def _matches(self, user: SmtpUser, password: str) -> bool:
        try:
            if user.name and (parameters := argon2.extract_parameters(user.password_hash)) != self._parameters:
                self._parameters = parameters
                self._nobody = SmtpUser(name="", password_hash=_hash_of_nobody(parameters))
            return self._hasher.verify(user.password_hash, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False


def _hash_of_nobody(parameters: argon2.Parameters) -> str:
    """Of a password that nobody has; costs as much to verify as a user's with these parameters."""
    return argon2.low_level.hash_secret(
        secrets.token_bytes(16),
        secrets.token_bytes(parameters.salt_len),
        time_cost=parameters.time_cost,
        memory_cost=parameters.memory_cost,
        parallelism=parameters.parallelism,
        hash_len=parameters.hash_len,
        type=parameters.type,
    ).decode("ascii")
