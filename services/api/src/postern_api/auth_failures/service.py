"""Asks the authenticated gate about accounts: one request over the bus, which any of its replicas answers.

When app-passwords were used last is asked once a minute, and noted at most once an hour for each.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, TypeVar

import msgspec
import structlog
from sqlalchemy.exc import SQLAlchemyError

from postern_api.errors import ConflictError, UnavailableError
from postern_api.policy.app_passwords import AppPasswordRepository
from postern_core.accounts import (
    AccountVerb,
    FailureClearing,
    FailurePage,
    FailureQuery,
    FailuresCleared,
    PasswordUses,
    control_subject,
)
from postern_core.bus import Bus
from postern_core.control import CONTROL_TIMEOUT_S
from postern_core.errors import TransientError

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_ASK_EVERY_S: Final = 60.0

A = TypeVar("A", bound=msgspec.Struct)


class _Refusal(msgspec.Struct):
    """The fields of `control.ControlError`, absent in every other answer."""

    error: str = ""
    message: str = ""


class AccountService:
    """UnavailableError when no replica of the gate answers; ConflictError when it refuses."""

    def __init__(self, bus: Bus, app_passwords: AppPasswordRepository) -> None:
        self._bus = bus
        self._app_passwords = app_passwords

    async def failures(self, limit: int) -> FailurePage:
        return await self._ask(AccountVerb.FAILURES_LIST, FailureQuery(limit=limit), FailurePage)

    async def clear(self, key: str, actor: str) -> int:
        """Forget one key, all for ""; how many there were."""
        return (await self._ask(AccountVerb.FAILURES_CLEAR, FailureClearing(key=key, actor=actor), FailuresCleared)).cleared

    async def note_uses(self) -> None:
        """Ask which app-passwords were used, and note it; nothing when no gate answers."""
        with contextlib.suppress(UnavailableError, ConflictError):
            await self._app_passwords.note_uses((await self._ask(AccountVerb.PASSWORD_USES, None, PasswordUses)).uses)

    async def run(self, stop: asyncio.Event) -> None:
        """Note uses until `stop`."""
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _ASK_EVERY_S)
                return
            try:
                await self.note_uses()
            except (SQLAlchemyError, OSError) as error:
                log.warning("password_uses.not_noted", reason=type(error).__name__)

    async def _ask(self, verb: AccountVerb, request: msgspec.Struct | None, kind: type[A]) -> A:
        data = msgspec.json.encode(request) if request is not None else b""
        try:
            answer = await self._bus.request(control_subject(verb), data, timeout_s=CONTROL_TIMEOUT_S)
        except TransientError as error:
            log.info("accounts.unanswered", verb=verb.value, reason=error.reason)
            raise UnavailableError(
                "gate_unavailable", "no replica of the authenticated gate answers: what it knows cannot be shown or changed now"
            ) from error
        try:
            refusal = msgspec.json.decode(answer, type=_Refusal)
            if refusal.error:
                raise ConflictError("gate_refused", refusal.message)
            return msgspec.json.decode(answer, type=kind)
        except msgspec.DecodeError as error:
            raise UnavailableError("gate_unreadable", f"the gate's answer to {verb.value} cannot be read: {error}") from error
