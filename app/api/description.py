"""What `/openapi.json` says of the whole: tags, the problems every call may answer, names of operations."""

from threading import Lock
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api.scopes import SCOPES
from app.wire.common import Problem
from app.wire.datasets import DatasetSource
from app.wire.encoders import EncoderCreate, EncoderUpload

ABOUT = """Dense retrieval whose query encoder can be swapped while it serves.

Passages are embedded once and never again. Query encoders are registered (`POST /encoders`), proven to belong to the
collection's index space, and switched at runtime (`PUT /active-encoder`); `/search` never stops. Every answer names the
encoder that made it. Refusals are `application/problem+json` with a `type` that never changes: see docs/errors.md.
"""

TAGS = [
    {"name": "search", "description": "Find passages. Once there is a key, every call here needs one."},
    {"name": "passages", "description": "The knowledge base: what is searched."},
    {"name": "encoders", "description": "Immutable versions of query encoders: register, read, delete."},
    {"name": "switching", "description": "The active encoder, the switch, the way back, the history."},
    {"name": "routes", "description": "Encoders for a part of the searches: by name, filter, language or key."},
    {"name": "tuning", "description": "Jobs that make better query encoders in the background."},
    {"name": "evaluations", "description": "Encoders measured on datasets, and compared with the base."},
    {"name": "datasets", "description": "Judged queries: what encoders are tuned on and measured with."},
    {"name": "judgments", "description": "What users say of answers: the built-in dataset `judgments`."},
    {"name": "feedback", "description": "The query log, and what was clicked: off until `ADIABAT_QUERY_LOG` is set."},
    {"name": "experiments", "description": "Canaries compared with the active encoder by what was clicked."},
    {"name": "continuous tuning", "description": "A standing order to tune on what users judge and click."},
    {"name": "openai", "description": "Query vectors in the shape of OpenAI's API."},
    {"name": "keys", "description": "Who may call: keys with scopes and limits. Each call's scope is told with it."},
    {"name": "audit", "description": "Who changed what, from where, and what came of it."},
    {"name": "backups", "description": "Everything of one moment in one file, for `adiabat restore`."},
    {"name": "health", "description": "For orchestrators and people: alive, ready, which version. Open without a key."},
    {"name": "operations", "description": "Figures for Prometheus; `ADIABAT_OPEN_METRICS` opens them without a key."},
]

_CAUSES = {
    400: "a body that is not the UTF-8 it says it is",
    401: "no key, or a wrong one",
    403: "a key without the scope, or a page of another origin",
    404: "nothing of that name",
    409: "the request and the state of things disagree",
    413: "a body over the limit",
    422: "a field that cannot be used, by name",
    429: "too many wait; Retry-After says when to come again",
    503: "a part of the service does not answer; Retry-After says when to come again",
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": cause[0].upper() + cause[1:], "model": Problem} for status, cause in _CAUSES.items()
}
STALE: dict[int | str, dict[str, Any]] = {
    412: {"description": "If-Match names another generation than made it what it is", "model": Problem}
}


# Bodies that routes read themselves, because they come in more than one form.
BODIES: tuple[type[BaseModel], ...] = (DatasetSource, EncoderCreate, EncoderUpload)
REFERENCE = "#/components/schemas/{model}"


def one_of_bodies(kinds: dict[str, type[BaseModel]]) -> dict[str, Any]:
    """`openapi_extra` of a route whose body is one of these models, by content type; they must be in `BODIES`."""
    content = {kind: {"schema": {"$ref": REFERENCE.format(model=model.__name__)}} for kind, model in kinds.items()}
    return {"requestBody": {"required": True, "content": content}}


def archive_example(files: dict[str, str]) -> dict[str, Any]:
    """An Example Object for an archive of these files. OpenAPI has no value for bytes: the files are told in words
    and, for programs, in `x-files`."""
    shown = "\n".join(f"`{name}`\n\n```\n{content}```\n" for name, content in files.items())
    return {"description": f"An archive of these files:\n\n{shown}", "x-files": files}


def describe(app: FastAPI) -> None:
    """Let `/openapi.json` say what the framework cannot be told: bodies that routes read themselves, and that refusals
    are `application/problem+json`."""
    made, making = app.openapi, Lock()

    def openapi() -> dict[str, Any]:
        with making:
            return complete()

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            bodies = models_json_schema([(body, "validation") for body in BODIES], ref_template=REFERENCE)[1]["$defs"]
            made()["components"]["schemas"].update(bodies)
            scopes = {_described(call): scope for call, scope in SCOPES.items()}
            for method, path, call in (
                (method, path, call) for path, calls in made()["paths"].items() for method, call in calls.items()
            ):
                if scope := scopes.get(f"{method.upper()} {path}"):
                    call["x-scope"] = scope
                for status, answer in call["responses"].items():
                    if status >= "400" and "content" in answer:
                        answer["content"] = {"application/problem+json": answer["content"].pop("application/json")}
        return made()

    app.openapi = openapi  # type: ignore[method-assign]


def _described(call: str) -> str:
    """As the description writes addresses: without the kind of a parameter."""
    return call.replace(":path}", "}")


def operation_id(route: APIRoute) -> str:
    """The route function's name: what a generated client calls its method."""
    return route.name
