"""/domains"""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from pydantic import ValidationError

from postern_api.access import guarded_router
from postern_api.changing import CurrentPolicy, PolicyChange
from postern_api.domains import recipients, service
from postern_api.domains.schemas import DomainBody, RecipientChangeBody, RecipientListBody, RecipientSummary
from postern_api.errors import InvalidError, declared, declared_change
from postern_api.policy.addresses import checked_pattern
from postern_core.policy import RecipientList

router = guarded_router("/domains", "domains")

_EITHER_FORM = {
    "requestBody": {
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/RecipientListBody"}},
            "text/plain": {"schema": {"type": "string"}, "example": "ann@example.com\nbob@example.com\n"},
        }
    }
}


@router.get("", responses=declared())
async def list_domains(policy: CurrentPolicy) -> list[DomainBody]:
    """All relay domains."""
    return [DomainBody.of(domain) for domain in policy.domains]


@router.post("", status_code=201, responses=declared_change())
async def add_domain(body: DomainBody, change: PolicyChange) -> DomainBody:
    """Add a relay domain. The gates take mail for it as soon as the revision is live."""
    domain = body.to_object()
    await change.apply("domain.added", f"domains/{domain.pattern}", lambda snapshot: service.add(snapshot, domain))
    return DomainBody.of(domain)


@router.get("/{pattern}", responses=declared(400, 404))
async def get_domain(pattern: str, policy: CurrentPolicy) -> DomainBody:
    """One relay domain."""
    return DomainBody.of(service.find(policy, checked_pattern(pattern)))


@router.put("/{pattern}", responses=declared_change(404))
async def replace_domain(pattern: str, body: DomainBody, change: PolicyChange) -> DomainBody:
    """Change a relay domain."""
    domain = body.to_object()
    if domain.pattern != checked_pattern(pattern):
        raise InvalidError("name_differs", "the pattern in the body is not the one in the address; a domain cannot be renamed")
    await change.apply("domain.changed", f"domains/{domain.pattern}", lambda snapshot: service.replace(snapshot, domain))
    return DomainBody.of(domain)


@router.delete("/{pattern}", status_code=204, responses=declared_change(404))
async def delete_domain(pattern: str, change: PolicyChange) -> None:
    """Remove a relay domain: the gates refuse mail for it from then on. What was accepted before still goes its way."""
    name = checked_pattern(pattern)
    await change.apply("domain.deleted", f"domains/{name}", lambda snapshot: service.remove(snapshot, name))


@router.get(
    "/{pattern}/recipients",
    response_model=RecipientListBody,
    responses=declared(400, 404) | {200: {"content": {"text/plain": {"example": "ann@example.com\nbob@example.com\n"}}}},
)
async def get_recipients(
    pattern: str, policy: CurrentPolicy, accept: Annotated[str, Header()] = ""
) -> RecipientListBody | PlainTextResponse:
    """The list of a domain's mailboxes, which counts when its `recipients` are `list`. As text, one a line, for `Accept: text/plain`."""
    listed = recipients.list_of(policy, checked_pattern(pattern))
    if accept.strip().lower().startswith("text/plain"):
        return PlainTextResponse("".join(f"{address}\n" for address in listed.addresses))
    return RecipientListBody.of(listed)


@router.put("/{pattern}/recipients", responses=declared_change(404), openapi_extra=_EITHER_FORM)
async def replace_recipients(pattern: str, request: Request, change: PolicyChange) -> RecipientSummary:
    """Replace the list. As JSON, or as text with one address a line (`Content-Type: text/plain`), which is caseless."""
    name = checked_pattern(pattern)
    is_text = request.headers.get("Content-Type", "").strip().lower().startswith("text/plain")
    listed = await asyncio.to_thread(_listed, name, await request.body(), is_text=is_text)  # a long one takes a second
    await change.apply("recipients.replaced", f"domains/{name}/recipients", lambda draft: recipients.with_list(draft, listed))
    return RecipientSummary(domain=name, addresses=len(listed.addresses))


def _listed(pattern: str, data: bytes, *, is_text: bool) -> RecipientList:
    try:
        body = RecipientListBody.of_text(data.decode()) if is_text else RecipientListBody.model_validate_json(data)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False, include_context=False)) from error
    except UnicodeDecodeError as error:
        raise InvalidError("invalid_address", "the text is not UTF-8") from error
    return recipients.checked_list(pattern, body.addresses, case_sensitive=body.case_sensitive)


@router.patch("/{pattern}/recipients", responses=declared_change(404))
async def change_recipients(pattern: str, body: RecipientChangeBody, change: PolicyChange) -> RecipientSummary:
    """Add and remove single mailboxes; what is there already, or not, does no harm."""
    name = checked_pattern(pattern)
    applied = await change.apply(
        "recipients.changed",
        f"domains/{name}/recipients",
        lambda draft: recipients.with_changes(draft, name, body.add, body.remove),
    )
    return RecipientSummary(domain=name, addresses=len(recipients.list_of(applied.snapshot, name).addresses))
