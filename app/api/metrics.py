"""`GET /metrics`: figures for Prometheus."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response
from prometheus_client.exposition import choose_encoder

from app.api.deps import PartsDep
from app.api.key import METRICS, described
from app.api.scopes import Scoped
from app.api.watching import watching

router = APIRouter(tags=["operations"], route_class=Scoped)


@router.get(
    METRICS,
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    dependencies=[Depends(described)],
)
async def read_metrics(parts: PartsDep, accept: Annotated[str, Header(include_in_schema=False)] = "") -> Response:
    """Requests, encoders, store, trainer, jobs and process, for Prometheus; docs/operations.md explains each figure."""
    written, content_type = choose_encoder(accept)
    return Response(await watching(lambda: written(parts.metrics.registry)), media_type=content_type)
