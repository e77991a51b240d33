"""A backup back into an empty data folder: whole, or as if nothing had been tried.

Everything is written and checked in a folder inside it, which is there until all is in place. While it is there no
service starts, and the next restore begins anew.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.backup.archive import ARTIFACTS, PASSAGES, REGISTRY, About, OnBytes, opened
from app.backup.registry import require_whole
from app.errors import BadInput, Conflict
from app.lock import LOCK_FILE, data_dir_lock
from app.passages.disk import sync_file, sync_tree

UNFINISHED = ".restoring"
NOT_OURS = frozenset({LOCK_FILE, UNFINISHED, "lost+found"})
PARTS = (ARTIFACTS, PASSAGES, REGISTRY)


def restore(archive: Path, data_dir: Path, on_bytes: OnBytes = lambda _done, _total: None) -> About:
    """Make `data_dir`, which has to be empty or not there, what the backup says.

    Raises `Conflict` for another folder or a newer release's backup, `BadInput` naming the member for a damaged one,
    `DataDirLocked`.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    with data_dir_lock(data_dir), _room(data_dir) as room:
        with opened(archive) as contents:
            _require_space(contents.size, data_dir)
            for name in contents.damaged(room, on_bytes):
                raise BadInput(f"{archive} is damaged: {name} is not as its checksum says. Nothing was restored.")
            about = contents.about
        require_whole(room / REGISTRY)
        sync_tree(room)
        for part in PARTS:
            (room / part).rename(data_dir / part)
        sync_file(data_dir)
    return about


def require_finished(data_dir: Path) -> None:
    """Raises `Conflict` where a restore was broken off."""
    if (data_dir / UNFINISHED).exists():
        raise Conflict(
            f"A restore into {data_dir} did not end, and not all of the backup may be there: repeat 'adiabat restore'."
        )


@contextmanager
def _room(data_dir: Path) -> Iterator[Path]:
    """Where the backup is written. Nothing is left of it, nor of what came out of it, where the block fails."""
    room = data_dir / UNFINISHED
    if room.exists():  # nobody could start a service meanwhile: all parts are of that restore
        _remove_parts(data_dir)
    if others := sorted(path.name for path in data_dir.iterdir() if path.name not in NOT_OURS):
        raise Conflict(
            f"{data_dir} is not empty (it has {', '.join(others[:3])}): a backup is restored into a folder that is "
            "empty or not there yet. Name another one, or move away what is in it."
        )
    room.mkdir()
    sync_file(data_dir)
    try:
        yield room
    except BaseException:
        _remove_parts(data_dir)
        raise
    shutil.rmtree(room)
    sync_file(data_dir)


def _remove_parts(data_dir: Path) -> None:
    """The mark last: without it what is left would look like a data folder."""
    for part in PARTS:
        path = data_dir / part
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    shutil.rmtree(data_dir / UNFINISHED)


def _require_space(needed: int, data_dir: Path) -> None:
    if (free := shutil.disk_usage(data_dir).free) < needed:
        raise BadInput(f"The backup takes {needed / 1e6:.0f} MB, and {data_dir} has {free / 1e6:.0f} MB left.")
