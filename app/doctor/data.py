"""The data folder: who holds it, its registry, its disk. Nothing here writes, locks or waits for a service."""

import os
import shutil
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from app.bucket import Bucket
from app.doctor.finding import Finding, fail, ok, warn
from app.errors import Unavailable
from app.lock import LOCK_FILE
from app.registry.clock import ahead_s
from app.registry.clocks import MEND, differs, is_far
from app.registry.database import known_revisions, revision_of
from app.registry.engines import bare, engine_at, read_url
from app.registry.snapshot import open_for_reading
from app.settings import Settings

LOCKS = Path("/proc/locks")
MIN_FREE_BYTES = 256 * 2**20
ANY_KEY = "SELECT 1 FROM api_keys LIMIT 1"


def folder(settings: Settings) -> Finding:
    path = settings.data_dir
    if not path.exists():
        parent = _existing(path)
        if os.access(parent, os.W_OK):
            return ok("data", f"{path} is not there yet; the first start makes it.")
        return fail(
            "data", f"{path} is not there and {parent} cannot be written to.", "Choose another ADIABAT_DATA_DIR."
        )
    if not path.is_dir() or not os.access(path, os.W_OK | os.X_OK):
        return fail(
            "data",
            f"{path} is no folder that user {os.getuid()} may write to.",
            "Change its owner, or choose another ADIABAT_DATA_DIR.",
        )
    return ok("data", f"{path.resolve()} can be written to.")


def lock(settings: Settings) -> Finding:
    """Who serves from this folder, without asking for the lock: that could stop a service that is just starting."""
    path = settings.data_dir / LOCK_FILE
    holder = path.read_text().strip() if path.exists() else ""
    if not holder:
        return ok("lock", "No service has run on this data folder.")
    if _is_locked(path):
        return ok("lock", f"{holder} serves from this data folder; a second service on it would be refused.")
    if not holder.endswith(f" on {socket.gethostname()}"):
        return ok("lock", f"{holder} was the last to serve from it; whether it still does cannot be seen from here.")
    return ok("lock", f"Nobody serves from this data folder; the last was {holder}.")


def disk(settings: Settings) -> Finding:
    free = shutil.disk_usage(_existing(settings.data_dir)).free
    used = sum(path.stat().st_size for path in settings.data_dir.rglob("*") if path.is_file() and not path.is_symlink())
    said = f"{_size(free)} free, the data takes {_size(used)}"
    mend = "Free some space, or move ADIABAT_DATA_DIR to a larger disk."
    if free < MIN_FREE_BYTES:
        return fail("disk", f"{said}: writes are about to fail.", mend)
    if free < used:
        return warn(
            "disk", f"{said}: rebuilding the index and preparing a tuning each need a copy of the vectors.", mend
        )
    return ok("disk", f"{said}.")


def artifacts(settings: Settings) -> Iterator[Finding]:
    if settings.artifacts_url is None:
        return
    try:
        Bucket(settings.artifacts_url).check()
    except Unavailable as error:
        yield fail("artifacts", error.detail, "Mend what the sentence names; what is on this disk is served meanwhile.")
        return
    yield ok("artifacts", f"{settings.artifacts_url} can be listed, read, written and deleted from.")


def registry(settings: Settings) -> Iterator[Finding]:
    if settings.registry_url is not None:
        yield from _elsewhere(settings.registry_url)
        return
    path = settings.registry_path
    if not path.exists():
        yield ok("registry", "There is none yet; the first start makes it.")
        return
    restore = f"Stop the service and restore {path} from a backup."
    try:
        with closing(open_for_reading(path)) as connection:
            [checked] = connection.execute("PRAGMA quick_check(1)").fetchone()
            [revision] = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except (sqlite3.Error, TypeError) as error:
        yield fail("registry", f"{path} cannot be read ({error}).", restore)
        return
    if checked == "ok":
        yield ok("registry", f"SQLite {sqlite3.sqlite_version} finds {path} whole.")
    else:
        yield fail("registry", f"{path} is damaged: {checked}.", restore)
    yield _schema(revision)


def _elsewhere(address: str) -> Iterator[Finding]:
    url = read_url(address)
    engine, named = engine_at(url), bare(url)
    try:
        with engine.connect() as connection:
            revision = revision_of(connection)
            ahead = ahead_s(connection)
    except DBAPIError as error:
        yield fail("registry", f"{named} does not answer ({error.orig}).", "Start it, or correct ADIABAT_REGISTRY_URL.")
        return
    finally:
        engine.dispose()
    yield _clock(ahead)
    if revision is None:
        yield ok("registry", f"{named} is empty; the first start makes the registry.")
        return
    yield ok("registry", f"{named} answers.")
    yield _schema(revision)


def _clock(ahead: float | None) -> Finding:
    if ahead is None:
        return ok("clock", "The registry database takes too long to answer for a comparison of clocks.")
    if is_far(ahead):
        return warn("clock", differs("this machine", ahead), MEND)
    return ok("clock", f"This machine's clock agrees with the registry database's, to {abs(ahead):.1f} s.")


def _schema(revision: str) -> Finding:
    known = known_revisions()
    head = known[0]
    if revision == head:
        return ok("schema", f"The registry has this release's schema, revision {revision}.")
    if revision in known:
        return warn(
            "schema",
            f"The registry has schema revision {revision}, this release's is {head}.",
            "The next start of the service migrates it; make a backup before: older releases cannot read it then.",
        )
    return fail(
        "schema",
        f"A newer release wrote the registry (schema revision {revision}).",
        "Start that release, or a newer one.",
    )


def has_keys(settings: Settings) -> bool:
    """Whether there is a key in the registry; False where there is no registry that has a place for them."""
    if settings.registry_url is not None:
        return _has_keys_elsewhere(settings.registry_url)
    if not settings.registry_path.exists():
        return False
    try:
        with closing(open_for_reading(settings.registry_path)) as registry:
            return registry.execute(ANY_KEY).fetchone() is not None
    except sqlite3.Error:
        return False  # what is wrong with it is a finding of its own


def _has_keys_elsewhere(address: str) -> bool:
    engine = engine_at(read_url(address))
    try:
        with engine.connect() as connection:
            return connection.exec_driver_sql(ANY_KEY).first() is not None
    except DBAPIError:
        return False  # likewise
    finally:
        engine.dispose()


def _is_locked(path: Path) -> bool:
    """By the kernel's list of locks, where it can be read."""
    inode = f":{path.stat().st_ino}"
    listed = LOCKS.read_text().splitlines() if LOCKS.exists() else []
    return any("FLOCK" in line and any(part.endswith(inode) for part in line.split()) for line in listed)


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next(each for each in (path, *path.parents) if each.exists())


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
