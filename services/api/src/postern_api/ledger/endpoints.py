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
from postern_api.ledger.comparison import queue_id_of
from postern_api.ledger.schemas import DiscrepancyView, HourBalance, LedgerHours, LedgerView, OpenTooLong, VerificationView
from postern_core.broker.names import RECORDER_CONSUMER
from postern_core.bus.topology import DEFERRED, DISPOSITIONS, INTAKE, OUTBOUND
from postern_core.errors import TransientError

log: structlog.stdlib.BoundLogger = structlog.get_logger()

router = guarded_router("/ledger", "ledger")

# a day from either end, so that the same moment exists in every time zone
_FIRST, _LAST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
_GRACE_S = 3600.0  # beyond expiry, for the last attempt and its NDR
_HOUR = timedelta(hours=1)
_MOST_HOURS = 31 * 24

OlderThan = Annotated[
    float | None, Query(gt=0, le=10**8, allow_inf_nan=False, description="What is too long; default: expiry and an hour.")
]


@router.get("", responses=declared(400))
async def get_ledger(
    context: InContext,
    _: Reader,
    since: Annotated[AwareDatetime | None, Query(description="Only mail accepted from then on.")] = None,
    older_than_s: OlderThan = None,
) -> LedgerView:
    """The balance: what was accepted, how it ended, what is in flight, and what has been in flight for too long."""
    accepted, ended = await context.ledger.totals(_in_the_calendar("since", since))
    books = service.balances(accepted, ended)
    streams, unrecorded = await _on_the_bus(context)
    return LedgerView(
        since=since,
        total=service.total(books.values()),
        gates=books,
        open_too_long=await _open_too_long(context, older_than_s),
        streams=streams,
        unrecorded=unrecorded,
    )


@router.get("/hours", responses=declared(400))
async def get_ledger_hours(
    context: InContext,
    _: Reader,
    since: Annotated[
        AwareDatetime | None, Query(description="The first hour is the one with this moment; default: a day before `until`.")
    ] = None,
    until: Annotated[
        AwareDatetime | None, Query(description="The last hour is the one before or with this moment; default: now.")
    ] = None,
) -> LedgerHours:
    """The balance of each hour in which mail was accepted, by gate; at most 31 days."""
    end = _hour_of(_in_the_calendar("until", until) or datetime.now(UTC), up=True)
    begin = _hour_of(_in_the_calendar("since", since) or end - timedelta(days=1))
    if not timedelta(0) < end - begin <= _MOST_HOURS * _HOUR:
        raise InvalidError("invalid_period", f"until must lie behind since, by at most {_MOST_HOURS} hours")
    books = service.balances(*await context.ledger.hours(begin, end))
    rows = [HourBalance(hour=hour, gate=gate, **book.model_dump()) for (hour, gate), book in books.items()]
    return LedgerHours(since=begin, until=end, rows=rows)


@router.get("/verification", responses=declared(409))
async def verify_ledger(
    context: InContext,
    _: Reader,
    grace_s: Annotated[
        float,
        Query(gt=0, le=600, allow_inf_nan=False, description="How long something has to look wrong until it counts, in seconds."),
    ] = 15.0,
    older_than_s: OlderThan = None,
) -> VerificationView:
    """Compare every id of ledger, streams and retry queue, and list those about which they disagree. Takes the grace where something looks
    wrong, and much longer with hundreds of thousands of messages; one at a time."""
    found = await context.verifier.verify(grace_s)
    return VerificationView(
        balanced=not found.count and not found.undecided,
        count=found.count,
        discrepancies=[
            DiscrepancyView(
                queue_id=queue_id_of(each.identity),
                job_id=each.identity if "-" in each.identity else "",
                fault=each.fault,
                detail=each.detail,
            )
            for each in found.findings
        ],
        undecided=found.undecided,
        looked_at=found.looked_at,
        open_too_long=await _open_too_long(context, older_than_s),
    )


async def _open_too_long(context: Context, older_than_s: float | None) -> OpenTooLong:
    if older_than_s is None:
        older_than_s = (await context.editor.current()).snapshot.schedule.expiry_s + _GRACE_S
    count, ids = await context.ledger.open_since(datetime.now(UTC) - timedelta(seconds=older_than_s), 100)
    return OpenTooLong(older_than_s=older_than_s, count=count, ids=ids)


def _in_the_calendar(name: str, moment: datetime | None) -> datetime | None:
    if moment is not None and not _FIRST <= moment <= _LAST:
        raise InvalidError("invalid_since" if name == "since" else "invalid_period", f"{name} lies beyond the calendar")
    return moment


def _hour_of(moment: datetime, *, up: bool = False) -> datetime:
    """The beginning of the hour with `moment`, in UTC; or, `up`, the next beginning that is not before it."""
    begin = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return begin + _HOUR if up and begin < moment else begin


async def _on_the_bus(context: Context) -> tuple[dict[str, int] | None, int | None]:
    try:
        streams = {name: int((await context.bus.stream_state(name))["messages"]) for name in (INTAKE, OUTBOUND, DEFERRED)}
        recorder = await context.bus.consumer_info(DISPOSITIONS, RECORDER_CONSUMER)
    except TransientError as error:
        log.warning("ledger.bus_unknown", reason=error.reason)
        return None, None
    return streams, int(recorder["num_pending"]) + int(recorder["num_ack_pending"])
