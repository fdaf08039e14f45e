"""/ledger"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import structlog
from fastapi import Query
from pydantic import AwareDatetime

from postern_api.access import Reader, guarded_router
from postern_api.context import Context, InContext
from postern_api.errors import InvalidError, declared
from postern_api.ledger import service
from postern_api.ledger.repository import LedgerRepository
from postern_api.ledger.schemas import LedgerView, OpenTooLong
from postern_core.bus.topology import DEFERRED, DISPOSITIONS, INTAKE, OUTBOUND, RECORDER_CONSUMER
from postern_core.errors import TransientError

log: structlog.stdlib.BoundLogger = structlog.get_logger()

router = guarded_router("/ledger", "ledger")

# a day from either end, so that the same moment exists in every time zone
_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
_GRACE_S = 3600.0  # beyond expiry, for the last attempt and its NDR


@router.get("", responses=declared(400))
async def get_ledger(
    context: InContext,
    _: Reader,
    since: Annotated[AwareDatetime | None, Query(description="Only mail accepted from then on.")] = None,
    older_than_s: Annotated[
        float | None, Query(gt=0, le=10**8, allow_inf_nan=False, description="What is too long; default: expiry and an hour.")
    ] = None,
) -> LedgerView:
    """The balance: what was accepted, how it ended, what is in flight, and what has been in flight for too long."""
    if since is not None and not _FIRST <= since <= _LAST:
        raise InvalidError("invalid_since", "since lies beyond the calendar")
    ledger = LedgerRepository(context.database)
    accepted, ended = await ledger.totals(since)
    books = service.balances(accepted, ended)
    if older_than_s is None:
        older_than_s = (await context.editor.current()).snapshot.schedule.expiry_s + _GRACE_S
    count, ids = await ledger.open_since(datetime.now(UTC) - timedelta(seconds=older_than_s), 100)
    streams, unrecorded = await _on_the_bus(context)
    return LedgerView(
        since=since,
        total=service.total(books.values()),
        gates=books,
        open_too_long=OpenTooLong(older_than_s=older_than_s, count=count, ids=ids),
        streams=streams,
        unrecorded=unrecorded,
    )


async def _on_the_bus(context: Context) -> tuple[dict[str, int] | None, int | None]:
    try:
        streams = {name: int((await context.bus.stream_state(name))["messages"]) for name in (INTAKE, OUTBOUND, DEFERRED)}
        recorder = await context.bus.consumer_info(DISPOSITIONS, RECORDER_CONSUMER)
    except TransientError as error:
        log.warning("ledger.bus_unknown", reason=error.reason)
        return None, None
    return streams, int(recorder["num_pending"]) + int(recorder["num_ack_pending"])
