"""/lists"""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from pydantic import ValidationError

from postern_api.access import guarded_router
from postern_api.changing import CurrentPolicy, PolicyChange
from postern_api.errors import InvalidError, declared, declared_change
from postern_api.fields import Identity
from postern_api.lists import service
from postern_api.lists.schemas import ListBody, ListChangeBody, ListSummary
from postern_api.policy.objects import ListObject, Snapshot

router = guarded_router("/lists", "lists")

_TEXT = "*.bulk.example\nspam@example.org\n"


def _takes(*types: str) -> dict[str, object]:
    content: dict[str, object] = {
        "application/json": {"schema": {"$ref": "#/components/schemas/ListBody"}},
        "text/plain": {"schema": {"type": "string"}, "example": _TEXT},
    }
    return {"requestBody": {"content": {each: content[each] for each in types}}}


@router.get("", responses=declared())
async def list_lists(policy: CurrentPolicy) -> list[ListSummary]:
    """All lists by name, without their values."""
    return [ListSummary.of(each, policy) for each in policy.lists]


@router.post("", status_code=201, responses=declared_change(), openapi_extra=_takes("application/json"))
async def add_list(request: Request, change: PolicyChange) -> ListSummary:
    """Add a list. Rules take its values up as soon as they name it."""
    listed = await asyncio.to_thread(_listed, await request.body())  # a long one takes a second
    applied = await change.apply("list.added", f"lists/{listed.name}", lambda draft: service.add(draft, listed))
    return ListSummary.of(listed, applied.snapshot)


@router.get(
    "/{name}",
    response_model=ListBody,
    responses=declared(404) | {200: {"content": {"text/plain": {"example": _TEXT}}}},
)
async def get_list(
    name: Identity, policy: CurrentPolicy, response: Response, accept: Annotated[str, Header()] = ""
) -> ListBody | PlainTextResponse:
    """One list. Its values alone as text, one a line, for `Accept: text/plain`."""
    listed = service.find(policy, name)
    if accept.strip().lower().startswith("text/plain"):
        # an answer of its own takes no header fields along
        return PlainTextResponse(f"{listed.text}\n" if listed.text else "", headers=dict(response.headers))
    return await asyncio.to_thread(ListBody.of, listed)


@router.put("/{name}", responses=declared_change(404), openapi_extra=_takes("application/json", "text/plain"))
async def replace_list(name: Identity, request: Request, policy: CurrentPolicy, change: PolicyChange) -> ListSummary:
    """Replace a list; its kind stays. As JSON, or its values alone as text with one a line (`Content-Type: text/plain`)."""
    data = await request.body()
    if request.headers.get("Content-Type", "").strip().lower().startswith("text/plain"):
        kind = service.find(policy, name).kind
        text = await asyncio.to_thread(service.text_of, kind, data)
        applied = await change.apply("list.replaced", f"lists/{name}", lambda draft: service.with_text(draft, name, kind, text))
        return _summary(applied.snapshot, name)
    listed = await asyncio.to_thread(_listed, data)
    if listed.name != name:
        raise InvalidError("name_differs", "the name in the body is not the one in the address; a list cannot be renamed")
    applied = await change.apply("list.replaced", f"lists/{name}", lambda draft: service.replace(draft, listed))
    return _summary(applied.snapshot, name)


@router.patch("/{name}", responses=declared_change(404))
async def change_list(name: Identity, body: ListChangeBody, change: PolicyChange) -> ListSummary:
    """Add and remove single values; what is there already, or not, does no harm."""
    applied = await change.apply(
        "list.changed", f"lists/{name}", lambda draft: service.with_changes(draft, name, body.add, body.remove)
    )
    return _summary(applied.snapshot, name)


@router.delete("/{name}", status_code=204, responses=declared_change(404))
async def delete_list(name: Identity, change: PolicyChange) -> None:
    """Remove a list that no rule names."""
    await change.apply("list.deleted", f"lists/{name}", lambda draft: service.remove(draft, name))


def _summary(snapshot: Snapshot, name: str) -> ListSummary:
    return ListSummary.of(service.find(snapshot, name), snapshot)


def _listed(data: bytes) -> ListObject:
    try:
        return ListBody.model_validate_json(data).to_object()
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False, include_context=False)) from error
