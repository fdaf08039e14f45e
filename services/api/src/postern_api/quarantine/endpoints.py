"""/quarantine"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Final

import msgspec
import structlog
from fastapi import Query, Response

from postern_api.access import Operator, Reader, guarded_router
from postern_api.audit.service import audited
from postern_api.context import InContext
from postern_api.errors import declared
from postern_api.fields import Exactly, Limit, Part
from postern_api.messages.endpoints import checked_queue_id
from postern_api.policy.addresses import checked_address
from postern_api.quarantine.schemas import ForwardBody, Forwarded, HeldDetail, HeldPage, HeldView, Released
from postern_core.errors import TransientError
from postern_core.verdict import HoldReason

log: structlog.stdlib.BoundLogger = structlog.get_logger()

router = guarded_router("/quarantine", "quarantine")

_SHOWN_HEADER_BYTES: Final = 64 * 1024
_NOT_LISTED: Final = {"sequence", "generation"}


@router.get("", responses=declared(400))
async def list_held(
    *,
    context: InContext,
    _: Reader,
    after: Annotated[str, Query(description="`next` of the page before.")] = "",
    limit: Limit = 100,
    sender: Part = "",
    recipient: Part = "",
    subject: Part = "",
    reason: HoldReason | None = None,
    rule_id: Exactly = "",
) -> HeldPage:
    """Held mail, newest first."""
    try:
        await context.quarantine.indexer.refresh()
    except TransientError as error:
        log.warning("quarantine.index_stale", reason=error.reason)  # the list as it was last known is better than none
    rows, total = await context.quarantine.index.page(
        after=checked_queue_id(after) if after else "",
        limit=limit,
        sender=sender,
        recipient=recipient,
        subject=subject,
        reason=reason.value if reason else "",
        rule_id=rule_id,
    )
    views = [HeldView(**{name: value for name, value in asdict(row).items() if name not in _NOT_LISTED}) for row in rows]
    return HeldPage(rows=views, total=total, next=rows[-1].queue_id if len(rows) == limit else "")


@router.get("/{queue_id}", responses=declared(400, 404, 409))
async def get_held(queue_id: str, context: InContext, _: Reader) -> HeldDetail:
    """Why a message is held, its envelope and its header block."""
    entry = await context.quarantine.get(checked_queue_id(queue_id))
    body = await context.quarantine.body(entry)
    return HeldDetail(
        queue_id=queue_id,
        subject=entry.held.subject,
        generation=entry.held.generation,
        verdict=msgspec.to_builtins(entry.held.verdict),
        envelope=msgspec.to_builtins(entry.held.envelope),
        headers=header_fields(bytes(body[:_SHOWN_HEADER_BYTES])),
    )


@router.get(
    "/{queue_id}/raw",
    responses=declared(400, 404, 409) | {200: {"content": {"message/rfc822": {}}, "description": "The message as received."}},
    response_class=Response,
)
async def get_raw(queue_id: str, context: InContext, who: Operator) -> Response:
    """The whole message as it was received. Reading it is noted in the audit log. Do not open it in a browser."""
    checked = checked_queue_id(queue_id)
    entry = await context.quarantine.get(checked)
    async with audited(context.audit, who.name, "quarantine.read", f"quarantine/{checked}"):
        body = await context.quarantine.body(entry)
    headers = {
        "Content-Disposition": f'attachment; filename="{checked}.eml"',
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "no-store",
    }
    return Response(bytes(body), media_type="message/rfc822", headers=headers)


@router.post("/{queue_id}/release", responses=declared(400, 404, 409))
async def release(queue_id: str, context: InContext, who: Operator) -> Released:
    """Send the message to its recipients after all. Repeating it does no harm."""
    checked = checked_queue_id(queue_id)
    async with audited(context.audit, who.name, "quarantine.release", f"quarantine/{checked}"):
        return Released(queue_id=checked, jobs=await context.quarantine.release(checked, who.name))


@router.post("/{queue_id}/forward", responses=declared(400, 404, 409))
async def forward(queue_id: str, body: ForwardBody, context: InContext, who: Operator) -> Forwarded:
    """Send the message to another address instead; its recipients stand in a header field of the copy. Repeating it does no harm."""
    checked, to = checked_queue_id(queue_id), checked_address(body.to)
    async with audited(context.audit, who.name, "quarantine.forward", f"quarantine/{checked}", {"to": to}):
        successor = await context.quarantine.forward(checked, to, who.name)
        return Forwarded(queue_id=checked, successor_id=successor or "")


@router.delete("/{queue_id}", status_code=204, responses=declared(400, 404, 409))
async def delete_held(queue_id: str, context: InContext, who: Operator) -> None:
    """End the message; nobody is told. Repeating it does no harm."""
    checked = checked_queue_id(queue_id)
    async with audited(context.audit, who.name, "quarantine.delete", f"quarantine/{checked}"):
        await context.quarantine.delete(checked, who.name)


def header_fields(message: bytes) -> list[tuple[str, str]]:
    """Name and undecoded value of each header field of `message`; what is no field ends the list (RFC 5322 section 2.2)."""
    fields: list[tuple[str, str]] = []
    for line in message.split(b"\n"):
        text = line.rstrip(b"\r").decode("utf-8", "replace")
        if not text:
            break
        if text[0] in " \t" and fields:
            name, value = fields[-1]
            fields[-1] = (name, f"{value}\n{text}")
            continue
        name, colon, value = text.partition(":")
        if not colon:
            break
        fields.append((name.rstrip(), value.strip()))
    return fields
