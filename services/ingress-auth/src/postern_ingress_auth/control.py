"""Answers the api about accounts (`control.ingress-auth.<verb>.+`, postern_core.accounts): who failed to log in, and which app-passwords are used.

Any replica answers, since they tell each other everything (peers.py). What cannot be done is answered with a ControlError, never with silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import nats.errors
import structlog
from nats.aio.msg import Msg

from postern_core.accounts import (
    CONTROL_SUBJECTS,
    AccountVerb,
    FailureClearing,
    FailurePage,
    FailureQuery,
    FailureRow,
    FailuresCleared,
    FailuresOf,
    PasswordUses,
)
from postern_core.bus import Bus
from postern_core.control import ControlError
from postern_ingress_auth.shared import Shared

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_QUEUE_GROUP: Final = "ingress-auth"
_MOST_ROWS: Final = 1000


class Control:
    """See the module."""

    def __init__(self, bus: Bus, shared: Shared) -> None:
        self._bus = bus
        self._shared = shared
        self._verbs: dict[str, Callable[[bytes], msgspec.Struct]] = {
            AccountVerb.FAILURES_LIST: self._list,
            AccountVerb.FAILURES_CLEAR: self._clear,
            AccountVerb.PASSWORD_USES: self._uses,
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Answer until `stop`."""
        subscription = await self._bus.client.subscribe(CONTROL_SUBJECTS, queue=_QUEUE_GROUP, cb=self._answer)
        try:
            await stop.wait()
        finally:
            if self._bus.connected:
                await subscription.unsubscribe()

    async def _answer(self, msg: Msg) -> None:
        verb = msg.subject.split(".")[2]
        answer: msgspec.Struct
        try:
            answer = self._verbs[verb](msg.data)
        except KeyError:
            answer = ControlError(message=f"the authenticated gate knows no {verb}")
        except msgspec.DecodeError as error:
            answer = ControlError(message=f"the request does not decode: {error}")
        except Exception:  # the one handler of a request: whoever asked gets an answer, the log the rest
            log.exception("control.failed", verb=verb)
            answer = ControlError(message="internal error, see the log of ingress-auth")
        try:
            await msg.respond(msgspec.json.encode(answer))
        except (nats.errors.Error, OSError) as error:
            log.warning("control.unanswered", verb=verb, reason=f"{type(error).__name__}: {error}")

    def _list(self, data: bytes) -> FailurePage:
        query = msgspec.json.decode(data, type=FailureQuery)
        limit = min(max(query.limit, 1), _MOST_ROWS)
        known = self._shared.failures()
        shown = sorted((each for each in known if each.exists), key=lambda each: (-each.count, each.age_s))
        now = datetime.now(UTC)
        return FailurePage(
            rows=tuple(_row(each, now) for each in shown[:limit]), total=len(shown), unknown_names=len(known) - len(shown)
        )

    def _clear(self, data: bytes) -> FailuresCleared:
        clearing = msgspec.json.decode(data, type=FailureClearing)
        cleared = self._shared.clear(clearing.key)
        log.info("failures.cleared", key=clearing.key, cleared=cleared, actor=clearing.actor)
        return FailuresCleared(cleared=cleared)

    def _uses(self, _: bytes) -> PasswordUses:
        return PasswordUses(uses=self._shared.uses())


def _row(failures: FailuresOf, now: datetime) -> FailureRow:
    return FailureRow(
        key=failures.key,
        count=failures.count,
        last_at=now - timedelta(seconds=failures.age_s),
        blocked_until=now + timedelta(seconds=failures.blocked_s) if failures.blocked_s > 0 else None,
    )
