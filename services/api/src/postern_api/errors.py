"""Errors of the API: each carries its HTTP status and a stable name; `rendering.py` renders them.

    ApiError ─┬─ InvalidError 400      the payload is well formed, and what it asks for makes no sense
              ├─ UnauthenticatedError 401
              ├─ ForbiddenError 403
              ├─ NotFoundError 404
              ├─ ConflictError 409     it makes sense, but not with what is there
              ├─ OutdatedError 412     If-Match names another revision
              ├─ TooLargeError 413     more than fits
              └─ UnavailableError 503  a part of Postern that the answer needs is away

422 is for malformed payloads only (FastAPI's own), and carries the name `malformed_payload`; `body_too_large` comes from `access`.
All names stand in docs/reference/api.md, which a test compares with the code.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field


class ApiError(Exception):
    """Base of all. `name` is for programs and stays the same; `message` is for people."""

    status: ClassVar[int] = 500

    def __init__(self, name: str, message: str, **detail: Any) -> None:
        self.name = name
        self.message = message
        self.detail = detail
        super().__init__(f"{name}: {message}")


class InvalidError(ApiError):
    status = 400


class UnauthenticatedError(ApiError):
    status = 401


class ForbiddenError(ApiError):
    status = 403


class NotFoundError(ApiError):
    status = 404

    def __init__(self, noun: str, identity: str) -> None:
        super().__init__(f"{noun.replace(' ', '_')}_not_found", f"there is no {noun} {identity!r}")


class ConflictError(ApiError):
    status = 409


class OutdatedError(ApiError):
    status = 412


class TooLargeError(ApiError):
    status = 413


class UnavailableError(ApiError):
    status = 503


class ErrorBody(BaseModel):
    """Every answer with a status of 400 or more has this body."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"error": "route_not_found", "message": "there is no route 'main'", "detail": {}}]}
    )

    error: str = Field(description="Stable name of the error, for programs.")
    message: str = Field(description="One sentence for people.")
    detail: dict[str, Any] = Field(default_factory=dict, description="More, where there is more.")


_TEXTS = {
    400: "Well formed, but it makes no sense (`error` says which).",
    401: "No token, or an unknown one.",
    403: "The token's scope does not allow this.",
    404: "There is no such object.",
    409: "Not with what is there now.",
    412: "`If-Match` names a revision that is not the newest.",
    413: "The request body is too large.",
    422: "Malformed payload.",
    503: "A part of Postern that the answer needs is away; `message` says which.",
}


# `"model": ErrorBody` would say the same, and have the framework make a validator and a serializer for each status of each endpoint,
# two thousand that nobody calls: `web.Application` adds the schema
_CONTENT: Final = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}


def declared(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What an endpoint may answer besides success, for the OpenAPI document; 401, 403, 413, 422 and 503 always."""
    always = {401, 403, 413, 422, 503}
    return {status: {"content": _CONTENT, "description": _TEXTS[status]} for status in sorted({*always, *statuses})}


def declared_change(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """As `declared`, for an endpoint that changes the policy."""
    saved = "Saved as a revision, but not on the bus yet (`Postern-Live: false`): Postern goes on trying by itself."
    return {202: {"description": saved}} | declared(400, 409, 412, *statuses)
