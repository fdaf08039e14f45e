"""/queue and /badmail"""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import Query

from postern_api.access import Actor, Operator, Reader, guarded_router
from postern_api.audit.service import audited
from postern_api.context import Context, InContext
from postern_api.errors import NotFoundError, declared
from postern_api.fields import Exactly, Identity, Limit
from postern_api.messages.endpoints import checked_job_id, checked_queue_id
from postern_api.queue.schemas import (
    BadmailPageView,
    BadmailRowView,
    QueueChangedView,
    QueueDeletion,
    QueuePageView,
    QueueRowView,
    QueueSelection,
)
from postern_core.control import DeliveryVerb, QueuePage, QueueQuery

queue = guarded_router("/queue", "queue")
badmail = guarded_router("/badmail", "badmail")

After = Annotated[Exactly, Query(description="The last job id of the page before.")]


def _page(page: QueuePage) -> QueuePageView:
    return QueuePageView(rows=[QueueRowView(**msgspec.structs.asdict(row)) for row in page.rows], total=page.total)


async def _act(context: Context, who: Actor, verb: DeliveryVerb, selection: QueueSelection) -> QueueChangedView:
    if selection.queue_id is not None:
        checked_queue_id(selection.queue_id)
    if selection.job_id is not None:
        checked_job_id(selection.job_id)
    detail = selection.model_dump(exclude_defaults=True)
    async with audited(context.audit, who.name, verb.value.replace("-", "."), "queue", detail):
        return QueueChangedView(changed=await context.queue.act(verb, selection.to_action(who.name)))


@queue.get("", responses=declared())
async def list_queue(
    context: InContext,
    _: Reader,
    route: Annotated[Exactly, Query(description="Only this route.")] = "",
    after: After = "",
    limit: Limit = 100,
) -> QueuePageView:
    """Deferred jobs: each with its open recipients, its last reply and its next attempt."""
    return _page(await context.queue.page(QueueQuery(route=route, after=after, limit=limit)))


@queue.post("/retry", responses=declared(400, 409))
async def retry(body: QueueSelection, context: InContext, who: Operator) -> QueueChangedView:
    """Try these jobs again now."""
    return await _act(context, who, DeliveryVerb.QUEUE_RETRY, body)


@queue.post("/hold", responses=declared(400, 409))
async def hold(body: QueueSelection, context: InContext, who: Operator) -> QueueChangedView:
    """Freeze these jobs until they are resumed."""
    return await _act(context, who, DeliveryVerb.QUEUE_HOLD, body)


@queue.post("/resume", responses=declared(400, 409))
async def resume(body: QueueSelection, context: InContext, who: Operator) -> QueueChangedView:
    """Let frozen jobs go on."""
    return await _act(context, who, DeliveryVerb.QUEUE_RESUME, body)


@queue.post("/delete", responses=declared(400, 409))
async def delete_jobs(body: QueueDeletion, context: InContext, who: Operator) -> QueueChangedView:
    """End these jobs, silently or with an NDR to each sender."""
    return await _act(context, who, DeliveryVerb.QUEUE_DELETE, body)


@queue.get("/{queue_id}", responses=declared(400))
async def get_queued(queue_id: str, context: InContext, _: Reader) -> QueuePageView:
    """The deferred jobs of one message; none when it does not wait."""
    return _page(await context.queue.rows_of(checked_queue_id(queue_id)))


@badmail.get("", responses=declared())
async def list_badmail(context: InContext, _: Reader, after: After = "", limit: Limit = 100) -> BadmailPageView:
    """What could neither be delivered nor returned."""
    page = await context.queue.badmail(QueueQuery(after=after, limit=limit))
    return BadmailPageView(rows=[BadmailRowView(**msgspec.structs.asdict(row)) for row in page.rows], total=page.total)


@badmail.delete("/{job_id}", status_code=204, responses=declared(400, 404, 409))
async def delete_badmail(job_id: Identity, context: InContext, who: Operator) -> None:
    """Delete one dead letter for good: its recipients end as `deleted`. Repeating one that was cut short does no harm."""
    checked = checked_job_id(job_id)
    async with audited(context.audit, who.name, "badmail.delete", f"badmail/{checked}"):
        if not await context.badmail.delete(checked, who.name):
            raise NotFoundError("badmail", checked)
