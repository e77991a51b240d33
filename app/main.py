"""The ASGI application: routers, handlers, limits. Nothing is read, opened or started here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware

from app import __version__
from app.api import (
    active_encoder,
    audit,
    backups,
    continuous,
    datasets,
    encoders,
    evaluations,
    experiments,
    health,
    judgments,
    keys,
    metrics,
    openai,
    passages,
    problems,
    query_log,
    routes,
    search,
    tuning_jobs,
)
from app.api.bodies import WholeBody
from app.api.caught_up import CaughtUp
from app.api.cors import CORS
from app.api.deps import Parts, known_parameters
from app.api.description import ABOUT, REFUSALS, TAGS, describe, operation_id
from app.api.key import KeyCheck, described
from app.api.leaving import Leaving
from app.api.limits import BodyLimit, is_ndjson
from app.api.observed import Observed
from app.api.turns import InTurn
from app.console import cards, files, login, pages, samples
from app.settings import Settings


class State(TypedDict):
    parts: Parts


def create_app(settings: Settings, parts: Parts) -> FastAPI:
    """The ASGI application over assembled parts; whoever assembled them takes them apart again."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        yield State(parts=parts)

    app = FastAPIOffline(  # /docs without scripts from elsewhere: many services have no way out
        redoc_url=None,
        title="Adiabat",
        version=__version__,
        description=ABOUT,
        openapi_tags=TAGS,
        generate_unique_id_function=operation_id,
        responses=REFUSALS,
        lifespan=lifespan,
        # The framework's own spans would hold the query string, which is what people search for.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    problems.install(app)
    app.add_middleware(InTurn, max_waiting=settings.max_waiting, max_wait_s=settings.max_wait_s)
    app.add_middleware(WholeBody, max_body_bytes=settings.max_body_bytes)
    app.add_middleware(Leaving)
    app.add_middleware(BodyLimit, limit_for=lambda path, kind: _limit(path, kind, settings))
    app.add_middleware(CaughtUp, replicas=parts.replicas)
    app.add_middleware(
        KeyCheck,
        ring=parts.ring,
        refusals=parts.refusals,
        open_metrics=settings.open_metrics,
        origins=settings.cors_origins,
    )
    if settings.cors_origins:  # outside the check: a browser asks first, and without a key
        app.add_middleware(CORSMiddleware, allow_origins=settings.cors_origins, **CORS)
    app.add_middleware(Observed, metrics=parts.metrics, traces=parts.traces)  # the last one added is the outermost
    for open_resource in (health, metrics):
        app.include_router(open_resource.router, dependencies=[Depends(known_parameters)])
    for resource in (
        search,
        passages,
        encoders,
        active_encoder,
        routes,
        tuning_jobs,
        evaluations,
        datasets,
        judgments,
        query_log,
        experiments,
        continuous,
        openai,
        keys,
        audit,
        backups,
    ):
        app.include_router(resource.router, dependencies=[Depends(described), Depends(known_parameters)])
    for page in (pages, login, files, samples, cards):
        app.include_router(page.router)
    describe(app)
    return app


def _limit(path: str, content_type: str, settings: Settings) -> tuple[int, str] | None:
    if path == "/passages" and is_ndjson(content_type):
        return None  # stored while it is read; each line has its limit
    dataset = path.startswith("/datasets/") and not content_type.startswith("application/json")
    if dataset or (path == "/encoders" and content_type.startswith("multipart/form-data")):
        return settings.max_archive_bytes, "ADIABAT_MAX_ARCHIVE_BYTES"
    return settings.max_body_bytes, "ADIABAT_MAX_BODY_BYTES"
