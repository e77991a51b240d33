"""The ASGI application: routers, handlers, limits. Nothing is read, opened or started here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypedDict

from fastapi import Depends, FastAPI

from app import __version__
from app.api import active_encoder, datasets, encoders, health, passages, problems, search, tuning_jobs
from app.api.deps import Parts, require_key
from app.api.limits import BodyLimit
from app.settings import Settings
from app.wire.common import Problem


class State(TypedDict):
    parts: Parts


def create_app(settings: Settings, parts: Parts) -> FastAPI:
    """The ASGI application over assembled parts; whoever assembled them takes them apart again."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        yield State(parts=parts)

    refusals: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (401, 404, 409, 422, 503)}
    app = FastAPI(title="Adiabat", version=__version__, lifespan=lifespan, responses=refusals)
    problems.install(app)
    app.add_middleware(BodyLimit, limit_for=lambda path: _limit(path, settings))
    app.include_router(health.router)
    for resource in (search, passages, encoders, active_encoder, tuning_jobs, datasets):
        app.include_router(resource.router, dependencies=[Depends(require_key)])
    return app


def _limit(path: str, settings: Settings) -> int:
    return settings.max_archive_bytes if path.startswith("/datasets/") else settings.max_body_bytes
