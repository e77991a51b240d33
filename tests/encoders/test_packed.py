"""The tar stream of an encoder: what sentence-transformers loads from it, its length, its pieces."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from app.encoders.artifacts import MANIFEST, Manifest
from app.encoders.digest import digest_encoder
from app.encoders.overlay import EncoderFiles
from app.encoders.packed import CHUNK, pack
from app.encoders.spec import read_spec
from tests.tiny import FAMILIES, Family, build_tiny

TEXTS = ["water pump", "wie funktioniert der filter", "pain in the heart at night and in the morning"]


def manifest(files: EncoderFiles) -> Manifest:
    return Manifest(
        digest=digest_encoder(files, read_spec(files)),
        base_digest="sha256:base",
        parent_digest=None,
        form="delta",
        dimension=1,
        max_length=1,
        query_prompt="",
        passage_prompt="",
        created_at=1_000.5,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_and_a_chain_with_dense_come_out_as_they_went_in(tmp_path: Path, family: Family) -> None:
    folder = build_tiny(tmp_path / "in", family=family, dense=16, pooling="cls", prompts={"query": "query: "})
    files = EncoderFiles(folder)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pack(files, manifest(files), "x@1").chunks))) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    out = EncoderFiles(tmp_path / "out" / "x@1")
    assert digest_encoder(out, read_spec(out)) == digest_encoder(files, read_spec(files))
    ours, theirs = SentenceTransformer(str(out.own)), SentenceTransformer(str(folder))
    assert np.array_equal(ours.encode(TEXTS, prompt_name="query"), theirs.encode(TEXTS, prompt_name="query"))


def test_the_manifest_goes_along_and_says_full(tmp_path: Path) -> None:
    files = EncoderFiles(build_tiny(tmp_path / "in"))
    with tarfile.open(fileobj=io.BytesIO(b"".join(pack(files, manifest(files), "x@1").chunks))) as archive:
        member = archive.extractfile(f"x@1/{MANIFEST}")
        assert member is not None
        said = json.load(member)
    assert (said["form"], said["base_digest"]) == ("full", "sha256:base")


def test_it_goes_out_in_small_pieces_of_the_announced_length(tmp_path: Path) -> None:
    files = EncoderFiles(build_tiny(tmp_path / "in", hidden=512, layers=1))
    packed = pack(files, manifest(files), "x@1")
    sizes = [len(chunk) for chunk in packed.chunks]
    assert sum(sizes) == packed.size > 2 * CHUNK
    assert max(sizes) == CHUNK
