"""Carries out deliveries of alerts: each of them by one replica at a time, again and again until it works or is given up.

A mail that is handed over twice is recognised by its id, also by delivery; a webhook may be posted twice when a replica dies behind the answer, and its
receiver knows it by `id`. What is given up stays in the list, as failed, and in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from postern_api.alerts import mail, pausing, webhook
from postern_api.alerts.repository import AlertRepository, Channel, DeliveryState, Due
from postern_api.errors import ApiError
from postern_api.policy.compiling import INCOMPLETE, compile_policy
from postern_api.policy.editing import Editor
from postern_api.quarantine.handover import with_body
from postern_core.bus import BodyStore, Bus, EventSink
from postern_core.bus.topology import OUTBOUND, BusLimits, outbound_subject
from postern_core.envelope import frame
from postern_core.errors import TransientError
from postern_core.events import EventKind
from postern_core.policy import DeliveryPolicy

log: structlog.stdlib.BoundLogger = structlog.get_logger()

WAITS_S: Final = (10, 60, 300, 1800, 7200)  # after each attempt that failed; then it is given up
_PAUSE_WITHIN: Final = timedelta(minutes=10)
_LEASE: Final = timedelta(seconds=120)  # longer than any attempt
_LOOK_EVERY_S: Final = 15.0  # for what another replica left
_PRUNE_EVERY_S: Final = 600.0
_MOST_RAISES: Final = 10_000


class NotTakenError(Exception):
    """An attempt failed; another may work."""


class GivenUpError(Exception):
    """No further attempt makes sense."""


class AlertSender:
    """See the module. `poke` says that there is something to do."""

    def __init__(
        self,
        bus: Bus,
        repository: AlertRepository,
        editor: Editor,
        events: EventSink,
        bodies: BodyStore,
        poster: webhook.Poster,
        *,
        keep: timedelta,
    ) -> None:
        self._bus = bus
        self._repository = repository
        self._editor = editor
        self._events = events
        self._bodies = bodies
        self._poster = poster
        self._keep = keep
        self._work = asyncio.Event()

    def poke(self) -> None:
        self._work.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`. An attempt that is cut off is made again when its lease is over, by whichever replica."""
        async with asyncio.TaskGroup() as tasks:
            working = [
                tasks.create_task(self._send_on(), name="alerts-send"),
                tasks.create_task(self._prune_on(), name="alerts-prune"),
            ]
            await stop.wait()
            for task in working:
                task.cancel()

    async def _send_on(self) -> None:
        while True:
            self._work.clear()
            try:
                while await self.send_next():
                    pass
                pause_s = await self._until_next()
            except (SQLAlchemyError, OSError) as error:
                log.warning("alerts.deliveries_unknown", reason=type(error).__name__)
                pause_s = _LOOK_EVERY_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._work.wait()

    async def _until_next(self) -> float:
        due = await self._repository.next_due()
        if due is None:
            return _LOOK_EVERY_S
        return min(max((due - datetime.now(UTC)).total_seconds(), 0.05), _LOOK_EVERY_S)

    async def send_next(self) -> bool:
        """Carry out one delivery that is due; False when none is."""
        due = await self._repository.claim(datetime.now(UTC), _LEASE)
        if due is None:
            return False
        about = {"kind": due.alert.kind, "alert": due.alert.id, "channel": due.channel.value, "attempt": due.attempts}
        try:
            await self._carry_out(due)
        except NotTakenError as error:
            await self._failed(due, str(error), about)
        except GivenUpError as error:
            log.error("alert.not_sent", **about, reason=str(error))
            await self._repository.settle(due, DeliveryState.FAILED, error=str(error))
        except Exception as error:  # the one handler of a delivery: what nobody foresaw must not end all others
            log.exception("alert.sending_crashed", **about)
            await self._failed(due, f"unexpected {type(error).__name__}", about)
        else:
            await self._repository.settle(due, DeliveryState.DONE)
            log.info("alert.sent", **about)
        return True

    async def _carry_out(self, due: Due) -> None:
        match due.channel:
            case Channel.MAIL:
                await self._mail(due)
            case Channel.WEBHOOK:
                await self._post(due)
            case Channel.PAUSE:
                await self._pause(due)

    async def _pause(self, due: Due) -> None:
        # what happened long ago is no reason to stop a gate now: the administrator has been told meanwhile
        if datetime.now(UTC) - due.alert.recorded_at > _PAUSE_WITHIN:
            raise GivenUpError(f"it could not be done within {_PAUSE_WITHIN}")
        try:
            await pausing.pause(self._editor, due.alert.kind, due.target)
        except pausing.NotWantedError as error:
            raise GivenUpError(str(error)) from error
        except (ApiError, TransientError) as error:
            raise NotTakenError(str(error)) from error

    async def _failed(self, due: Due, reason: str, about: dict[str, object]) -> None:
        if due.attempts > len(WAITS_S):
            log.error("alert.not_sent", **about, reason=reason)
            await self._repository.settle(due, DeliveryState.FAILED, error=reason)
            return
        wait_s = WAITS_S[due.attempts - 1] * random.uniform(0.9, 1.1)  # noqa: S311  (spreads load, guards nothing)
        log.warning("alert.send_postponed", **about, reason=reason, wait_s=round(wait_s))
        next_at = datetime.now(UTC) + timedelta(seconds=wait_s)
        await self._repository.settle(due, DeliveryState.WAITING, error=reason, next_at=next_at)

    async def _post(self, due: Due) -> None:
        try:
            hostname = (await self._editor.current()).snapshot.settings.hostname
            await self._poster.post(due.target, webhook.body_of(due, hostname), datetime.now(UTC))
        except (webhook.PostError, ApiError) as error:
            raise NotTakenError(str(error)) from error

    async def _mail(self, due: Due) -> None:
        try:
            policy = await self._policy()
            content = mail.build(due, hostname=policy.hostname, postmaster=policy.postmaster or f"postmaster@{policy.hostname}")
            job = mail.job_for(due, content, policy, datetime.now(UTC))
            # a repeat may differ, and a stored body cannot be overwritten: the digest keeps their bodies apart
            name = f"{job.queue_id}-{hashlib.sha256(content).hexdigest()[:8]}"
            envelope, inline = await self._bodies.stow(job.envelope, name, content)
            payload = frame(with_body(job, envelope), inline)
            stored = await self._bus.publish(OUTBOUND, outbound_subject(job.route, job.queue_id), payload, f"{job.id}:outbound")
        except TransientError as error:
            raise NotTakenError(error.reason) from error
        except ApiError as error:
            raise NotTakenError(str(error)) from error
        if not stored.duplicate:
            self._events.tell(
                job.queue_id,
                EventKind.ACCEPTED,
                gate=job.envelope.gate.value,
                reverse_path="",
                recipients=1,
                to=due.target,
                size_bytes=len(content),
                about=f"alert {due.alert.kind}",
            )

    async def _policy(self) -> DeliveryPolicy:
        newest = await self._editor.current()
        compiled = compile_policy(newest.snapshot, newest.number)
        if compiled is None:
            raise NotTakenError(INCOMPLETE)
        return compiled.delivery

    async def _prune_on(self) -> None:
        while True:
            now = datetime.now(UTC)
            try:
                await self._repository.prune(
                    raised_before=now - self._keep,
                    most=_MOST_RAISES,
                    counted_before=now - BusLimits().events_age - timedelta(hours=1),
                )
            except (SQLAlchemyError, OSError) as error:
                log.warning("alerts.prune_failed", reason=type(error).__name__)
            await asyncio.sleep(_PRUNE_EVERY_S)
