"""Fetches files from the hub, by name and pattern: whoever asks names data alone, so nothing that could run comes."""

import errno
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from app.errors import SourceRefused, TooLarge, Unavailable

Kind = Literal["model", "dataset"]
MAX_FILES = 1_000


def check_enabled(enabled: bool, name: str) -> None:
    """Raises `SourceRefused`."""
    if not enabled:
        raise SourceRefused(
            f"This service fetches nothing from the hub, so not {name!r} either: set ADIABAT_HUB=1 and start it "
            "again, or send an archive."
        )


def snapshot(
    name: str, revision: str | None = None, *, kind: Kind, wanted: Sequence[str], max_bytes: int | None = None
) -> Path:
    """The folder, named by its commit, with the files of the repository that match one of `wanted`.

    Raises `SourceRefused` where the hub has no such thing for us, `TooLarge` where it is over `max_bytes`,
    `Unavailable` where the hub does not answer.
    """
    from huggingface_hub import snapshot_download  # takes a second to import and few services need it
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # they would tear the service's log
    sizes = _said_sizes(name, revision, kind, wanted) if max_bytes is not None else []
    if max_bytes is not None and sum(sizes) > max_bytes:
        raise TooLarge(
            f"{name!r} has {sum(sizes)} bytes on the hub; the limit is {max_bytes} bytes (ADIABAT_MAX_ARCHIVE_BYTES)."
        )
    if len(sizes) > MAX_FILES:
        raise TooLarge(f"{name!r} has {len(sizes)} files on the hub that would be fetched; the limit is {MAX_FILES}.")
    try:
        return Path(snapshot_download(name, revision=revision, repo_type=kind, allow_patterns=list(wanted)))
    except (HfHubHTTPError, HFValidationError) as error:
        raise SourceRefused(
            f"{name!r} could not be fetched from the {kind} hub ({str(error).splitlines()[0]}): check the name and "
            f"the revision, and HF_TOKEN for a private {kind}."
        ) from error
    except Exception as error:  # the library lets through what its HTTP library of the day raises
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise Unavailable(
            f"The {kind} hub does not answer ({type(error).__name__}), and {name!r} was not fetched before: check the "
            "network, or send an archive."
        ) from error


def _said_sizes(name: str, revision: str | None, kind: Kind, wanted: Sequence[str]) -> list[int]:
    """What the hub says that the wanted files have, each; empty where it says nothing."""
    from huggingface_hub import HfApi

    try:
        found = HfApi().repo_info(name, revision=revision or "main", repo_type=kind, files_metadata=True)
    except Exception:  # the download asks the same and tells what is wrong, or needs no hub: it was fetched before
        return []
    files = getattr(found, "siblings", None) or []
    return [file.size or 0 for file in files if any(fnmatch(file.rfilename, pattern) for pattern in wanted)]
