"""Which scope each call asks for: the whole table, and the route that holds requests to it.

A route that is not in the table cannot be made, so none is open by having been forgotten.
"""

from typing import Any

from fastapi.routing import APIRoute
from starlette.types import Receive, Scope, Send

from app.errors import MissingScope
from app.keys import Holder
from app.registry.keys import Scope as KeyScope

SEARCH, WRITE, ADMIN = KeyScope.SEARCH, KeyScope.WRITE, KeyScope.ADMIN

# What only reads asks for `search`, but for what users have asked (judgments, the query log), for whole encoders and
# for routes: a program that searches needs none of them.
SCOPES: dict[str, KeyScope] = {
    "GET /search": SEARCH,
    "POST /search": SEARCH,
    "POST /search/batch": SEARCH,
    "POST /v1/embeddings": SEARCH,
    "GET /v1/models": SEARCH,
    "GET /v1/models/{model}": SEARCH,
    "GET /passages": SEARCH,
    "GET /passages/count": SEARCH,
    "GET /passages/{passage_id:path}": SEARCH,
    "POST /passages": WRITE,
    "POST /passages/delete": WRITE,
    "DELETE /passages/{passage_id:path}": WRITE,
    "GET /encoders": SEARCH,
    "GET /encoders/{key}": SEARCH,
    "GET /encoders/{key}/archive": WRITE,
    "POST /encoders": ADMIN,
    "DELETE /encoders/{key}": ADMIN,
    "GET /active-encoder": SEARCH,
    "GET /active-encoder/history": SEARCH,
    "PUT /active-encoder": ADMIN,
    "POST /active-encoder/rollback": ADMIN,
    "GET /routes": WRITE,  # it names keys
    "GET /routes/{name}": WRITE,
    "PUT /routes/{name}": ADMIN,
    "DELETE /routes/{name}": ADMIN,
    "POST /routes/{name}/rollback": ADMIN,
    "GET /tuning-jobs": SEARCH,
    "GET /tuning-jobs/{job_id}": SEARCH,
    "GET /tuning-jobs/{job_id}/events": SEARCH,
    "POST /tuning-jobs": WRITE,  # ADMIN where it is to be switched to
    "POST /tuning-jobs/{job_id}/cancel": WRITE,
    "POST /tuning-jobs/{job_id}/resume": WRITE,
    "GET /evaluations": SEARCH,
    "GET /evaluations/{evaluation_id}": SEARCH,
    "POST /evaluations": WRITE,
    "POST /evaluations/{evaluation_id}/cancel": WRITE,
    "POST /evaluations/{evaluation_id}/resume": WRITE,
    "GET /datasets": SEARCH,
    "GET /datasets/{name}": SEARCH,
    "PUT /datasets/{name}": WRITE,
    "DELETE /datasets/{name}": WRITE,
    "GET /judgments": WRITE,
    "POST /judgments": WRITE,
    "DELETE /judgments/{judgment_id}": WRITE,
    "POST /feedback": SEARCH,  # of whoever asked: it can say no more than which of its own hits were clicked
    "GET /queries": WRITE,
    "DELETE /queries/{search_id}": WRITE,
    "GET /experiments": SEARCH,
    "GET /experiments/{generation}": SEARCH,
    "GET /continuous-tuning": SEARCH,
    "GET /continuous-tuning/history": SEARCH,
    "PUT /continuous-tuning": ADMIN,  # it may switch
    "DELETE /continuous-tuning": ADMIN,
    "GET /keys": ADMIN,
    "POST /keys": ADMIN,
    "DELETE /keys/{name}": ADMIN,
    "GET /audit": ADMIN,
    "POST /backups": ADMIN,
    "GET /metrics": SEARCH,
    "GET /console/cards/{key}": SEARCH,
    "GET /console/cards/{key}/{name:path}": SEARCH,
}


class Scoped(APIRoute):
    """Refuses whose key has not the scope, before a byte of the body is read."""

    def __init__(self, path: str, *arguments: Any, **options: Any) -> None:
        super().__init__(path, *arguments, **options)
        (method,) = self.methods or {"GET"}
        self.needed = SCOPES[f"{method} {path}"]

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in (self.methods or ()):
            check_scope(holder_of(scope), self.needed)
        await super().handle(scope, receive, send)


def holder_of(scope: Scope) -> Holder | None:
    """Whom `app.api.key` let in; None where a call is open and nobody showed a key."""
    found: Holder | None = scope["state"].get("holder")
    return found


def check_scope(holder: Holder | None, needed: KeyScope, what: str = "This call") -> None:
    """Raises `MissingScope`."""
    if holder is not None and not holder.scope.covers(needed):
        raise MissingScope(
            f"{what} asks for a key with the scope '{needed}', and the key {holder.name!r} has '{holder.scope}'; an "
            "admin makes keys ('adiabat keys create').",
            needed=needed,
        )
