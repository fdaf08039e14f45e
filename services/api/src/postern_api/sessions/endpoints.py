"""/sessions"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import Query

from postern_api.access import Operator, Reader, guarded_router
from postern_api.audit.service import audited
from postern_api.context import InContext
from postern_api.errors import InvalidError, NotFoundError, UnavailableError, declared
from postern_api.fields import Exactly, Identity, Limit
from postern_api.listeners.parts import GateName
from postern_api.sessions.schemas import GateReplicaView, SessionsEndedView, SessionsView, SessionView
from postern_api.sessions.service import Answered, merged
from postern_core.envelope import Gate
from postern_core.ids import SessionId, connected_at
from postern_core.sessions import SessionQuery, SessionRow, SessionSelection, SessionsEnded

router = guarded_router("/sessions", "sessions")

Client = Annotated[Exactly, Query(description="Only of this address or network (`192.0.2.0/24`).")]


@router.get("", responses=declared(400, 409))
async def list_sessions(
    *,
    context: InContext,
    _: Reader,
    gate: Annotated[GateName | None, Query(description="Only this gate.")] = None,
    client: Client = "",
    after: Annotated[Exactly, Query(description="`next` of the page before.")] = "",
    limit: Limit = 100,
) -> SessionsView:
    """Who is connected now, at all replicas of the gates. A replica that does not answer within two seconds is named."""
    query = SessionQuery(client=_network(client), after=_session_id(after) if after else "", limit=limit)
    pages = await context.sessions.pages(_gate(gate), query)
    rows = merged(pages, limit)
    return SessionsView(
        sessions=[_view(page, row) for page, row in rows],
        total=sum(page.answer.total for page in pages if page.answer is not None),
        next=rows[-1][1].id if len(rows) == limit else "",
        replicas=[_replica(page, page.answer.total if page.answer is not None else None) for page in pages],
    )


@router.delete("", responses=declared(400, 409))
async def end_sessions(
    context: InContext,
    who: Operator,
    gate: Annotated[GateName, Query(description="Of this gate.")],
    client: Client = "",
) -> SessionsEndedView:
    """End all sessions of a gate, or those of a client: each gets 421 4.3.2, after the answer to a message that is being stored. They may
    connect again: pause the gate first if they must not."""
    network = _network(client)
    async with audited(context.audit, who.name, "sessions.end", f"sessions/{gate}", {"client": network} if network else None):
        ended = await context.sessions.end(_gate(gate), SessionSelection(client=network, actor=who.name))
    return _ended(ended)


@router.delete("/{session_id}", responses=declared(400, 404, 409))
async def end_session(session_id: Identity, context: InContext, who: Operator) -> SessionsEndedView:
    """End one session: 421 4.3.2, after the answer to a message that is being stored."""
    wanted = _session_id(session_id)
    async with audited(context.audit, who.name, "session.end", f"sessions/{wanted}"):
        answers = await context.sessions.end(None, SessionSelection(id=wanted, actor=who.name))
        ended = _ended(answers)
        if not ended.ended and any(answer.answer is None for answer in answers):
            silent = ", ".join(answer.instance for answer in answers if answer.answer is None)
            raise UnavailableError("gate_unavailable", f"no replica that answers has this session, and {silent} does not answer")
        if not ended.ended:
            raise NotFoundError("session", wanted)
    return ended


def _gate(name: GateName | None) -> Gate | None:
    return Gate(name.value) if name is not None else None


def _network(client: str) -> str:
    if not client:
        return ""
    try:
        return str(ipaddress.ip_network(client, strict=False))
    except ValueError as error:
        raise InvalidError("invalid_client", f"{client!r} is no address and no network") from error


def _session_id(text: str) -> str:
    try:
        connected_at(SessionId(text))
    except ValueError as error:
        raise InvalidError("invalid_session_id", str(error)) from error
    return text


def _view(page: Answered[Any], row: SessionRow) -> SessionView:
    fields = msgspec.structs.asdict(row)
    return SessionView(**fields, gate=page.gate.value, instance=page.instance, connected_at=connected_at(SessionId(row.id)))


def _replica(answer: Answered[Any], sessions: int | None) -> GateReplicaView:
    return GateReplicaView(
        gate=answer.gate.value, instance=answer.instance, answered=answer.answer is not None, sessions=sessions
    )


def _ended(answers: Sequence[Answered[SessionsEnded]]) -> SessionsEndedView:
    counts = [answer.answer.ended if answer.answer is not None else None for answer in answers]
    return SessionsEndedView(
        ended=sum(count for count in counts if count is not None),
        replicas=[_replica(answer, count) for answer, count in zip(answers, counts, strict=True)],
    )
