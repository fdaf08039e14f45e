"""Brings the bus to the newest revision: consumers of its routes, the three sections of KV POLICY, then SMTP users.

Idempotent, and run again until it has worked: after each change, at start, and every 30 seconds in case somebody restored the broker
or the database. The database is what counts. Secrets are not published here: they are written once, by the change itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from typing import Final

import msgspec
import nats.errors
import structlog
from sqlalchemy.exc import SQLAlchemyError

from postern_api.policy.compiling import INCOMPLETE, Compiled, compile_policy
from postern_api.policy.repository import PolicyRepository, Revision
from postern_core.bus import Bus
from postern_core.bus.provision import ensure_route
from postern_core.bus.topology import KV_POLICY, KV_USERS, OUTBOUND, BusLimits, delivery_consumer
from postern_core.credentials import DECOY_KEY, AppPassword, CertificateOwner, SmtpUser, certificate_key, user_key
from postern_core.errors import TransientError
from postern_core.policy import Section

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_CHECK_S: Final = 30.0
_RETRY_S: Final = 1.0
_AT_ONCE: Final = 16


class Publisher:
    """`live` is the newest revision known to be on the bus, 0 for none, and `live_routes` names its routes; `problem` says why the newest
    is not. `on_published` is called when another one went live."""

    def __init__(self, bus: Bus, repository: PolicyRepository, limits: BusLimits) -> None:
        self._bus = bus
        self._repository = repository
        self._limits = limits
        self._one_at_a_time = asyncio.Lock()
        self._wake = asyncio.Event()
        self._encoded: tuple[int, tuple[tuple[Section, bytes], ...]] = (0, ())
        self._users_at = (0, 0)  # (revision, last sequence of the bucket) when the users were last compared
        self.live = 0
        self.live_routes: tuple[str, ...] = ()
        self.problem = ""
        self.on_published: Callable[[], None] = lambda: None

    async def publish(self) -> bool:
        """Bring the bus to the newest revision; False when that did not work, and then the task goes on trying."""
        async with self._one_at_a_time:
            try:
                await self._converge()
            except (TransientError, SQLAlchemyError, OSError) as error:
                self.problem = error.reason if isinstance(error, TransientError) else type(error).__name__
                log.warning("policy.publish_failed", live_revision=self.live, reason=self.problem)
                self._wake.set()
                return False
            return not self.problem

    async def run(self, stop: asyncio.Event) -> None:
        """Publish now, when a publish failed, and every 30 seconds, until `stop`."""
        stopped = asyncio.ensure_future(stop.wait())
        stopped.add_done_callback(lambda _: self._wake.set())
        try:
            while not stop.is_set():
                self._wake.clear()
                published = await self.publish() or self.problem == INCOMPLETE
                if not published:
                    # `publish` has woken this task already: a pause, not a wait
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stop.wait(), _RETRY_S)
                    continue
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), _CHECK_S)
        finally:
            stopped.cancel()

    async def _converge(self) -> None:
        while True:
            newest = await self._repository.newest()
            if newest is None:
                self.problem = "there is no revision yet"
                return
            compiled = compile_policy(newest.snapshot, newest.number)
            if compiled is None:
                self.problem = INCOMPLETE
                return
            await self._ensure_routes(compiled)
            await self._put_sections(compiled)
            await self._put_users(newest)
            is_new = self.live != newest.number
            self.live, self.problem = newest.number, ""
            self.live_routes = tuple(route.name for route in compiled.delivery.routes)
            if is_new:
                log.info("policy.published", revision=newest.number)
                self.on_published()
            # another replica may have published a newer one between our reading and our writing: then it was overwritten
            after = await self._repository.heads(before=None, limit=1)
            if after and after[0].number == newest.number:
                return

    async def _ensure_routes(self, compiled: Compiled) -> None:
        there = set(await self._bus.consumer_names(OUTBOUND))
        for route in compiled.delivery.routes:
            if delivery_consumer(route.name) in there:
                continue
            try:
                await ensure_route(self._bus, route.name, self._limits)
            except (nats.errors.Error, OSError, TimeoutError) as error:
                reason = f"consumer of route {route.name}: {type(error).__name__}: {error}"
                raise TransientError(451, "4.3.0", "bus unavailable", reason=reason) from error

    async def _put_sections(self, compiled: Compiled) -> None:
        revision = compiled.gates.revision
        if self._encoded[0] != revision:
            self._encoded = (revision, await asyncio.to_thread(compiled.encoded))
        for section, data in self._encoded[1]:
            if await self._bus.kv_get(KV_POLICY, section.value) != data:
                await self._bus.kv_put(KV_POLICY, section.value, data)

    async def _put_users(self, newest: Revision) -> None:
        last = await self._last_user_sequence()
        if self._users_at == (newest.number, last):
            return
        hashes, verifiers = await self._repository.password_hashes(), await self._repository.scram_verifiers()
        users = [user for user in newest.snapshot.users if user.name.casefold() in hashes]
        hashes, app_passwords = await self._repository.password_hashes(), await self._repository.app_passwords.by_user()
        wanted = {
            user_key(user.name): msgspec.json.encode(
                SmtpUser(
                    name=user.name,
                    password_hash=hashes[user.name.casefold()],
                    enabled=user.enabled,
                    scram=verifiers.get(user.name.casefold(), ""),
                    certificates=user.certificates,
                    app_passwords=tuple(
                        AppPassword(id=each.id, password_hash=each.password_hash)
                        for each in app_passwords.get(user.name.casefold(), ())
                    ),
                    senders=user.senders,
                    rates=user.rates,
                )
            )
            for user in users
        }
        for user in users:
            owner = msgspec.json.encode(CertificateOwner(user=user.name))
            wanted |= {certificate_key(name): owner for name in user.certificates}
        # once and for all: salts of users who do not exist must not change, as those of users do not
        wanted[DECOY_KEY] = await self._bus.kv_get(KV_USERS, DECOY_KEY) or secrets.token_bytes(32)
        prefix = f"$KV.{KV_USERS}."
        there = [subject.removeprefix(prefix) for subject in await self._all_subjects(f"KV_{KV_USERS}", f"{prefix}>")]
        limit = asyncio.Semaphore(_AT_ONCE)

        async def put(key: str) -> None:
            value = wanted.get(key, b"")  # an empty value deletes
            async with limit:
                if (await self._bus.kv_get(KV_USERS, key) or b"") != value:
                    await self._bus.kv_put(KV_USERS, key, value)

        await asyncio.gather(*(put(key) for key in dict.fromkeys([*wanted, *there])))
        self._users_at = (newest.number, await self._last_user_sequence())

    async def _last_user_sequence(self) -> int:
        return int((await self._bus.stream_state(f"KV_{KV_USERS}"))["last_seq"])

    async def _all_subjects(self, stream: str, subject_filter: str) -> list[str]:
        found: list[str] = []
        while True:
            page = await self._bus.subjects(stream, subject_filter, offset=len(found))
            found += page
            if not page:
                return found
