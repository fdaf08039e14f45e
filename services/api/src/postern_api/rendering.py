"""The one place where errors become answers. What nobody classified is a 500 whose traceback goes to the log only."""

from __future__ import annotations

from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from postern_api.errors import ApiError
from postern_api.store.database import is_away
from postern_core.errors import TransientError

log: structlog.stdlib.BoundLogger = structlog.get_logger()

_MOST_PROBLEMS: Final = 20


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.exception_handler(ApiError)(_api_error)
    app.exception_handler(RequestValidationError)(_malformed)
    app.exception_handler(HTTPException)(_http)
    app.exception_handler(TransientError)(_bus)
    for kind in (DBAPIError, PoolTimeoutError, OSError):
        app.exception_handler(kind)(_database)
    app.exception_handler(Exception)(_unclassified)


def answer(
    status: int, name: str, message: str, detail: dict[str, Any] | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """An error as it goes out (`errors.ErrorBody`)."""
    return JSONResponse({"error": name, "message": message, "detail": detail or {}}, status, headers)


async def _api_error(_: Request, error: ApiError) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return answer(error.status, error.name, error.message, error.detail, headers)


async def _malformed(_: Request, error: RequestValidationError) -> JSONResponse:
    # the input is not repeated: it may hold a password
    problems = [
        {"at": _printable(".".join(str(part) for part in each["loc"])), "problem": _printable(each["msg"])}
        for each in error.errors()[:_MOST_PROBLEMS]
    ]
    return answer(422, "malformed_payload", "; ".join(f"{p['at']}: {p['problem']}" for p in problems[:5]), {"problems": problems})


def _printable(text: str) -> str:
    # the names of unknown fields are the client's: they may be long, or no valid UTF-8
    return text[:200].encode("utf-8", "replace").decode()


async def _http(_: Request, error: HTTPException) -> JSONResponse:
    if error.status_code == 400:  # what the framework says of a body that it cannot even decode
        return answer(422, "malformed_payload", "the body cannot be read as JSON in UTF-8")
    names = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
    return answer(
        error.status_code, names.get(error.status_code, "request_refused"), str(error.detail), None, dict(error.headers or {})
    )


async def _bus(_: Request, error: TransientError) -> JSONResponse:
    log.warning("request.postponed", reason=error.reason)
    if error.reply.code == 452:
        return answer(503, "bus_full", "the bus has no room left; nothing was changed, try again later")
    return answer(503, "bus_unavailable", "the bus does not answer; try again later")


async def _database(request: Request, error: Exception) -> JSONResponse:
    if not is_away(error):
        return await _unclassified(request, error)
    reason = type(error.orig if isinstance(error, DBAPIError) else error).__name__
    log.warning("request.database_failed", reason=reason)
    return answer(503, "database_unavailable", "the database does not answer; try again later")


async def _unclassified(_: Request, error: Exception) -> JSONResponse:
    log.error("request.failed", exc_info=error)
    return answer(500, "internal_error", "this is a fault of Postern; its log says more")
