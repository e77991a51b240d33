"""Fetches a sentence-transformers folder from the model hub, safetensors and configuration only."""

from pathlib import Path

from app.hub import snapshot

WANTED = ("*.json", "*.txt", "*.model", "*.safetensors", "README.md")


def download(name: str, revision: str | None = None, max_bytes: int | None = None) -> Path:
    """The folder of the snapshot. Nothing that could run code is fetched: no pickles, no Python files.

    Raises as `app.hub.snapshot` does.
    """
    return snapshot(name, revision, kind="model", wanted=WANTED, max_bytes=max_bytes)
