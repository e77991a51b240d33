import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from app.encoders.files import EncoderFiles, check_finite, write_delta, write_full
from app.encoders.overlay import MAX_CARD_BYTES, text_files
from app.encoders.tensors import write_tensors
from app.errors import EncoderBroken, SourceRefused
from tests.encoders.conftest import TEXTS, reference

DENSE = "encoder.layer.1.output.dense.weight"


def _rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> EncoderFiles:
    weights = folder / "model.safetensors"
    save_file(change(load_file(weights)), weights, metadata={"format": "pt"})
    return EncoderFiles(folder)


def test_names_are_canonical_whatever_the_prefix_and_the_heads(tiny: EncoderFiles, copied: Path) -> None:
    def as_pretrained(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        spelled = {f"bert.{name}": value for name, value in weights.items()}
        extra = {"cls.predictions.bias": torch.zeros(3), "bert.embeddings.position_ids": torch.arange(4)}
        return spelled | extra

    files = _rewrite(copied, as_pretrained)
    assert files.tensor_names() == tiny.tensor_names()
    assert f"/{DENSE}" in files.tensor_names()
    assert not any("pooler" in name or "position_ids" in name for name in files.tensor_names())
    np.testing.assert_array_equal(files.tensor(f"/{DENSE}"), tiny.tensor(f"/{DENSE}"))


def test_shards_are_read_as_one(tiny: EncoderFiles, copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    names = sorted(weights)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: weights[name] for name in held}, copied / shard)
    (copied / "model.safetensors").unlink()
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    (copied / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    files = EncoderFiles(copied)
    assert files.tensor_hashes == tiny.tensor_hashes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_read_as_fp32(copied: Path, dtype: torch.dtype) -> None:
    expected = load_file(copied / "model.safetensors")[DENSE].to(dtype).to(torch.float32)
    files = _rewrite(copied, lambda weights: {name: value.to(dtype) for name, value in weights.items()})
    np.testing.assert_array_equal(files.tensor(f"/{DENSE}"), expected.numpy())
    assert files.tensor(f"/{DENSE}").dtype == np.float32


def test_integer_weights_are_refused(copied: Path) -> None:
    files = _rewrite(copied, lambda weights: weights | {DENSE: weights[DENSE].to(torch.int8)})
    with pytest.raises(EncoderBroken, match="type I8"):
        files.tensor(f"/{DENSE}")


def test_pickles_are_refused_unread(copied: Path) -> None:
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(SourceRefused, match="a pickle"):
        EncoderFiles(copied).tensor_names()


@pytest.mark.parametrize("keep", [0, 5, 2_000, -8])
def test_cut_weights_are_an_error_with_a_sentence(copied: Path, keep: int) -> None:
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(EncoderBroken, match="damaged or incomplete"):
        EncoderFiles(copied).tensor_names()


def test_missing_weights_are_an_error_with_a_sentence(copied: Path) -> None:
    (copied / "model.safetensors").unlink()
    with pytest.raises(EncoderBroken, match=r"model\.safetensors is missing"):
        EncoderFiles(copied).tensor_names()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_found_and_named(tiny: EncoderFiles, copied: Path, bad: float) -> None:
    def poison(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        weights[DENSE][3, 4] = bad
        return weights

    check_finite(tiny)
    with pytest.raises(EncoderBroken, match=DENSE):
        check_finite(_rewrite(copied, poison))


def test_a_delta_holds_what_moved_and_says_how_far(tiny: EncoderFiles, copied: Path, tmp_path: Path) -> None:
    def move(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        weights[DENSE][0, 0] += 0.5
        weights[DENSE][1, 1] -= 0.25
        return weights

    report = write_delta(tiny, _rewrite(copied, move), tmp_path / "delta")
    assert (report.tensors, report.weights_moved) == (1, 2)
    assert report.max_abs_change == pytest.approx(0.5, abs=1e-6)
    assert report.mean_abs_change == pytest.approx(0.375, abs=1e-6)
    assert report.weights_total == sum(tiny.tensor(name).size for name in tiny.tensor_names())
    assert [path.name for path in (tmp_path / "delta").iterdir()] == ["delta.safetensors"]
    assert report.bytes == (tmp_path / "delta" / "delta.safetensors").stat().st_size
    delta = EncoderFiles(tmp_path / "delta", tiny)
    assert [name for name in delta.tensor_names() if not delta.is_shared(name)] == [f"/{DENSE}"]
    assert delta.tensor(f"/{DENSE}")[0, 0] == tiny.tensor(f"/{DENSE}")[0, 0] + np.float32(0.5)


def test_a_delta_of_a_resaved_encoder_copies_no_texts(
    minilm: EncoderFiles, resaved_minilm: EncoderFiles, tmp_path: Path
) -> None:
    report = write_delta(minilm, resaved_minilm, tmp_path / "delta")
    assert (report.tensors, report.weights_moved) == (0, 0)
    assert [path.name for path in (tmp_path / "delta").iterdir()] == ["delta.safetensors"]


def test_a_delta_copies_the_texts_that_differ(tiny: EncoderFiles, copied: Path, tmp_path: Path) -> None:
    said = json.loads((copied / "config_sentence_transformers.json").read_text())
    said["prompts"] = {"query": "find: ", "document": ""}
    (copied / "config_sentence_transformers.json").write_text(json.dumps(said))
    write_delta(tiny, EncoderFiles(copied), tmp_path / "delta")
    held = sorted(path.name for path in (tmp_path / "delta").iterdir())
    assert held == ["config_sentence_transformers.json", "delta.safetensors"]
    full = tmp_path / "full"
    write_full(EncoderFiles(tmp_path / "delta", tiny), full)
    assert reference(full).prompts["query"] == "find: "


def test_a_delta_over_another_base_is_refused(
    tiny: EncoderFiles, build: Callable[..., EncoderFiles], tmp_path: Path
) -> None:
    wide = build(hidden=16)
    with pytest.raises(EncoderBroken, match="not the same parameters"):
        write_delta(tiny, wide, tmp_path / "delta")
    (tmp_path / "delta").mkdir(exist_ok=True)
    write_tensors(tmp_path / "delta" / "delta.safetensors", [(f"/{DENSE}", np.zeros((2, 2), np.float32))])
    with pytest.raises(EncoderBroken, match="does not fit its base"):
        EncoderFiles(tmp_path / "delta", tiny).tensor_names()


def test_a_full_copy_is_a_sentence_transformers_folder(build: Callable[..., EncoderFiles], tmp_path: Path) -> None:
    files = build(family="mpnet", dense=8, prompts={"query": "q: ", "document": "p: "})
    (files.own / "adiabat.json").write_text("{}")
    write_full(files, tmp_path / "full")
    expected, copy = reference(files.own), reference(tmp_path / "full")
    np.testing.assert_array_equal(copy.encode_query(list(TEXTS)), expected.encode_query(list(TEXTS)))
    assert "adiabat.json" not in text_files(EncoderFiles(tmp_path / "full"))


def test_the_model_card_and_its_pictures_go_where_the_encoder_goes(
    tiny: EncoderFiles, copied: Path, tmp_path: Path
) -> None:
    write_card(copied, picture=b"\x89PNG curve")
    write_delta(tiny, EncoderFiles(copied), tmp_path / "delta")
    write_full(EncoderFiles(tmp_path / "delta", tiny), tmp_path / "full")
    for folder in (tmp_path / "delta", tmp_path / "full"):
        assert (folder / "README.md").read_text() == "# bees"
        assert (folder / "card" / "curve.png").read_bytes() == b"\x89PNG curve"


def test_a_delta_without_a_card_does_not_show_its_bases(copied: Path, tiny: EncoderFiles, tmp_path: Path) -> None:
    write_card(copied, picture=b"of the base")
    base = EncoderFiles(copied)
    write_delta(base, tiny, tmp_path / "delta")
    write_full(EncoderFiles(tmp_path / "delta", base), tmp_path / "full")
    assert not (tmp_path / "full" / "README.md").exists()


def test_a_card_too_large_to_carry_along_is_left_out(copied: Path, tmp_path: Path) -> None:
    write_card(copied, picture=bytes(MAX_CARD_BYTES))
    write_full(EncoderFiles(copied), tmp_path / "full")
    assert not (tmp_path / "full" / "card").exists()


def write_card(folder: Path, *, picture: bytes) -> None:
    (folder / "README.md").write_text("# bees")
    (folder / "card").mkdir()
    (folder / "card" / "curve.png").write_bytes(picture)


def test_a_card_that_leads_elsewhere_is_not_followed(copied: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "curve.png").write_bytes(b"secret")
    (copied / "README.md").symlink_to(secret / "curve.png")
    (copied / "card").symlink_to(secret)
    write_full(EncoderFiles(copied), tmp_path / "full")
    assert not (tmp_path / "full" / "README.md").exists()
    assert not (tmp_path / "full" / "card").exists()
