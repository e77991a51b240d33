"""From a folder to a bucket: what the registry needs, the base last, so that a copy that broke is no store yet."""

from app.encoders.artifacts import BASE_KEY, ENCODERS, JOBS
from app.encoders.shared_artifacts import needed, open_shared
from app.errors import EncoderBroken
from app.registry import Registry
from app.settings import Settings


def copy_artifacts(url: str, settings: Settings, registry: Registry) -> list[str]:
    """The names that are in the bucket at `url` now.

    Raises `Conflict` for another registry's bucket, `EncoderBroken` where an encoder is not in the folder, and
    `Unavailable`.
    """
    artifacts = open_shared(url, settings, registry)
    artifacts.require_unclaimed()
    copied = []
    for name in sorted(needed(registry), key=lambda name: name.endswith(f"/{BASE_KEY}")):
        kind, _, rest = name.partition("/")
        folder = artifacts.root / rest
        if kind != ENCODERS:
            folder = settings.jobs_dir / rest if kind == JOBS else artifacts.datasets / rest
        elif not folder.exists():
            raise EncoderBroken(f"{rest} is registered and not in {artifacts.root}; restore its folder, or delete it.")
        if folder.exists():
            artifacts.share(name, folder)
            copied.append(name)
    return copied
