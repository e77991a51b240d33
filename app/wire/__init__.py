"""The wire models: what the HTTP interface takes and answers. The routes and the Python client share them.

The modules are there as attributes, each imported when it is first asked for: a client needs few of them, and building
all of their models takes longer than anything else in its import.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.wire import (
        active_encoder,
        audit,
        continuous,
        datasets,
        encoders,
        evaluations,
        experiments,
        health,
        judgments,
        keys,
        passages,
        queries,
        routes,
        search,
        tuning_jobs,
    )

__all__ = [
    "active_encoder",
    "audit",
    "continuous",
    "datasets",
    "encoders",
    "evaluations",
    "experiments",
    "health",
    "judgments",
    "keys",
    "passages",
    "queries",
    "routes",
    "search",
    "tuning_jobs",
]


def __getattr__(name: str) -> ModuleType:
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from error
