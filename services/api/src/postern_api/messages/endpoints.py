"""/messages"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

from fastapi import Query

from postern_api.access import Reader, guarded_router
from postern_api.context import InContext
from postern_api.errors import InvalidError, NotFoundError, declared
from postern_api.fields import Exactly, Limit, Part
from postern_api.messages.recording import VERDICT
from postern_api.messages.records import DispositionRow, EventRow, MessageRow
from postern_api.messages.schemas import DispositionView, EventView, MessagePage, MessageView, PlaceView, TraceView
from postern_api.messages.verdict_schemas import MessageVerdict, RuleOutcomeView, VerdictView
from postern_api.messages.verdicts import of_rules
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
    # the verdict has an answer of its own
    fields = {name: value for name, value in row.fields.items() if name != VERDICT}
    return EventView(kind=row.kind, at=row.at, service=row.service, fields=fields)


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


@router.get("/{queue_id}/verdict", responses=declared(400, 404, 409))
async def get_verdict(
    queue_id: str,
    context: InContext,
    _: Reader,
    why_not: Annotated[bool, Query(description="Tell of each rule what came of it, and why it did not match.")] = False,
    rule_id: Annotated[Exactly, Query(description="Of this rule alone; with `why_not`.")] = "",
) -> MessageVerdict:
    """What the screener decided about a message, where each rule matched, and why the others did not. It is known for as long as the trace is
    kept; of a held message for as long as it is held."""
    checked = checked_queue_id(queue_id)
    told = await context.verdicts.find(checked)
    rules = RuleOutcomeView.all_of(of_rules(await context.verdicts.why_not(told.verdict), rule_id)) if why_not else None
    return MessageVerdict(queue_id=checked, at=told.at, verdict=VerdictView.of(told.verdict), rules=rules)
