"""`/audit`: who changed what, from where, and what came of it."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query

from app.api.deps import PartsDep
from app.api.queries import sequence_cursor
from app.api.scopes import Scoped
from app.registry import Action
from app.wire.audit import AuditEntry, AuditPage

router = APIRouter(prefix="/audit", tags=["audit"], route_class=Scoped)


@router.get("", response_model=AuditPage, response_model_exclude_none=True)
def read_audit(
    parts: PartsDep,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    action: Annotated[Action | None, Query(description="Only what was done so, or `refused`.")] = None,
    key: Annotated[str | None, Query(max_length=64, description="Only with the key of this name.")] = None,
) -> AuditPage:
    """Newest first, a page at a time; `next_cursor` leads to the next page and is absent on the last.

    Each change is written with its entry or not at all. Refused attempts to change something are `refused`; where they
    come in floods most are left out, and `detail.left_out` of the next one counts them.
    """
    found = parts.registry.audit.page(limit + 1, before=sequence_cursor(cursor), action=action, key=key)
    page = found[:limit]
    return AuditPage(
        entries=[AuditEntry(**asdict(each)) for each in page],
        next_cursor=str(page[-1].sequence) if len(found) > limit else None,
    )
