import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from app.encoders.digest import digest_encoder
from app.encoders.files import EncoderFiles, write_delta, write_full
from app.encoders.spec import read_spec
from app.encoders.tokenize import QueryTokenizer
from tests.encoders.conftest import TEXTS, reference
from tests.tiny import FAMILIES, Family


def _digest(files: EncoderFiles) -> str:
    return digest_encoder(files, read_spec(files))


def test_full_delta_exported_and_resaved_forms_have_one_digest(
    minilm: EncoderFiles, resaved_minilm: EncoderFiles, tmp_path: Path
) -> None:
    write_delta(minilm, resaved_minilm, tmp_path / "delta")
    delta = EncoderFiles(tmp_path / "delta", minilm)
    write_full(delta, tmp_path / "full")
    forms = [minilm, resaved_minilm, delta, EncoderFiles(tmp_path / "full")]
    digests = {_digest(files) for files in forms}
    assert len(digests) == 1
    assert digests.pop().startswith("sha256:")


def test_loading_and_saving_changes_no_digest_in_any_family(build: Callable[..., EncoderFiles], tmp_path: Path) -> None:
    for family in FAMILIES:
        files = build(family, family=family, dense=8, prompts={"query": "q: ", "document": ""})
        reference(files.own).save(str(tmp_path / f"{family}-again"), create_model_card=False)
        assert _digest(EncoderFiles(tmp_path / f"{family}-again")) == _digest(files), family


def test_one_bit_of_one_weight_changes_the_digest_and_the_pooler_does_not(tiny: EncoderFiles, copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    weights["pooler.dense.bias"] += 1
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert _digest(EncoderFiles(copied)) == _digest(tiny)
    flat = weights["encoder.layer.0.output.dense.weight"].view(-1)
    flat[5] = torch.nextafter(flat[5], torch.tensor(9.0))
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    assert _digest(EncoderFiles(copied)) != _digest(tiny)


def test_what_shapes_a_query_is_in_the_digest_and_the_passage_prompt_is_not(tiny: EncoderFiles) -> None:
    spec = read_spec(tiny)
    variants = [
        replace(spec, query_prompt="query: "),
        replace(spec, max_length=63),
        replace(spec, pooling="cls"),
        replace(spec, lower_case=True),
    ]
    digests = [digest_encoder(tiny, each) for each in (spec, *variants)]
    assert len(set(digests)) == len(digests)
    assert digest_encoder(tiny, replace(spec, passage_prompt="passage: ")) == digests[0]


def test_another_vocabulary_is_another_digest_and_another_padding_is_not(tiny: EncoderFiles, copied: Path) -> None:
    path = copied / "tokenizer.json"
    said = json.loads(path.read_text())
    said["padding"] = {
        "strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    path.write_text(json.dumps(said))
    assert _digest(EncoderFiles(copied)) == _digest(tiny)
    vocabulary = said["model"]["vocab"]
    vocabulary["heart"], vocabulary["water"] = vocabulary["water"], vocabulary["heart"]
    path.write_text(json.dumps(said))
    assert _digest(EncoderFiles(copied)) != _digest(tiny)


def test_a_tokenizer_that_is_known_is_not_taken_apart_again(
    tiny: EncoderFiles, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That stops every other thread, which a search would feel while another encoder is loaded."""
    digest = _digest(tiny)
    monkeypatch.setattr("app.encoders.digest.make_tokenizer", lambda *_, **__: pytest.fail("taken apart"))
    assert _digest(EncoderFiles(copied)) == digest


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("bert", "BertTokenizerFast"),
        ("distilbert", "DistilBertTokenizer"),
        ("xlm-roberta", "XLMRobertaTokenizer"),
        ("mpnet", "MPNetTokenizer"),
    ],
)
def test_a_tokenizer_that_transformers_builds_anew_keeps_its_tokens_and_the_digest(
    build: Callable[..., EncoderFiles], tmp_path: Path, family: Family, name: str
) -> None:
    """By its class name transformers makes the tokenizer from the vocabulary and writes another tokenizer.json."""
    files = build(family=family)
    said = json.loads((files.own / "tokenizer.json").read_text())
    if family == "xlm-roberta":
        metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
        said["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]}
        said["normalizer"] = None
    else:
        said["normalizer"]["strip_accents"] = None
    (files.own / "tokenizer.json").write_text(json.dumps(said))
    config = json.loads((files.own / "tokenizer_config.json").read_text())
    (files.own / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": name}))
    model = reference(files.own)
    ours = QueryTokenizer(files, read_spec(files)).encode(TEXTS)["input_ids"]
    np.testing.assert_array_equal(ours, model.preprocess(list(TEXTS))["input_ids"].numpy())
    model.save(str(tmp_path / "again"), create_model_card=False)
    assert (tmp_path / "again" / "tokenizer.json").read_text() != (files.own / "tokenizer.json").read_text()
    assert _digest(EncoderFiles(tmp_path / "again")) == _digest(files)
