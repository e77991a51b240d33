"""Where encoders may be read from: an allow-list of folders, resolved before anything is opened."""

from collections.abc import Sequence
from pathlib import Path

from app.errors import SourceRefused


def check_source(path: str, allowed: Sequence[Path]) -> Path:
    """The resolved folder, if it lies in one of `allowed`. Raises `SourceRefused`.

    Links are followed first: what counts is where a path leads, not how it is written.
    """
    if "\0" in path or len(path) > 4096:
        raise SourceRefused("The path is not one that a file system has.")
    given = Path(path)
    if not given.is_absolute():
        raise SourceRefused(f"{path!r} is relative; send the absolute path of a folder on the server.")
    resolved = given.resolve()
    if not any(resolved.is_relative_to(folder.resolve()) for folder in allowed):
        named = ", ".join(str(folder) for folder in allowed) or "none"
        raise SourceRefused(
            f"{path!r} lies outside the folders that encoders may be read from ({named}); "
            "put it there, or name its folder in ADIABAT_SOURCE_DIRS."
        )
    if not resolved.is_dir():
        raise SourceRefused(f"{path!r} is not a folder.")
    for inside in resolved.rglob("*"):
        if inside.is_symlink() and not any(inside.resolve().is_relative_to(folder.resolve()) for folder in allowed):
            raise SourceRefused(f"{inside} is a link out of the allowed folders; put the file itself there.")
    return resolved
