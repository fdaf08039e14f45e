"""/messages"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

from fastapi import Query

from postern_api.access import Reader, guarded_router
from postern_api.context import InContext
from postern_api.errors import InvalidError, NotFoundError, declared
from postern_api.fields import Limit, Part
from postern_api.messages.records import DispositionRow, EventRow, MessageRow
from postern_api.messages.schemas import DispositionView, EventView, MessagePage, MessageView, PlaceView, TraceView
from postern_core.bus.topology import checked_route_name
from postern_core.disposition import DispositionKind
from postern_core.ids import QueueId, parse_queue_id

router = guarded_router("/messages", "messages")


def checked_queue_id(text: str) -> QueueId:
    """InvalidError for what cannot be one."""
    try:
        return parse_queue_id(text)
    except ValueError as error:
        raise InvalidError("invalid_queue_id", str(error)) from error


def checked_job_id(text: str) -> str:
    """`<queue-id>-<route>-<generation>`, one token of a subject. InvalidError for what cannot be one."""
    queue_id, _, rest = text.partition("-")
    route, _, generation = rest.rpartition("-")
    try:
        parse_queue_id(queue_id)
        checked_route_name(route)
    except ValueError as error:
        raise InvalidError("invalid_job_id", f"{text!r} is not a job id (<queue-id>-<route>-<generation>)") from error
    if not generation.isascii() or not generation.isdigit() or len(generation) > 9:
        raise InvalidError("invalid_job_id", f"{text!r} is not a job id (<queue-id>-<route>-<generation>)")
    return text


def _view(row: MessageRow, ends: Sequence[DispositionRow]) -> MessageView:
    return MessageView(**asdict(row), open=row.is_open, dispositions=[DispositionView(**asdict(end)) for end in ends])


def _event(row: EventRow) -> EventView:
    return EventView(**asdict(row))


@router.get("", responses=declared(400))
async def list_messages(
    *,
    context: InContext,
    _: Reader,
    after: Annotated[str, Query(description="`next` of the page before.")] = "",
    limit: Limit = 100,
    sender: Annotated[Part, Query(description="Part of the reverse-path, caseless.")] = "",
    recipient: Annotated[Part, Query(description="Part of a recipient that has a disposition, caseless.")] = "",
    disposition: Annotated[DispositionKind | None, Query(description="Some recipient ended so.")] = None,
    open_only: Annotated[bool, Query(description="Only those with recipients that have not come to an end.")] = False,
) -> MessagePage:
    """Recent messages, newest first."""
    cursor = checked_queue_id(after) if after else ""
    rows = await context.trace.page(
        after=cursor, limit=limit, sender=sender, recipient=recipient, kind=disposition, open_only=open_only
    )
    ends = await context.trace.ends_of([row.id for row in rows])
    return MessagePage(rows=[_view(row, ends[row.id]) for row in rows], next=rows[-1].id if len(rows) == limit else "")


@router.get("/{queue_id}", responses=declared(400, 404))
async def get_message(queue_id: str, context: InContext, _: Reader) -> TraceView:
    """The trace of one message: its steps, the end of each recipient, and where it is now."""
    trace, places = await context.messages.trace(checked_queue_id(queue_id))
    if trace.message is None and not trace.events and not trace.dispositions and not places:
        raise NotFoundError("message", queue_id)
    return TraceView(
        id=queue_id,
        message=_view(trace.message, trace.dispositions) if trace.message else None,
        events=[_event(row) for row in trace.events],
        dispositions=[DispositionView(**asdict(end)) for end in trace.dispositions],
        history=[_event(row) for row in trace.history],
        places=[PlaceView(stream=place.stream, subject=place.subject) for place in places] if places is not None else None,
    )
