"""`GET /encoders/{key}/archive`: the whole folder, whatever form the artifact has, for whoever has no Adiabat."""

import io
import tarfile
from pathlib import Path

import httpx
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from tests.conftest import Service
from tests.service import encoders
from tests.service.archives import upload

PICTURE = b"\x89PNG and a curve"
TEXTS = ["water pump", "wie funktioniert der filter", "pain in the heart at night and in the morning"]


def download(service: Service, key: str) -> httpx.Response:
    return httpx.get(f"{service.url}/encoders/{key}/archive", trust_env=False)


def extracted(content: bytes, folder: Path) -> Path:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")
    (top,) = folder.iterdir()
    return top


@pytest.fixture
def tuned(service: Service, tiny: Path, sources: Path) -> Path:
    """A registered encoder that is kept as a delta, and the folder it came from."""
    folder = encoders.near(tiny, sources / "bees")
    (folder / "README.md").write_text("# bees")
    (folder / "card").mkdir()
    (folder / "card" / "curve.png").write_bytes(PICTURE)
    service.client.register_encoder("bees", path=str(folder))
    assert service.parts.artifacts.manifest("bees@1").form == "delta"
    return folder


def test_a_delta_comes_out_whole_and_plain_sentence_transformers_loads_it(
    service: Service, tuned: Path, tmp_path: Path
) -> None:
    answer = download(service, "bees@1")
    assert answer.headers["content-type"] == "application/x-tar"
    assert answer.headers["content-disposition"] == 'attachment; filename="bees@1.tar"'
    assert int(answer.headers["content-length"]) == len(answer.content)
    folder = extracted(answer.content, tmp_path / "out")
    assert folder.name == "bees@1"
    ours, theirs = SentenceTransformer(str(folder)), SentenceTransformer(str(tuned))
    assert ours.prompts == theirs.prompts
    assert ((folder / "README.md").read_text(), (folder / "card" / "curve.png").read_bytes()) == ("# bees", PICTURE)
    assert np.abs(ours.encode(TEXTS, prompt_name="query") - theirs.encode(TEXTS, prompt_name="query")).max() < 1e-6


@pytest.mark.usefixtures("tuned")
def test_by_name_alone_the_newest_comes_and_the_base_comes_too(service: Service) -> None:
    assert download(service, "bees").content == download(service, "bees@1").content
    assert download(service, "base@1").is_success


@pytest.mark.usefixtures("tuned")
def test_an_archive_sent_back_is_the_same_encoder_with_its_lineage(service: Service) -> None:
    base = service.client.encoder("base@1")
    content = download(service, "base@1").content
    again = upload(service, content, name="copy").json()
    assert (again["digest"], again["admission"], again["lineage"]["base"]) == (base.digest, "verified", base.digest)
    there = upload(service, download(service, "bees@1").content, name="bees")
    assert (there.status_code, there.json()["version"]) == (200, 1)


@pytest.mark.usefixtures("tuned")
def test_what_is_gone_or_damaged_is_not_handed_out(service: Service) -> None:
    weights = service.settings.artifacts_dir / "bees@1" / "delta.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-5] + bytes([content[-5] ^ 0x40]) + content[-4:])
    damaged = download(service, "bees@1")
    assert (damaged.status_code, damaged.json()["type"]) == (409, "urn:adiabat:problem:encoder-broken")
    weights.unlink()
    assert download(service, "bees@1").status_code == 409
    service.client.delete_encoder("bees@1")
    gone = download(service, "bees@1")
    assert (gone.status_code, gone.json()["type"]) == (404, "urn:adiabat:problem:encoder-not-found")
    assert download(service, "nobody").status_code == 404
