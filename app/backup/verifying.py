"""A backup, or a data folder that nobody serves from, read in full: per part what is right or wrong."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import orjson
import qdrant_edge as edge

from app.backup.archive import ARTIFACTS, PASSAGES, REGISTRY, OnBytes, opened
from app.backup.registry import require_whole
from app.beir import digest as dataset_digest
from app.doctor.finding import Finding, Level, fail, ok
from app.encoders.artifacts import BASE_KEY, ArtifactStore
from app.encoders.digest import digest_encoder
from app.encoders.engine import load_engine
from app.encoders.spec import read_spec
from app.errors import AdiabatError, BadInput, Conflict, NotFound, Unavailable
from app.lock import data_dir_lock
from app.passages import payload
from app.passages.disk import copy_tree
from app.passages.edge_children import Children
from app.passages.edge_folder import recorded_index_space
from app.passages.edge_shard import load_shard
from app.passages.index_space import IndexSpace
from app.passages.store import StoredPassage
from app.registry import EncoderState, Registry
from app.registry.snapshot import snapshot
from app.settings import Settings

PAGE = 1_000
SAMPLES = 16  # passages that are embedded again
MOST_OFF = 1e-4  # of a vector's length, between one machine's engine and another's
RESTORE = "Restore a backup that 'adiabat verify' finds whole."


def verify_archive(path: Path, settings: Settings, on_bytes: OnBytes) -> Iterator[Finding]:
    """Unpacks it below the folder for temporary files. Raises `BadInput` for what is no backup, `Conflict`."""
    with TemporaryDirectory(prefix="adiabat-verify-") as scratch:
        with opened(path) as contents:
            damaged = list(contents.damaged(Path(scratch), on_bytes))
            about, count = contents.about, len(contents.entries)
        if damaged:
            for name in damaged:
                yield fail("checksums", f"{name} is not as its checksum says.", "Take another backup.")
            return  # what is built on it would be found wrong once more
        yield ok("checksums", f"All {count} members are as their checksums say.")
        found = _registry(Path(scratch) / REGISTRY)
        yield found
        if found.level is not Level.FAIL:
            yield from _verify(Path(scratch), settings, expected=about.passages)


def verify_folder(settings: Settings) -> Iterator[Finding]:
    """Changes nothing there: registry and passages are copied first. Raises `DataDirLocked`, `NotFound`."""
    folder = settings.data_dir
    if settings.registry_url is not None or settings.qdrant_url is not None:
        raise Conflict(
            "The registry or the passages are on a server (ADIABAT_REGISTRY_URL, ADIABAT_QDRANT_URL): what can be "
            "verified is a data folder that has both in it, or a file that 'adiabat backup' wrote."
        )
    if not (folder / REGISTRY).exists():
        raise NotFound(f"There is no registry in {folder}: name a data folder, or a file that 'adiabat backup' wrote.")
    with data_dir_lock(folder), TemporaryDirectory(prefix="adiabat-verify-") as scratch:
        copy = Path(scratch)
        found = _registry(folder / REGISTRY)
        yield found
        if found.level is Level.FAIL:
            return
        with snapshot(folder / REGISTRY, copy / REGISTRY):
            pass
        (copy / ARTIFACTS).symlink_to((folder / ARTIFACTS).resolve())
        if (folder / PASSAGES).is_dir():
            copy_tree(folder / PASSAGES, copy / PASSAGES)
        yield from _verify(copy, settings, expected=None)


def _registry(path: Path) -> Finding:
    try:
        require_whole(path)
    except AdiabatError as error:
        return fail("registry", error.detail, RESTORE)
    return ok("registry", "SQLite finds it whole; every row names what is there.")


def _verify(root: Path, settings: Settings, *, expected: int | None) -> Iterator[Finding]:
    registry, artifacts = Registry(root / REGISTRY), ArtifactStore(root / ARTIFACTS)
    try:
        for check in (_encoders(registry, artifacts), _datasets(registry, artifacts)):
            yield from check
        base = registry.encoders.find(BASE_KEY).digest
    finally:
        registry.close()
    yield from _passages(root, artifacts, settings, base, expected)


def _encoders(registry: Registry, artifacts: ArtifactStore) -> Iterator[Finding]:
    whole = 0
    for record in registry.encoders.all():
        if record.state is EncoderState.DELETED:
            continue
        try:
            files = artifacts.files(record.key)
            if digest_encoder(files, read_spec(files)) != record.digest:
                raise BadInput(f"{record.key} does not have the digest that it was registered with.")
            artifacts.probe_vectors(record.key)
            whole += 1
        except (AdiabatError, OSError) as error:
            yield fail("encoders", str(error), RESTORE)
    yield ok("encoders", f"{whole} have the weights, settings and tokenizer that they were registered with.")


def _datasets(registry: Registry, artifacts: ArtifactStore) -> Iterator[Finding]:
    digests = registry.datasets.digests_needed()
    for digest in sorted(digests):
        folder = artifacts.dataset(digest)
        if not folder.is_dir() or dataset_digest(folder) != digest:
            yield fail("datasets", f"{folder.name} is missing, or not what was uploaded.", "Upload it again.")
            digests = digests - {digest}
    yield ok("datasets", f"{len(digests)} have the content that was uploaded.")


def _passages(
    root: Path, artifacts: ArtifactStore, settings: Settings, base: str, expected: int | None
) -> list[Finding]:
    try:
        space = recorded_index_space(root / PASSAGES)
        if space is None:
            raise BadInput(f"{PASSAGES}/CURRENT is missing.")
        if space.passage_encoder_digest != base:
            raise BadInput(f"The vectors are of another passage encoder than {BASE_KEY}.")
        with closing(_shard(root / PASSAGES)) as shard:
            count, samples = _read_all(shard, space)
        if expected is not None and count != expected:
            raise BadInput(f"There are {count} passages, and {expected} were backed up.")
        found = [ok("passages", f"{count} with texts, metadata and vectors as they were written.")]
        if samples:
            found.append(ok("vectors", _embedded_again(samples, space, artifacts, settings, root / "weights")))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # where files are damaged Edge raises what it likes, and panics are no Exception
        said = error.detail if isinstance(error, AdiabatError) else f"The passages cannot be read ({error})."
        return [fail("passages", said, RESTORE)]
    return found


def _shard(folder: Path) -> "edge.EdgeShard":
    """Of a copy: opening one repairs it from its log. A child looks first: on some damage Edge ends the process."""
    shard = folder / orjson.loads((folder / "CURRENT").read_bytes())["shard"]
    try:
        Children().run("check", str(shard))
    except Unavailable as error:
        raise BadInput(f"The passages cannot be read. {error.detail}") from error
    return load_shard(shard)


def _read_all(shard: "edge.EdgeShard", space: IndexSpace) -> tuple[int, list[StoredPassage]]:
    """How many there are, and some of them from everywhere. Raises `BadInput` naming the first that is damaged."""
    samples: list[StoredPassage] = []
    count, cursor = 0, None
    every = max(1, int(shard.info().points_count) // SAMPLES)
    while True:
        request = edge.ScrollRequest(offset=cursor, limit=PAGE, with_payload=True, with_vector=[payload.DENSE])
        records, cursor = shard.scroll(request)
        for record in records:
            stored = _checked(record, space)
            if count % every == 0 and len(samples) < SAMPLES:
                samples.append(stored)
            count += 1
        if cursor is None:
            return count, samples


def _checked(record: Any, space: IndexSpace) -> StoredPassage:
    try:
        stored = payload.to_stored(record.payload, record.vector)
        written = record.payload[payload.OURS]["payload_hash"]
    except (KeyError, TypeError) as error:
        raise BadInput(f"The point {record.id} is damaged: it is no passage ({error}).") from error
    id = stored.passage.id
    if payload.payload_hash(stored.passage) != written or str(payload.point_id(id)) != str(record.id):
        raise BadInput(f"The passage {id!r} is damaged: its text or metadata are not as they were written.")
    vector = payload.checked_vector(np.asarray([] if stored.vector is None else stored.vector), space.dimension, id)
    if space.normalized and abs(float(np.linalg.norm(vector)) - 1) > MOST_OFF:
        raise BadInput(f"The passage {id!r} is damaged: its vector's length is {np.linalg.norm(vector):.6f}, not 1.")
    return stored


def _embedded_again(
    samples: list[StoredPassage], space: IndexSpace, artifacts: ArtifactStore, settings: Settings, weights: Path
) -> str:
    """Raises `BadInput` where the passage encoder makes other vectors of the texts than those that are stored."""
    files = artifacts.files(BASE_KEY)
    engine = load_engine(
        files,
        read_spec(files),
        kind=settings.engine,
        threads=settings.threads,
        graphs_dir=artifacts.graphs,
        weights_dir=weights,
    )
    try:
        texts = [space.render(one.passage.title, one.passage.text) for one in samples]
        again = engine.embed(texts, space.passage_prompt)
    finally:
        engine.close()
    stored = np.stack([one.vector for one in samples if one.vector is not None])
    off = np.linalg.norm(again - stored, axis=1) / np.linalg.norm(stored, axis=1)
    if (worst := int(off.argmax())) is not None and off[worst] > MOST_OFF:
        id = samples[worst].passage.id
        raise BadInput(
            f"The passage {id!r} has another vector than {BASE_KEY} makes of its text (off by {off[worst]:.1e})."
        )
    return f"{len(samples)} texts were embedded again: the same vectors, to {off.max():.0e}."
