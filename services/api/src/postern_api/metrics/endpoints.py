"""/metrics"""

from __future__ import annotations

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
    """Gauges of the replicas' last reports, for Prometheus: when the gates' certificates expire, and how the screeners' engines are."""
    return Response(exposition(context.status.reports()), media_type=MEDIA_TYPE)
