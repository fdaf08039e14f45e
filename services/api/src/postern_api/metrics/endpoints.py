"""/metrics"""

from __future__ import annotations

import asyncio

from fastapi import Response

from postern_api.access import Reader, guarded_router
from postern_api.context import InContext
from postern_api.errors import declared
from postern_api.metrics.exposition import MEDIA_TYPE, exposition

router = guarded_router("/metrics", "status")


@router.get(
    "",
    responses=declared() | {200: {"content": {"text/plain": {}}, "description": "Prometheus' text format."}},
    response_class=Response,
)
async def get_metrics(context: InContext, _: Reader) -> Response:
    """Traffic, queues, streams and certificates, for Prometheus: what each replica reported last, and what the broker holds now."""
    streams, backlogs = await asyncio.gather(context.status.sizes(), context.status.backlogs())
    return Response(exposition(context.status.reports(), streams, backlogs), media_type=MEDIA_TYPE)
