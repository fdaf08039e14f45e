"""A change of the policy: check and compile the whole draft, save it as a new revision in one transaction, then publish it.

Changes are made one at a time. What another replica did meanwhile is noticed by the revision's number, which only one of them gets.
A change that is saved but could not be published is not taken back: the publisher goes on trying, and the answer says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy.exc import IntegrityError

from postern_api.audit.repository import AuditRepository
from postern_api.errors import ConflictError, OutdatedError, UnavailableError
from postern_api.policy import credentials as secrets
from postern_api.policy.checks import check
from postern_api.policy.compiling import compile_policy
from postern_api.policy.credentials import CredentialChange
from postern_api.policy.differences import differences
from postern_api.policy.expressions import ExpressionCheck
from postern_api.policy.objects import Snapshot
from postern_api.policy.publishing import Publisher
from postern_api.policy.repository import PolicyRepository, Revision
from postern_api.store.database import Database
from postern_core.bus import Bus

log: structlog.stdlib.BoundLogger = structlog.get_logger()

Edit = Callable[[Snapshot], Snapshot]


@dataclass(frozen=True, slots=True)
class Intent:
    """Who wants to change what; `expected` is the revision that the change was made from (If-Match), None for any."""

    actor: str
    action: str  # "rule.created"
    target: str  # "rules/r-1a2b3c4d"
    comment: str = ""
    expected: int | None = None


@dataclass(frozen=True, slots=True)
class Applied:
    """The revision in force after a change, and whether it is on the bus yet."""

    revision: int
    live: bool
    snapshot: Snapshot


class Editor:
    """See the module."""

    def __init__(
        self, database: Database, repository: PolicyRepository, audit: AuditRepository, publisher: Publisher, bus: Bus
    ) -> None:
        self._database = database
        self._repository = repository
        self._audit = audit
        self._publisher = publisher
        self._bus = bus
        self._one_at_a_time = asyncio.Lock()
        self._expressions = ExpressionCheck()

    async def current(self) -> Revision:
        """The newest revision. UnavailableError before the first (the program is still starting)."""
        newest = await self._repository.newest()
        if newest is None:
            raise UnavailableError("not_started", "there is no policy yet: the api is still starting")
        return newest

    async def change(self, intent: Intent, edit: Edit, credentials: Sequence[CredentialChange] = ()) -> Applied:
        """Apply `edit` to the newest snapshot. ApiError when the outcome is no policy; TransientError when a secret cannot be stored.

        A change that changes nothing makes no revision.
        """
        async with self._one_at_a_time:
            newest = await self.current()
            if intent.expected not in (None, newest.number):
                raise OutdatedError("outdated", f"the newest revision is {newest.number}, not {intent.expected}")
            draft = edit(newest.snapshot)
            if draft == newest.snapshot and not credentials:
                return Applied(newest.number, self._publisher.live == newest.number, draft)
            if newest.snapshot.default_route and not draft.default_route:
                raise ConflictError("default_route_required", "one route must be the default; make another one the default first")
            number = newest.number + 1
            await self._check(draft, number)
            await self._save(intent, number, newest.snapshot, draft, credentials)
            log.info("policy.changed", revision=number, actor=intent.actor, action=intent.action, target=intent.target)
            return Applied(number, await self._publisher.publish(), draft)

    async def first(self, author: str, snapshot: Snapshot, credentials: Sequence[CredentialChange]) -> None:
        """Save revision 1, unless another replica was faster."""
        await self._check(snapshot, 1)
        empty = Snapshot(settings=snapshot.settings)
        intent = Intent(author, "policy.bootstrapped", "revisions/1", "the first policy")
        try:
            await self._save(intent, 1, empty, snapshot, credentials)
        except ConflictError:
            log.info("policy.bootstrapped_elsewhere")

    async def _check(self, draft: Snapshot, number: int) -> None:
        check(draft)
        await self._expressions.check(draft)
        compiled = compile_policy(draft, number)
        if compiled is not None:
            await asyncio.to_thread(compiled.encoded)

    async def _save(
        self, intent: Intent, number: int, before: Snapshot, after: Snapshot, credentials: Sequence[CredentialChange]
    ) -> None:
        changes = differences(before, after)
        try:
            async with self._database.write() as connection:
                await self._repository.add(connection, number, intent.actor, intent.comment, after)
                await self._audit.add(connection, intent.actor, intent.action, intent.target, revision=number, changes=changes)
                for change in credentials:
                    await secrets.write(change, connection, self._repository, self._bus)
        except IntegrityError as error:
            raise ConflictError("changed_meanwhile", "somebody else changed the policy at the same moment; try again") from error
