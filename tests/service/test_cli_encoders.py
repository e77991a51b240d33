"""`adiabat encoders register` and `export`: folders and archives on their way to the service and back."""

import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from app.cli.packing import pack_folder, unpack_into
from app.errors import BadInput, SourceRefused
from tests.conftest import Service
from tests.service import encoders
from tests.service.test_cli import adiabat


def test_a_folder_from_here_is_uploaded_exported_and_loads_as_what_it_was(
    service: Service, tiny: Path, tmp_path: Path
) -> None:
    folder = encoders.near(tiny, tmp_path / "mine")  # in no folder that the server may read
    made = adiabat(service, "encoders", "register", "bees", str(folder), "--label", "domain=bees", "--description", "x")
    assert "bees@1: probed" in made
    kept = service.client.encoder("bees@1")
    assert (kept.labels, kept.description) == ({"domain": "bees"}, "x")
    out = tmp_path / "made" / "out"
    assert "SentenceTransformer(" in adiabat(service, "encoders", "export", "bees", str(out))
    ours, theirs = SentenceTransformer(str(out)), SentenceTransformer(str(folder))
    assert np.allclose(
        ours.encode("water", prompt_name="query"), theirs.encode("water", prompt_name="query"), atol=1e-6
    )
    assert [path.name for path in out.parent.iterdir()] == ["out"]  # nothing half-done beside it
    said = adiabat(service, "encoders", "export", "bees@1", str(out), code=2)
    assert "not empty" in " ".join(said.replace("│", " ").split())  # a box breaks lines where the path is long


def test_an_archive_is_uploaded_as_it_is(service: Service, tiny: Path, tmp_path: Path) -> None:
    archive = tmp_path / "bees.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in encoders.near(tiny, tmp_path / "mine").rglob("*"):
            packed.write(path, path.relative_to(tmp_path))
    made = json.loads(adiabat(service, "encoders", "register", "bees", str(archive), "--json"))
    assert (made["version"], made["admission"]) == (1, "probed")


def test_what_cannot_be_exported_leaves_no_folder(service: Service, tmp_path: Path) -> None:
    assert "nobody" in adiabat(service, "encoders", "export", "nobody", str(tmp_path / "out"), code=1)
    assert list(tmp_path.glob("out*")) == []
    assert list(tmp_path.glob(".export*")) == []


@pytest.mark.parametrize(
    ("arguments", "word"),
    [((), "give one of"), (("there", "--job", "x"), "give one of"), (("nowhere",), "does not exist here")],
)
def test_register_wants_one_source_that_is_there(service: Service, arguments: tuple[str, ...], word: str) -> None:
    assert word in adiabat(service, "encoders", "register", "bees", *arguments, code=2)


def test_packing_takes_what_an_encoder_needs_and_nothing_else(tiny: Path, tmp_path: Path) -> None:
    folder = encoders.near(tiny, tmp_path / "mine")
    (folder / "optimizer.pt").write_bytes(b"x" * 1_000)
    (folder / ".git").mkdir()
    (folder / ".git" / "config.json").write_text("{}")
    with tarfile.open(pack_folder(folder, tmp_path / "packed.tar")) as packed:
        names = set(packed.getnames())
    assert {"modules.json", "model.safetensors", "1_Pooling/config.json", "tokenizer.json"} <= names
    assert not [name for name in names if "git" in name or name.endswith(".pt")]
    (folder / "model.safetensors").unlink()
    with pytest.raises(BadInput, match="safetensors"):
        pack_folder(folder, tmp_path / "second.tar")
    with pytest.raises(BadInput, match=r"modules\.json"):
        pack_folder(tmp_path, tmp_path / "third.tar")


def test_an_export_that_is_no_archive_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    archive = tmp_path / "encoder.tar"
    archive.write_bytes(b"cut off")
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(SourceRefused):
        unpack_into(archive, target)
    assert list(target.iterdir()) == []
