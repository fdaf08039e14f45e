"""The object graph of the api, its tasks, and their end.

Needs a broker and a database; no other service has to run. The order of the start: database, first revision, tasks, and the HTTP server
at last, so that whoever gets an answer gets it from a complete program. After `stop` the server finishes its requests first.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import structlog
import uvicorn
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from postern_api import web
from postern_api.alarms.look import Observer
from postern_api.alarms.watch import Watch
from postern_api.alerts.repository import AlertRepository
from postern_api.alerts.sending import AlertSender
from postern_api.alerts.service import AlertService
from postern_api.alerts.telling import AlertTeller
from postern_api.alerts.webhook import Poster
from postern_api.audit.repository import AuditRepository
from postern_api.auth_failures.service import AccountService
from postern_api.bootstrap import bootstrap
from postern_api.context import Context
from postern_api.health.service import Health
from postern_api.ledger.repository import LedgerRepository
from postern_api.ledger.verification import Verifier
from postern_api.messages.repository import TraceRepository
from postern_api.messages.service import MessageService
from postern_api.messages.verdicts import VerdictService
from postern_api.policy.editing import Editor
from postern_api.policy.publishing import Publisher
from postern_api.policy.repository import PolicyRepository
from postern_api.quarantine.indexing import QuarantineIndexer
from postern_api.quarantine.repository import QuarantineIndex
from postern_api.quarantine.service import QuarantineService
from postern_api.queue.badmail import BadmailService
from postern_api.queue.service import QueueService
from postern_api.recorder import Recorder
from postern_api.screening.rehearsals import Rehearsals
from postern_api.screening.service import ScreeningService
from postern_api.screening.sources import Sources
from postern_api.session_log.repository import SessionLogRepository
from postern_api.session_log.retention import keep_session_log
from postern_api.sessions.service import SessionService
from postern_api.settings import Settings
from postern_api.status.board import StatusBoard
from postern_api.status.service import StatusService
from postern_api.store.database import Database
from postern_api.store.migrating import migrate
from postern_api.tokens.repository import TokenRepository
from postern_api.tokens.service import TokenService
from postern_core.bus import BodyStore, Bus, EventSink, StatusReporter
from postern_core.errors import ConfigurationError, TransientError
from postern_core.service import Serve

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_RETRY_S: Final = 2.0
_REQUESTS_END_S: Final = 3  # of the drain: the rest is the recorder's


def serve_with(settings: Settings) -> Serve:
    """What `run_service` runs."""

    async def serve(bus: Bus, stop: asyncio.Event) -> None:
        listening = listen(settings)
        api = Api(settings, bus)
        try:
            if await api.start(stop):
                await api.run(stop, listening)
        finally:
            listening.close()
            await api.close()

    return serve


class Api:
    """Everything that the api consists of, put together."""

    def __init__(self, settings: Settings, bus: Bus) -> None:
        self._settings = settings
        self.database = Database(settings.database())
        policy = PolicyRepository(self.database)
        audit = AuditRepository(self.database)
        trace = TraceRepository(self.database)
        token_repository = TokenRepository(self.database)
        index = QuarantineIndex(self.database)
        publisher = Publisher(bus, policy, settings.bus_limits())
        editor = Editor(self.database, policy, audit, publisher, bus)
        self.events = EventSink(bus, "api")
        self.indexer = QuarantineIndexer(bus, index)
        self.board = StatusBoard(bus)
        alert_repository = AlertRepository(self.database)
        alerts = AlertService(self.database, alert_repository, policy, audit)
        self.recorder = Recorder(bus, trace, trace_days=settings.trace_days, on_held=self.indexer.poke, take_notices=alerts.take)
        bodies = BodyStore(bus, "api", settings.inline_limit_bytes)
        queue, ledger = QueueService(bus), LedgerRepository(self.database)
        verifier = Verifier(bus, ledger, queue)
        watch = Watch(
            Observer(bus, settings, not_storing=self._not_storing),
            verifier,
            publisher,
            self.board,
            every_s=settings.alarms_every_s,
            verify_every_s=settings.verify_every_s,
            after_look=alerts.take_alarms,
        )
        self.alert_sender = AlertSender(
            bus,
            alert_repository,
            editor,
            self.events,
            bodies,
            Poster(settings.webhook_secret(), settings.webhook_ca_file),
            keep=timedelta(days=settings.alert_days),
        )
        alerts.on_raised = self.alert_sender.poke
        quarantine = QuarantineService(bus, index=index, indexer=self.indexer, editor=editor, events=self.events, bodies=bodies)
        screening = ScreeningService(bus, editor, policy)
        self.alert_teller = AlertTeller(bus)
        alerts.tell_bus = self.alert_teller.tell
        self.context = Context(
            bus=bus,
            database=self.database,
            policy=policy,
            audit=audit,
            publisher=publisher,
            editor=editor,
            token_repository=token_repository,
            tokens=TokenService(self.database, token_repository, audit),
            trace=trace,
            messages=MessageService(bus, trace, policy),
            verdicts=VerdictService(trace, policy, quarantine),
            quarantine=quarantine,
            queue=queue,
            badmail=BadmailService(bus, queue, trace),
            screening=screening,
            rehearsals=Rehearsals(bus, screening, Sources(bus, bodies)),
            ledger=ledger,
            verifier=verifier,
            watch=watch,
            accounts=AccountService(bus, policy.app_passwords),
            alerts=alerts,
            alert_repository=alert_repository,
            status=StatusService(bus, self.board, editor, publisher, watch.board),
            sessions=SessionService(bus, self.board),
            session_log=SessionLogRepository(self.database),
            health=Health(bus, self.database, not_storing=self._not_storing),
        )
        self.web: FastAPI = web.build(self.context, max_body_bytes=settings.max_body_bytes)
        self.reporter = StatusReporter(bus, "api", settings.instance, self._probe, ready_file=settings.ready_file)
        publisher.on_published = self.reporter.poke

    def _not_storing(self) -> str:
        return self.reporter.problem

    async def start(self, stop: asyncio.Event) -> bool:
        """Migrations, first revision, first token; again and again while database or broker are away. False when `stop` came first."""
        while not stop.is_set():
            try:
                await self._prepare()
                return True
            except (SQLAlchemyError, OSError, TransientError) as error:
                reason = error.reason if isinstance(error, TransientError) else f"{type(error).__name__}: {error}"
                log.warning("service.start_postponed", reason=reason)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _RETRY_S)
        return False

    async def _prepare(self) -> None:
        await migrate(self.database)
        context, settings = self.context, self._settings
        await bootstrap(context.editor, context.policy, settings.bootstrap_file, settings.hostname)
        if token := settings.admin_token():
            await context.tokens.register_admin(token)
        await context.publisher.publish()
        await context.health.check()

    async def run(self, stop: asyncio.Event, listening: socket.socket) -> None:
        """Serve until `stop`, then drain."""
        server = _Server(_config(self.web))
        released = asyncio.Event()  # the tasks that requests depend on go on until the last request is answered
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.context.publisher.run(released), name="publisher")
            tasks.create_task(self.indexer.run(released), name="quarantine-indexer")
            tasks.create_task(self.board.run(released), name="status-board")
            tasks.create_task(self.events.run(released), name="events")
            tasks.create_task(self.context.health.run(released), name="health")
            tasks.create_task(self.context.watch.run(released), name="alarms")
            tasks.create_task(self.context.accounts.run(released), name="password-uses")
            tasks.create_task(self.context.rehearsals.run(released), name="rehearsals")
            tasks.create_task(self.alert_sender.run(released), name="alerts")
            tasks.create_task(self.alert_teller.run(released), name="alerts-tell")
            tasks.create_task(self.reporter.run(released), name="status-reporter")
            tasks.create_task(self.recorder.run(released, self._settings.drain_s / 2), name="recorder")
            keeping = keep_session_log(
                self.context.session_log, released, days=self._settings.session_log_days, rows=self._settings.session_log_rows
            )
            tasks.create_task(keeping, name="session-log-retention")
            serving = tasks.create_task(server.serve(sockets=[listening]), name="http")
            host, port = listening.getsockname()[:2]
            log.info("http.listening", host=host, port=port)
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait({stopping, serving}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            server.should_exit = True
            await serving
            released.set()

    async def close(self) -> None:
        await self.database.close()

    def _probe(self) -> dict[str, object]:
        reasons = self.context.health.reasons
        publisher = self.context.publisher
        return {
            "ready": not reasons,
            "revision": publisher.live,
            "policy_error": publisher.problem,
            "in_flight": self.recorder.in_flight,
            "detail": "; ".join(reasons),
        }


class _Server(uvicorn.Server):
    """Signals are the service runner's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(app: FastAPI) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="none",
        http="h11",  # it refuses a header block above 64 KiB; httptools reads on for ever, and nobody needs a token for that
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_REQUESTS_END_S,
    )


def listen(settings: Settings) -> socket.socket:
    """The listening socket. ConfigurationError when the address cannot be taken."""
    host, port = settings.address
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512)
    except OSError as error:
        raise ConfigurationError(f"POSTERN_LISTEN: cannot listen on {settings.listen}: {error}") from error
