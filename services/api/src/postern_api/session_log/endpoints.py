"""/session-log"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime

from postern_api.access import Reader, guarded_router
from postern_api.context import InContext
from postern_api.errors import InvalidError, declared
from postern_api.fields import Exactly, Limit
from postern_api.listeners.parts import GateName
from postern_api.session_log import w3c
from postern_api.session_log.repository import LogQuery, Position, SessionLogRepository
from postern_api.session_log.schemas import SessionLogPage, SessionLogRow

router = guarded_router("/session-log", "sessions")

_FIRST, _LAST = datetime(1970, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_POSITION: Final = re.compile(r"(\d{1,18})~([a-z0-9-]{1,64})~(\d{1,9})", re.ASCII)
_PAGE: Final = 1000


def _asked(
    gate: Annotated[GateName | None, Query(description="Only this gate.")] = None,
    client: Annotated[Exactly, Query(description="Exactly this address.")] = "",
    user: Annotated[Exactly, Query(description="Exactly this user.")] = "",
    session: Annotated[Exactly, Query(description="Exactly this session.")] = "",
    since: Annotated[AwareDatetime | None, Query(description="From then on; default: a day before `until`.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Before then; default: now.")] = None,
) -> LogQuery:
    end = until or datetime.now(UTC)
    if not _FIRST <= end <= _LAST or not (since is None or _FIRST <= since <= end):
        raise InvalidError("invalid_period", "until must lie behind since, and both within the calendar")
    begin = since or max(end - timedelta(days=1), _FIRST)
    return LogQuery(since=begin, until=end, gate=gate or "", client=client, user=user, session=session)


Asked = Annotated[LogQuery, Depends(_asked)]


@router.get("", responses=declared(400))
async def list_session_log(
    context: InContext,
    _: Reader,
    query: Asked,
    after: Annotated[Exactly, Query(description="`next` of the page before.")] = "",
    limit: Limit = 100,
) -> SessionLogPage:
    """Records of the session log, oldest first."""
    rows = await context.session_log.page(query, _position(after) if after else None, limit)
    last = rows[-1] if len(rows) == limit else None
    cursor = f"{(last['at'] - _EPOCH) // _MICROSECOND}~{last['session']}~{last['n']}" if last is not None else ""
    return SessionLogPage(rows=[SessionLogRow(**row) for row in rows], next=cursor)


@router.get("/w3c", response_class=StreamingResponse, responses={200: {"content": {"text/plain": {}}}, **declared(400)})
async def export_session_log(context: InContext, _: Reader, query: Asked) -> StreamingResponse:
    """The same as a W3C extended log file, as IIS wrote it: all records of the period."""
    name = f"postern-{query.gate or 'gates'}-{query.since:%Y%m%dT%H%M%S}.log"
    return StreamingResponse(
        _lines(context.session_log, query),
        media_type="text/plain; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


async def _lines(log: SessionLogRepository, query: LogQuery) -> AsyncIterator[str]:
    yield w3c.head(datetime.now(UTC))
    after: Position | None = None
    while rows := await log.page(query, after, _PAGE):
        yield "".join(map(w3c.line, rows))
        after = Position(rows[-1]["at"], rows[-1]["session"], rows[-1]["n"])


def _position(text: str) -> Position:
    found = _POSITION.fullmatch(text)
    try:
        if found is not None:
            return Position(_EPOCH + int(found[1]) * _MICROSECOND, found[2], int(found[3]))
    except OverflowError:
        pass
    raise InvalidError("invalid_after", "after takes what the page before gave as next")
