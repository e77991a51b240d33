"""A whole encoder as one tar stream: the sentence-transformers folder, in full even where the artifact is a delta.

Nothing is copied to disk and nothing large is in memory: weights go out of the memory map piece by piece. The
length is known before the first byte.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import PurePosixPath

from app.encoders.artifacts import MANIFEST, ArtifactStore, Manifest
from app.encoders.digest import digest_encoder
from app.encoders.overlay import WEIGHTS, EncoderFiles, card_files, text_files
from app.encoders.spec import read_spec
from app.encoders.tensors import raw_bytes, tensors_header
from app.errors import EncoderBroken, EncoderNotFound, SourceRefused
from app.registry import EncoderRecord, EncoderState
from app.tars import CHUNK, Member, Packed, file_member, packed


def pack_registered(artifacts: ArtifactStore, record: EncoderRecord) -> Packed:
    """The encoder in a folder `name@version`.

    Raises `EncoderNotFound` for a deleted one, `EncoderBroken` for one that is not what was registered any more.
    """
    if record.state is EncoderState.DELETED:
        raise EncoderNotFound(f"{record.key} was deleted; its files are gone.")
    return pack(*_verified(artifacts, record), record.key)


def pack(files: EncoderFiles, manifest: Manifest, top: str) -> Packed:
    """The encoder in a folder `top`, with its manifest, so that it keeps its lineage wherever it goes."""
    members = [replace(member, name=f"{top}/{member.name}") for member in _members(files, manifest)]
    return packed(members, manifest.created_at)


def _verified(artifacts: ArtifactStore, record: EncoderRecord) -> tuple[EncoderFiles, Manifest]:
    try:
        files, manifest = artifacts.files(record.key), artifacts.manifest(record.key)
        digest = digest_encoder(files, read_spec(files))
    except (OSError, SourceRefused) as error:
        raise EncoderBroken(f"{record.key}: its artifact cannot be read ({error}).") from error
    if digest != record.digest:
        raise EncoderBroken(
            f"{record.key}: its files were changed or damaged since it was registered, and are not handed out. "
            "Restore a backup ('adiabat restore FILE'), or register the encoder again."
        )
    return files, manifest


def _members(files: EncoderFiles, manifest: Manifest) -> Iterator[Member]:
    """Every file that `write_full` would write, and the manifest."""
    for name, path in sorted((text_files(files) | card_files(files)).items()):
        yield file_member(name, path)
    for place, module in enumerate(files.modules):
        if module.kind in ("Transformer", "Dense"):
            scope = "/" if module.kind == "Transformer" else f"{place}_{module.kind}/"
            yield _weights(files, scope, str(PurePosixPath(module.path) / WEIGHTS))
    said = json.dumps(asdict(replace(manifest, form="full")), indent=2, ensure_ascii=False).encode() + b"\n"
    yield Member(name=MANIFEST, size=len(said), chunks=lambda: [said])


def _weights(files: EncoderFiles, scope: str, name: str) -> Member:
    names = [each for each in files.all_names() if each.startswith(scope)]
    header = tensors_header((each.removeprefix(scope), files.shape(each)) for each in names)

    def chunks() -> Iterator[bytes]:
        yield header
        for each in names:
            raw = raw_bytes(files.tensor(each))
            for begin in range(0, len(raw), CHUNK):
                yield bytes(raw[begin : begin + CHUNK])

    size = len(header) + sum(4 * math.prod(files.shape(each)) for each in names)
    return Member(name=name, size=size, chunks=chunks)
