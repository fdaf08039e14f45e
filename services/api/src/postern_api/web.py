"""The HTTP application: routers, error rendering, access log, OpenAPI document and the page that shows it.

The page at /docs is our own: the framework's loads its program from a host on the Internet, which a relay's network need not reach and
an administrator's browser should not have to trust.
"""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from postern_api import rendering
from postern_api.alarms import endpoints as alarms
from postern_api.alerts import endpoints as alerts
from postern_api.audit import endpoints as audit
from postern_api.auth_failures import endpoints as auth_failures
from postern_api.context import Context
from postern_api.domains import endpoints as domains
from postern_api.engines import endpoints as engines
from postern_api.errors import ErrorBody
from postern_api.general import endpoints as general
from postern_api.health import endpoints as health
from postern_api.ledger import endpoints as ledger
from postern_api.listeners import endpoints as listeners
from postern_api.lists import endpoints as lists
from postern_api.messages import endpoints as messages
from postern_api.metrics import endpoints as metrics
from postern_api.quarantine import endpoints as quarantine
from postern_api.queue import endpoints as queue
from postern_api.reference_page import PAGE_HEADERS, page
from postern_api.revisions import endpoints as revisions
from postern_api.routes import endpoints as routes
from postern_api.rule_sets import endpoints as rule_sets
from postern_api.rules import endpoints as rules
from postern_api.schedule import endpoints as schedule
from postern_api.screening import endpoints as screening
from postern_api.session_log import endpoints as session_log
from postern_api.sessions import endpoints as sessions
from postern_api.status import endpoints as status
from postern_api.tokens import endpoints as tokens
from postern_api.unscannable import endpoints as unscannable
from postern_api.users import app_passwords
from postern_api.users import endpoints as users
from postern_api.yara import endpoints as yara

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_DESCRIPTION = """
The control plane of Postern, a screening SMTP relay.

Every change of the policy makes an immutable **revision**; each answer to a change names it (`Postern-Revision`) and says whether it is on
the bus already (`Postern-Live`). Services take it up within a second. Reading an object of the
policy tells the newest revision, too, and `If-Match: <revision>` makes a change only from that revision.

Every error has the body `{"error": …, "message": …, "detail": …}`, with a stable name in `error`.
"""

_TAGS = [
    {"name": "domains", "description": "Relay domains: what mail is taken for, and which route it takes."},
    {"name": "routes", "description": "Ways out: smart hosts, TLS, credentials (write-only)."},
    {"name": "rules", "description": "Screening rules. The first that matches decides."},
    {"name": "rule sets", "description": "For what mail the rules in a set are: by gate, recipients, time."},
    {"name": "engines", "description": "What the screener asks besides its rules: ClamAV, rspamd, YARA."},
    {"name": "lists", "description": "Named lists of values that rules share."},
    {"name": "users", "description": "SMTP users of the authenticated gate (passwords write-only)."},
    {"name": "auth-failures", "description": "Failed logins at the authenticated gate, and who is blocked for them."},
    {"name": "listeners", "description": "The two gates: a resource for each property sheet."},
    {"name": "sessions", "description": "Who is connected to the gates now, and the log of who was."},
    {"name": "settings", "description": "What concerns the relay as a whole."},
    {"name": "schedule", "description": "When deferred mail is tried again, told of, and returned."},
    {"name": "revisions", "description": "Every state that the policy ever had; differences; rollback."},
    {"name": "queue", "description": "Deferred mail."},
    {"name": "badmail", "description": "What could neither be delivered nor returned."},
    {"name": "quarantine", "description": "Held mail: read, release, forward, delete."},
    {"name": "messages", "description": "The trace of every message."},
    {"name": "screening", "description": "Rules are tried before they bite; and what becomes of mail where none decides."},
    {"name": "ledger", "description": "accepted = dispositions + in flight."},
    {
        "name": "alerts",
        "description": "What happened that an administrator may have to know, counted, raised and told by thresholds.",
    },
    {"name": "alarms", "description": "What an administrator has to look at."},
    {"name": "status", "description": "Replicas, revisions, streams."},
    {"name": "tokens", "description": "Tokens of this API."},
    {"name": "audit", "description": "Who did what."},
    {"name": "health", "description": "For supervisors; no token."},
]


_ROUTERS = (
    *(noun.router for noun in (domains, routes, rules, rule_sets, lists, engines, yara, unscannable)),
    *(noun.router for noun in (users, app_passwords, listeners, general, schedule, revisions)),
    *(listeners.presets, queue.queue, queue.badmail),
    *(noun.router for noun in (sessions, session_log, quarantine, messages, screening, ledger, alerts, alarms)),
    *(noun.router for noun in (status, metrics, auth_failures, tokens, audit, health)),
)


class Application(FastAPI):
    """With the schema of every error (`errors.declared`) in its OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        document["components"]["schemas"].setdefault("ErrorBody", ErrorBody.model_json_schema())
        return document


def build(context: Context, *, max_body_bytes: int) -> FastAPI:
    """The application over one object graph."""
    app = Application(
        title="Postern",
        version=version("postern-api"),
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        docs_url=None,
        redoc_url=None,
    )
    app.state.context = context
    app.state.max_body_bytes = max_body_bytes
    rendering.install(app)
    for router in _ROUTERS:
        # the routes themselves: of a router that is included the framework makes each a second time
        app.router.routes.extend(router.routes)
    app.add_route("/docs", lambda _: HTMLResponse(page(app.openapi()), headers=PAGE_HEADERS), include_in_schema=False)
    app.add_middleware(AccessLog)
    return app


_ANSWER_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class AccessLog:
    """One line for each request: method, path, status, time. No query (addresses), no header (tokens), no body.

    It also puts the header fields on each answer that the whole API has in common."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if scope["path"].startswith("/api/"):
                    # tokens and mail belong in no cache, and what comes out of mail is to be taken for what we say it is
                    MutableHeaders(scope=message).update(_ANSWER_HEADERS)
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            write = log.debug if scope["method"] == "GET" and status < 400 else log.info
            duration_ms = round((time.perf_counter() - started) * 1000, 1)
            write("request.handled", method=scope["method"], path=scope["path"], status=status, duration_ms=duration_ms)
