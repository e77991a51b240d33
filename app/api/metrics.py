"""`GET /metrics`: figures for Prometheus."""

import gzip
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response
from prometheus_client.exposition import choose_encoder, gzip_accepted

from app.api.deps import PartsDep
from app.api.key import METRICS, described
from app.api.scopes import Scoped
from app.api.watching import watching

Hidden = Annotated[str, Header(include_in_schema=False)]

router = APIRouter(tags=["operations"], route_class=Scoped)


@router.get(
    METRICS,
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    dependencies=[Depends(described)],
)
async def read_metrics(parts: PartsDep, accept: Hidden = "", accept_encoding: Hidden = "") -> Response:
    """Requests, encoders, store, trainer, jobs and process, for Prometheus; docs/operations.md explains each figure."""
    written, content_type = choose_encoder(accept)
    headers = {"Vary": "Accept, Accept-Encoding"}
    if gzip_accepted(accept_encoding):  # a tenth; the console reads it every five seconds
        told = await watching(lambda: gzip.compress(written(parts.metrics.registry), compresslevel=4))
        headers["Content-Encoding"] = "gzip"
    else:
        told = await watching(lambda: written(parts.metrics.registry))
    return Response(told, media_type=content_type, headers=headers)
