"""Whether a file is a whole registry that this release can read."""

import sqlite3
from contextlib import closing
from pathlib import Path

from app.errors import BadInput, Conflict
from app.registry.database import known_revisions
from app.registry.snapshot import open_for_reading


def require_whole(path: Path) -> None:
    """Raises `BadInput` for damage and for rows that name what is not there, `Conflict` for a newer schema."""
    try:
        with closing(open_for_reading(path)) as registry:
            [found] = registry.execute("PRAGMA integrity_check(1)").fetchone()
            orphan = registry.execute("PRAGMA foreign_key_check").fetchone()
            [schema] = registry.execute("SELECT version_num FROM alembic_version").fetchone()
    except (sqlite3.Error, TypeError) as error:
        raise BadInput(f"{path.name} is damaged: it cannot be read ({error}).") from error
    if found != "ok":
        raise BadInput(f"{path.name} is damaged: {found}.")
    if orphan is not None:
        raise BadInput(
            f"{path.name} is damaged: row {orphan[1]} of {orphan[0]} names a row of {orphan[2]} that is gone."
        )
    if schema not in (known := known_revisions()):
        raise Conflict(
            f"{path.name} has schema revision {schema}, this release knows up to {known[0]}: use the one that wrote it."
        )
