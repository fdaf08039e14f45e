"""/screening"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Final, Literal

from fastapi import Query

from postern_api.access import Operator, Reader, guarded_router
from postern_api.audit.service import audited
from postern_api.context import InContext
from postern_api.errors import InvalidError, declared
from postern_api.fields import Exactly, Identity
from postern_api.messages.verdict_schemas import RuleOutcomeView
from postern_api.policy.addresses import checked_address
from postern_api.screening.drafts import told
from postern_api.screening.rehearsal_schemas import RehearsalBody, RehearsalResult, RehearsalView
from postern_api.screening.schemas import EnvelopeBody, TestBody, TestResult
from postern_core.envelope import Client, Envelope, Gate, Recipient
from postern_core.ids import accepted_at, new_queue_id

router = guarded_router("/screening", "screening")

_RAW: Final[dict[str, Any]] = {
    "requestBody": {"content": {"message/rfc822": {"schema": {"type": "string", "format": "binary"}}}, "required": True}
}


@router.post("/test", responses=declared(400, 404, 409), openapi_extra=_RAW)
async def try_message(
    *,
    body: TestBody,
    context: InContext,
    _: Operator,
    revision: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="Of the policy; default: the newest.")] = None,
    gate: Annotated[Literal["anon", "auth"], Query(description="Where it would have come in.")] = "anon",
    reverse_path: Exactly = "",
    recipient: Annotated[list[Exactly], Query(max_length=100)] = [],  # noqa: B006  (the framework copies it)
    client: Annotated[Exactly, Query(description="Address of the client.")] = "127.0.0.1",
    user: Exactly = "",
) -> TestResult:
    """What would come of a message under the policy in force, an earlier revision, or rules that are only a draft: the verdict, every place
    where a condition holds, and what kept the other rules from matching. Nothing is stored or sent. Send the message as `message/rfc822`, with the
    query saying the rest, or a JSON object with everything."""
    draft = await context.screening.drafts.policy(body.revision or revision, body.rules)
    handed_in = body.envelope or EnvelopeBody(
        gate=gate, reverse_path=reverse_path, recipients=recipient, client=client, user=user
    )
    envelope = _envelope(handed_in, len(body.message))
    tried, outcomes, compile_ms = await context.screening.test(draft, envelope, body.message)
    rules = None if outcomes is None else RuleOutcomeView.all_of(outcomes)
    return TestResult.of(draft.policy.revision, draft=draft.is_draft, tried=tried, rules=rules, compile_ms=compile_ms)


@router.post("/rehearsals", status_code=201, responses=declared(400, 404, 409))
async def begin_rehearsal(body: RehearsalBody, context: InContext, who: Operator) -> RehearsalView:
    """Try rules on held mail, on recent traffic, or both: which messages would come to another end? Without `rules`, those in force now are tried:
    who already got what they would catch? It runs beside live mail, and waits for it; one at a time. Noted in the audit log, since it reads mail."""
    draft = await context.screening.drafts.policy(body.revision, body.rules)
    detail = {
        "source": body.source.value,
        "hours": body.hours,
        "draft": draft.is_draft,
        "revision": draft.policy.revision,
        "rules": told(body.rules or []),
    }
    async with audited(context.audit, who.name, "screening.rehearse", "screening/rehearsals", detail):
        begun = context.rehearsals.begin(actor=who.name, source=body.source, hours=body.hours, draft=draft, most=body.most)
    return RehearsalView.of(begun)


@router.get("/rehearsals", responses=declared())
async def list_rehearsals(context: InContext, _: Reader) -> list[RehearsalView]:
    """Rehearsals since the api started, newest first; twenty at most."""
    return [RehearsalView.of(each) for each in context.rehearsals.known()]


@router.get("/rehearsals/{rehearsal_id}", responses=declared(404))
async def get_rehearsal(rehearsal_id: Identity, context: InContext, _: Reader) -> RehearsalResult:
    """How far a rehearsal is, and what it has found so far."""
    return RehearsalResult.of(context.rehearsals.get(rehearsal_id))


@router.delete("/rehearsals/{rehearsal_id}", status_code=204, responses=declared(404))
async def stop_rehearsal(rehearsal_id: Identity, context: InContext, _: Operator) -> None:
    """Stop a rehearsal; what it has found stays. One that is over is forgotten."""
    context.rehearsals.stop(rehearsal_id)


def _envelope(said: EnvelopeBody, size_bytes: int) -> Envelope:
    """InvalidError for what no gate would take."""
    try:
        client = str(ipaddress.ip_address(said.client))
    except ValueError as error:
        raise InvalidError("invalid_client", f"{said.client!r} is no address of a client") from error
    recipients = [checked_address(address) for address in said.recipients] or ["postmaster@localhost.localdomain"]
    queue_id = new_queue_id()
    return Envelope(
        id=queue_id,
        gate=Gate(said.gate),
        reverse_path=checked_address(said.reverse_path) if said.reverse_path else "",
        recipients=tuple(Recipient(n=n, address=address) for n, address in enumerate(recipients)),
        size_bytes=size_bytes,
        accepted_at=accepted_at(queue_id),
        client=Client(address=client, user=said.user),
    )
