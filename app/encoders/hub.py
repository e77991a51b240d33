"""Fetches a sentence-transformers folder from the model hub, safetensors and configuration only."""

import errno
from fnmatch import fnmatch
from pathlib import Path

from app.errors import SourceRefused, TooLarge, Unavailable

WANTED = ["*.json", "*.txt", "*.model", "*.safetensors", "README.md"]


def download(name: str, revision: str | None = None, max_bytes: int | None = None) -> Path:
    """The folder of the snapshot. Nothing that could run code is fetched: no pickles, no Python files.

    Raises `SourceRefused` where the hub has no such thing for us, `TooLarge` where it is over `max_bytes`,
    `Unavailable` where the hub does not answer.
    """
    from huggingface_hub import snapshot_download  # takes a second to import and few services need it
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if max_bytes is not None and (size := _said_bytes(name, revision)) > max_bytes:
        raise TooLarge(
            f"{name!r} has {size} bytes on the model hub; the limit is {max_bytes} bytes (ADIABAT_MAX_ARCHIVE_BYTES)."
        )
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=WANTED))
    except (HfHubHTTPError, HFValidationError) as error:
        raise SourceRefused(
            f"{name!r} could not be fetched from the model hub ({str(error).splitlines()[0]}): check the name and "
            "the revision, and HF_TOKEN for a private model."
        ) from error
    except Exception as error:  # the library lets through what its HTTP library of the day raises
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise Unavailable(
            f"The model hub does not answer ({type(error).__name__}), and {name!r} was not fetched before: check the "
            "network, or send an archive."
        ) from error


def _said_bytes(name: str, revision: str | None) -> int:
    """What the wanted files have together, as the hub says; 0 where it says nothing."""
    from huggingface_hub import HfApi

    try:
        files = HfApi().model_info(name, revision=revision or "main", files_metadata=True).siblings or []
    except Exception:  # the download asks the same and tells what is wrong, or needs no hub: it was fetched before
        return 0
    return sum(file.size or 0 for file in files if any(fnmatch(file.rfilename, pattern) for pattern in WANTED))
