"""What the endpoints work with: one frozen object, built by `app.py`, reached through the request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from postern_api.alarms.watch import Watch
from postern_api.alerts.repository import AlertRepository
from postern_api.alerts.service import AlertService
from postern_api.audit.repository import AuditRepository
from postern_api.auth_failures.service import AccountService
from postern_api.health.service import Health
from postern_api.ledger.repository import LedgerRepository
from postern_api.ledger.verification import Verifier
from postern_api.messages.repository import TraceRepository
from postern_api.messages.service import MessageService
from postern_api.messages.verdicts import VerdictService
from postern_api.policy.editing import Editor
from postern_api.policy.publishing import Publisher
from postern_api.policy.repository import PolicyRepository
from postern_api.quarantine.service import QuarantineService
from postern_api.queue.badmail import BadmailService
from postern_api.queue.service import QueueService
from postern_api.screening.rehearsals import Rehearsals
from postern_api.screening.service import ScreeningService
from postern_api.session_log.repository import SessionLogRepository
from postern_api.sessions.service import SessionService
from postern_api.status.service import StatusService
from postern_api.store.database import Database
from postern_api.tokens.repository import TokenRepository
from postern_api.tokens.service import TokenService
from postern_core.bus import Bus


@dataclass(frozen=True, slots=True)
class Context:
    """The object graph below the endpoints."""

    bus: Bus
    database: Database
    policy: PolicyRepository
    audit: AuditRepository
    publisher: Publisher
    editor: Editor
    token_repository: TokenRepository
    tokens: TokenService
    trace: TraceRepository
    messages: MessageService
    verdicts: VerdictService
    quarantine: QuarantineService
    queue: QueueService
    badmail: BadmailService
    screening: ScreeningService
    rehearsals: Rehearsals
    ledger: LedgerRepository
    verifier: Verifier
    watch: Watch
    alerts: AlertService
    alert_repository: AlertRepository
    status: StatusService
    sessions: SessionService
    session_log: SessionLogRepository
    health: Health
    accounts: AccountService


def context(request: Request) -> Context:
    found: Context = request.app.state.context
    return found


InContext = Annotated[Context, Depends(context)]
