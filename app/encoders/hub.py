"""Fetches a sentence-transformers folder from the model hub, safetensors and configuration only."""

import errno
from pathlib import Path

from app.errors import SourceRefused, Unavailable

WANTED = ["*.json", "*.txt", "*.model", "*.safetensors", "README.md"]


def download(name: str, revision: str | None = None) -> Path:
    """The folder of the snapshot. Nothing that could run code is fetched: no pickles, no Python files.

    Raises `SourceRefused` where the hub has no such thing for us, `Unavailable` where it does not answer.
    """
    from huggingface_hub import snapshot_download  # takes a second to import and few services need it
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

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
