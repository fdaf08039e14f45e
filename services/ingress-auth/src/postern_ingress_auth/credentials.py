"""Verifies a name and a password against KV USERS: argon2id (RFC 9106), off the event loop, a few at a time.

A password that looks like an app-password (`AppPassword`) names the one hash that it is compared with, any other is compared with the user's
own: one verification a try, however many app-passwords he has. An unknown user, a disabled one and a wrong password cost the same time and get the same `535 5.7.8`: where there is no user, a hash with the
parameters of the users' hashes is verified, else the time would tell who exists. When the bus is away or too many
wait, the answer is `454 4.7.0`: nobody is let in unverified. Neither names of unknown users nor passwords are logged.
"""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import argon2
import structlog

from postern_core.bus import Bus
from postern_core.credentials import APP_PASSWORD, SmtpUser
from postern_core.errors import Reply, TransientError
from postern_core.notices import NoticeKind, TellNotice
from postern_ingress_auth.proofs import Proofs
from postern_ingress_auth.shared import Shared
from postern_ingress_auth.throttle import name_key
from postern_ingress_auth.users import Users, app_credential, app_password_id, main_credential
from postern_smtp import replies
from postern_smtp.gate import Login
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


class UserCredentials(Proofs):
    """The authenticator of the gate (postern_smtp.gate.Authenticator)."""

    def __init__(self, bus: Bus, users: Users, shared: Shared, *, concurrency: int, max_attempts: int) -> None:
        super().__init__(bus)
        self.max_attempts = max_attempts
        self._users = users
        self._shared = shared
        self._notice: TellNotice | None = None
        # a pool of its own: also a client that hangs up meanwhile keeps its place until its verification is over
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="argon2")
        self._hasher = argon2.PasswordHasher()
        self._parameters = _USUAL
        self._nobody = SmtpUser(name="", password_hash=_hash_of_nobody(_USUAL))

    def attach(self, notice: TellNotice) -> None:
        """Whom to tell of guesses."""
        self._notice = notice

    async def verify(self, name: str, password: str, client_address: str) -> Login | Reply:
        """Who it is, or the reply that refuses."""
        loop = asyncio.get_running_loop()
        if self._is_turned_away(client_address, name):
            return replies.AUTH_THROTTLED
        try:
            user = await self._find(name) or self._nobody
            password_hash, credential = _asked_for(user, password)
            async with asyncio.timeout(_PATIENCE_S):
                matches = await loop.run_in_executor(self._pool, self._matches, user, password_hash, password)
        except (TransientError, TimeoutError) as error:
            log.warning("user.unverified", client=client_address, reason=getattr(error, "reason", "too many wait"))
            return replies.AUTH_UNAVAILABLE
        if matches and user.enabled and user.name:
            return self._welcome(user, name, client_address, credential)
        return await self._refuse(user if user.name else None, name, client_address)

    async def _find(self, name: str) -> SmtpUser | None:
        known = await self._users.read(name)
        return known.user if known is not None else None

    def _is_turned_away(self, client_address: str, name: str = "") -> bool:
        """Whether the network, or whoever tries this name, has failed so often that he is not heard."""
        if not self._shared.is_blocked(client_network(client_address), name):
            return False
        log.warning("user.throttled", client=client_address)
        return True

    def _welcome(self, user: SmtpUser, name: str, client_address: str, credential: str = "") -> Login:
        """Note that he is here."""
        self._shared.succeeded(client_network(client_address), name)
        if (password_id := app_password_id(credential)) is not None:
            self._shared.used(user.name, password_id)
        return Login(user.name, credential)

    async def _refuse(self, user: SmtpUser | None, name: str, client_address: str) -> Reply:
        """Count the failure, tell of it when it is one of many, and hold the answer back."""
        exists = user is not None
        slowed = self._shared.failed(client_network(client_address), name, exists=exists)
        log.warning("user.refused", client=client_address, delay_s=slowed.delay_s)
        for key in slowed.told:
            # who types his password where the name belongs must not read it in an alert
            about = key.partition(":")[2] if exists or key != name_key(name) else "unknown user"
            log.warning("user.guessed_at", client=client_address, about=about)
            if self._notice is not None:
                self._notice(NoticeKind.AUTHENTICATION_BURST, about, client=client_address, delay_s=slowed.delay_s)
        await asyncio.sleep(slowed.delay_s)
        return replies.BAD_CREDENTIALS

    def _matches(self, user: SmtpUser, password_hash: str, password: str) -> bool:
        try:
            if user.name and (parameters := argon2.extract_parameters(password_hash)) != self._parameters:
                self._parameters = parameters
                self._nobody = SmtpUser(name="", password_hash=_hash_of_nobody(parameters))
            return self._hasher.verify(password_hash, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False


def _asked_for(user: SmtpUser, password: str) -> tuple[str, str]:
    """The hash to compare `password` with, and the name of that credential."""
    if found := APP_PASSWORD.fullmatch(password):
        for each in user.app_passwords:
            if each.id == found[1]:
                return each.password_hash, app_credential(each.id)
    return user.password_hash, main_credential(user)


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
