"""Passwords: SMTP users' as Argon2id hashes and SCRAM verifiers, smart hosts' on the way to KV SECRETS. Neither is part of a revision.

KV SECRETS is write-only for the api, so that a stolen api credential reads no password. The price: a smart host's password cannot be
brought back, by a rollback for instance; it has to be set again. A secret is written while the change's transaction is still open: a
broker that is away refuses the whole change, and nothing half-done stays.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import cache
from typing import Final

import msgspec
from argon2 import PasswordHasher
from sqlalchemy.ext.asyncio import AsyncConnection

from postern_api.errors import InvalidError
from postern_api.policy.repository import PolicyRepository
from postern_core.bus import Bus
from postern_core.bus.topology import KV_SECRETS
from postern_core.credentials import RouteSecret, route_secret_key
from postern_core.scram import verifier_of

MIN_PASSWORD_CHARACTERS: Final = 8
MAX_PASSWORD_BYTES: Final = 1024
# 19 MiB, two passes: the least that is recommended. Each login costs ingress-auth this much, so more would be a way to wear it out.
TIME_COST, MEMORY_KIB, PARALLELISM = 2, 19456, 1
_hashing = asyncio.Semaphore(2)


@dataclass(frozen=True, slots=True)
class UserPassword:
    """A new password of an SMTP user."""

    name: str
    password_hash: str
    scram: str = field(default="", repr=False)  # "": the password cannot be prepared as SCRAM asks for


@dataclass(frozen=True, slots=True)
class UserGone:
    """A deleted SMTP user: the hash goes too, and no rollback brings it back."""

    name: str


@dataclass(frozen=True, slots=True)
class NewAppPassword:
    """One more password of an SMTP user."""

    id: str
    user: str
    name: str
    password_hash: str


@dataclass(frozen=True, slots=True)
class AppPasswordRevoked:
    """One less; no rollback brings it back."""

    id: str


@dataclass(frozen=True, slots=True)
class RoutePassword:
    """New credentials for a route's smart hosts."""

    route: str
    secret: RouteSecret


@dataclass(frozen=True, slots=True)
class RoutePasswordGone:
    """The route needs no credentials any more."""

    route: str


CredentialChange = UserPassword | UserGone | NewAppPassword | AppPasswordRevoked | RoutePassword | RoutePasswordGone


async def new_password(name: str, password: str) -> UserPassword:
    """Everything that is kept of it; off the loop. InvalidError as `hash_password`."""
    password_hash = await hash_password(password)
    async with _hashing:
        try:
            verifier = await asyncio.to_thread(verifier_of, password)
        except ValueError:  # it holds what RFC 4013 prohibits: PLAIN and LOGIN work, SCRAM does not
            return UserPassword(name, password_hash)
    return UserPassword(name, password_hash, verifier.text())


async def hash_password(password: str) -> str:
    """Argon2id, PHC string; off the loop. InvalidError for a password that is too short or too long."""
    if len(password) < MIN_PASSWORD_CHARACTERS or len(password.encode()) > MAX_PASSWORD_BYTES:
        raise InvalidError(
            "invalid_password",
            f"a password has at least {MIN_PASSWORD_CHARACTERS} characters and at most {MAX_PASSWORD_BYTES} bytes",
        )
    if "\0" in password:
        raise InvalidError("invalid_password", "a password holds no NUL (RFC 4616 section 2)")
    async with _hashing:
        return await asyncio.to_thread(_hasher().hash, password)


@cache
def _hasher() -> PasswordHasher:
    return PasswordHasher(time_cost=TIME_COST, memory_cost=MEMORY_KIB, parallelism=PARALLELISM)


async def write(change: CredentialChange, connection: AsyncConnection, repository: PolicyRepository, bus: Bus) -> None:
    """Carry out one change inside the transaction of `connection`. TransientError when KV SECRETS cannot be written."""
    match change:
        case UserPassword():
            await repository.set_password_hash(connection, change.name, change.password_hash, change.scram)
        case UserGone():
            await repository.forget_password_hashes(connection, [change.name])
            await repository.app_passwords.forget(connection, [change.name])
        case NewAppPassword():
            await repository.app_passwords.add(connection, change.id, change.user, change.name, change.password_hash)
        case AppPasswordRevoked():
            await repository.app_passwords.revoke(connection, change.id)
        case RoutePassword():
            await repository.note_route_password(connection, change.route, change.secret.user)
            await bus.kv_put(KV_SECRETS, route_secret_key(change.route), msgspec.json.encode(change.secret))
        case RoutePasswordGone():
            await repository.forget_route_password(connection, change.route)
            await bus.kv_put(KV_SECRETS, route_secret_key(change.route), b"")
