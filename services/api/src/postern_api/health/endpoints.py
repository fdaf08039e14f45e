"""/livez and /readyz"""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import Field

from postern_api.access import operation_id
from postern_api.context import InContext
from postern_api.fields import Body, examples

router = APIRouter(tags=["health"], generate_unique_id_function=operation_id)


class Liveness(Body):
    """The process answers."""

    model_config = examples({"status": "alive"})

    status: str = "alive"


class Readiness(Body):
    """Whether the api can do its work; mail does not depend on it."""

    model_config = examples({"ready": True, "reasons": [], "policy": "revision 42 is published", "engines": []})

    ready: bool
    reasons: list[str]
    policy: str
    engines: list[str] = Field(default=[], description="Engines that a screener gets no answers from; no fault of the api.")


@router.get("/livez")
async def livez() -> Liveness:
    """The process is alive; says nothing about broker and database."""
    return Liveness()


@router.get("/readyz", responses={503: {"model": Readiness, "description": "Not ready; `reasons` says why."}})
async def readyz(context: InContext, response: Response) -> Readiness:
    """Database and broker answer. `policy` says so when there is no policy for the gates yet, and `engines` which of them fail; neither is
    a fault of the api."""
    reasons = await context.health.check()
    if reasons:
        response.status_code = 503
    publisher = context.publisher
    policy = publisher.problem or f"revision {publisher.live} is published"
    return Readiness(ready=not reasons, reasons=list(reasons), policy=policy, engines=list(context.status.engine_troubles()))
