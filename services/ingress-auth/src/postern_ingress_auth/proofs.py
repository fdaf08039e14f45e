"""Logins in which no password arrives: SCRAM-SHA-256 (RFC 5802, RFC 7677) and client certificates (SASL EXTERNAL, RFC 4422 appendix A).

Who does not exist, has no verifier or is disabled looks like anybody else until his proof fails: he gets a salt of his own, the same at every
replica and at every time, since it is made from a secret that they share (KV USERS). Failures count as those of passwords do.
"""

from __future__ import annotations

import secrets
from abc import abstractmethod
from collections.abc import Sequence

import msgspec
import structlog

from postern_core.bus import Bus
from postern_core.bus.topology import KV_USERS
from postern_core.credentials import DECOY_KEY, CertificateOwner, SmtpUser, certificate_key
from postern_core.errors import Reply, TransientError
from postern_core.scram import Verifier, decoy, parse_verifier
from postern_ingress_auth.users import certificate_credential, main_credential
from postern_smtp import replies
from postern_smtp.gate import Login

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Proofs:
    """See the module. What depends on how failures are counted is the subclass's."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._decoy_secret = b""
        self._own_secret = secrets.token_bytes(32)  # while there is none in KV USERS

    @abstractmethod
    async def _find(self, name: str) -> SmtpUser | None:
        """The user as he is now, None when there is none. TransientError when he cannot be read."""

    @abstractmethod
    def _is_turned_away(self, client_address: str, name: str = "") -> bool:
        """Whether who tries has failed so often that he is not heard."""

    @abstractmethod
    def _welcome(self, user: SmtpUser, name: str, client_address: str, credential: str = "") -> Login:
        """Note that he is here, by this credential (postern_ingress_auth.users)."""

    @abstractmethod
    async def _refuse(self, user: SmtpUser | None, name: str, client_address: str) -> Reply:
        """Count the failure, and hold the answer back."""

    async def verifier(self, name: str, client_address: str) -> Verifier | Reply:
        """What to check the proof of this user against, or the reply that refuses."""
        if self._is_turned_away(client_address, name):
            return replies.AUTH_THROTTLED
        try:
            secret = await self._secret()
            user = await self._find(name)
        except TransientError as error:
            return _unverified(error, client_address)
        if user is not None and user.scram:
            try:
                return parse_verifier(user.scram)
            except ValueError as error:
                log.error("user.verifier_unreadable", user=user.name, reason=str(error))
        return decoy(secret, name)

    async def proven(self, name: str, is_right: bool, client_address: str) -> Login | Reply:
        """Who it is, or the reply that refuses, when a proof was checked."""
        if self._is_turned_away(client_address, name):
            return replies.AUTH_THROTTLED
        try:
            user = await self._find(name)
        except TransientError as error:
            return _unverified(error, client_address)
        if is_right and user is not None and user.enabled:
            return self._welcome(user, name, client_address, main_credential(user))
        return await self._refuse(user, name, client_address)

    async def certified(self, names: Sequence[str], user: str, client_address: str) -> Login | Reply:
        """Whose certificate it is, or the reply that refuses. `names` are those in the certificate, which was verified; `user` is whom the
        client says he is, "" when it says nothing."""
        shown = user or (names[0] if names else "")
        if self._is_turned_away(client_address, shown):
            return replies.AUTH_THROTTLED
        try:
            owner = user or await self._owner(names)
            found = await self._find(owner) if owner else None
        except TransientError as error:
            return _unverified(error, client_address)
        his = [name for name in names if found is not None and name in found.certificates]
        if found is not None and found.enabled and his:
            return self._welcome(found, shown, client_address, certificate_credential(his[0]))
        return await self._refuse(found, shown, client_address)

    async def _owner(self, names: Sequence[str]) -> str:
        for name in names:
            data = await self._bus.kv_get(KV_USERS, certificate_key(name))
            if data is not None:
                try:
                    return msgspec.json.decode(data, type=CertificateOwner).user
                except msgspec.DecodeError as error:
                    reason = f"certificate entry does not decode: {error}"
                    raise TransientError(454, "4.7.0", "cannot check credentials now", reason=reason) from error
        return ""

    async def _secret(self) -> bytes:
        if not self._decoy_secret:
            self._decoy_secret = await self._bus.kv_get(KV_USERS, DECOY_KEY) or b""
        return self._decoy_secret or self._own_secret


def _unverified(error: TransientError, client_address: str) -> Reply:
    log.warning("user.unverified", client=client_address, reason=error.reason)
    return replies.AUTH_UNAVAILABLE
