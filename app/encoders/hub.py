"""Fetches a sentence-transformers folder from the model hub, safetensors and configuration only."""

from pathlib import Path

from app.errors import SourceRefused

WANTED = ["*.json", "*.txt", "*.model", "*.safetensors", "README.md"]


def download(name: str, revision: str | None = None) -> Path:
    """The folder of the snapshot. Nothing that could run code is fetched: no pickles, no Python files."""
    from huggingface_hub import snapshot_download  # takes a second to import and few services need it
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=WANTED))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise SourceRefused(
            f"{name!r} could not be fetched from the model hub ({str(error).splitlines()[0]}): check the name, the "
            "network, and HF_TOKEN for a private model."
        ) from error
