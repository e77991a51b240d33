"""`/backups`: everything the service keeps, of one moment, as one file."""

from collections.abc import Iterator
from contextlib import ExitStack

import anyio
from fastapi import APIRouter, Depends
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from app.api.deps import PartsDep, no_body
from app.api.scopes import Scoped
from app.backup.archive import pack
from app.backup.taking import taken
from app.registry import Action
from app.tars import Packed

TAR = "application/x-tar"

router = APIRouter(prefix="/backups", tags=["backups"], route_class=Scoped)


@router.post(
    "",
    response_class=StreamingResponse,
    responses={200: {"content": {TAR: {"schema": {"type": "string", "contentMediaType": TAR}}}}},
    dependencies=[Depends(no_body)],
)
def take_backup(parts: PartsDep) -> StreamingResponse:
    """Registry, encoders, datasets and passages as they are at one moment, as tar, for `adiabat restore`.

    Writes of passages wait while they are copied on disk, and nothing waits while the copy is sent; searches go on all
    the time. It holds texts, judged queries and the hashes of keys, and no key: keep it as secret as the service.
    Refused (409) where the registry is in PostgreSQL or the passages are on a Qdrant server, which have backups of
    their own.
    """
    with ExitStack() as stack:
        stack.enter_context(parts.permits.backups.one())
        folder = stack.enter_context(taken(parts.settings, parts.artifacts, parts.store))
        packed = pack(folder)
        parts.registry.audit.write(Action.BACKED_UP, "everything", size_bytes=packed.size)
        return _Sent(packed, stack.pop_all())


class _Sent(StreamingResponse):
    """What it is sent from is gone before the last of it is sent, or when the client left."""

    def __init__(self, packed: Packed, held: ExitStack) -> None:
        headers = {"Content-Length": str(packed.size), "Content-Disposition": 'attachment; filename="backup.tar"'}
        super().__init__(_closing(packed.chunks, held), media_type=TAR, headers=headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(self._held.close)


def _closing(chunks: Iterator[bytes], held: ExitStack) -> Iterator[bytes]:
    """The same chunks. Whoever has them all may ask for the next backup: it finds the permit free."""
    before = next(chunks)
    for chunk in chunks:
        yield before
        before = chunk
    held.close()
    yield before
