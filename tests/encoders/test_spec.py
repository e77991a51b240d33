import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.encoders.files import EncoderFiles
from app.encoders.spec import read_spec, with_prompts
from app.errors import EncoderBroken, SourceRefused
from tests.encoders.conftest import reference


def _edit(path: Path, **fields: Any) -> None:
    said = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in (said | fields).items() if value != "drop"}))


def test_the_old_and_the_new_form_of_one_encoder_give_equal_specs(
    minilm: EncoderFiles, resaved_minilm: EncoderFiles
) -> None:
    old, new = read_spec(minilm), read_spec(resaved_minilm)
    assert old == new
    assert (old.dimension, old.max_length, old.pooling, old.normalize) == (384, 256, "mean", True)
    assert (minilm.own / "modules.json").read_text() != (resaved_minilm.own / "modules.json").read_text()


def test_prompts_are_read_by_their_names_and_can_be_overridden(build: Callable[..., EncoderFiles]) -> None:
    spec = read_spec(build(prompts={"query": "query: ", "document": "passage: "}))
    assert (spec.query_prompt, spec.passage_prompt) == ("query: ", "passage: ")
    assert with_prompts(spec, query="").query_prompt == ""
    assert with_prompts(spec, query="q: ").passage_prompt == "passage: "
    assert read_spec(build("bare")).query_prompt == ""


def test_the_maximum_length_never_exceeds_the_positions_of_the_model(build: Callable[..., EncoderFiles]) -> None:
    bert, roberta = build("b", max_length=512), build("r", family="xlm-roberta", max_length=512)
    assert read_spec(bert).max_length == 130  # as many as the tiny models have positions
    assert read_spec(roberta).max_length == 128  # which count from after the padding id
    assert read_spec(build("short", max_length=20)).max_length == 20


def test_lower_casing_is_the_same_as_a_flag_and_as_a_step_of_the_tokenizer(
    build: Callable[..., EncoderFiles], tmp_path: Path
) -> None:
    old = build(family="xlm-roberta")
    assert not read_spec(old).lower_case
    _edit(old.own / "sentence_bert_config.json", do_lower_case=True)
    old = EncoderFiles(old.own)
    reference(old.own).save(str(tmp_path / "new"), create_model_card=False)
    assert read_spec(old) == read_spec(EncoderFiles(tmp_path / "new"))
    assert read_spec(old).lower_case


def test_the_old_keys_of_modernbert_mean_what_the_new_ones_mean(build: Callable[..., EncoderFiles]) -> None:
    files = build(family="modernbert")
    spec = read_spec(files)
    rope = json.loads((files.own / "config.json").read_text())["rope_parameters"]
    old = {kind: rope[f"{name}_attention"]["rope_theta"] for kind, name in (("global", "full"), ("local", "sliding"))}
    _edit(
        files.own / "config.json",
        rope_parameters="drop",
        layer_types="drop",
        global_attn_every_n_layers=2,
        global_rope_theta=old["global"],
        local_rope_theta=old["local"],
    )
    assert read_spec(EncoderFiles(files.own)) == spec


@pytest.mark.parametrize(
    ("file", "fields", "sentence"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "weightedmean"}, "Pooling weightedmean is not supported"),
        ("1_Pooling/config.json", {"include_prompt": False}, "include_prompt=false"),
        ("config.json", {"auto_map": {"AutoModel": "modeling.Mine"}}, "code of its own"),
        ("config.json", {"model_type": "t5"}, "of type t5"),
        ("config.json", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ("sentence_bert_config.json", {"module_output_name": "scores"}, "module_output_name"),
    ],
)
def test_what_cannot_be_run_is_refused_with_its_name(
    copied: Path, file: str, fields: dict[str, Any], sentence: str
) -> None:
    _edit(copied / file, **fields)
    with pytest.raises(SourceRefused, match=sentence):
        read_spec(EncoderFiles(copied))


@pytest.mark.parametrize(
    ("kind", "path", "sentence"),
    [
        ("custom_st.Transformer", "", "code that comes with the model"),
        ("sentence_transformers.models.LSTM", "", "LSTM is not supported"),
        ("sentence_transformers.models.Transformer", "../../etc", "outside the encoder's folder"),
    ],
)
def test_other_modules_are_refused_with_their_name(copied: Path, kind: str, path: str, sentence: str) -> None:
    modules = json.loads((copied / "modules.json").read_text())
    modules[0] |= {"type": kind, "path": path}
    (copied / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(SourceRefused, match=sentence):
        read_spec(EncoderFiles(copied))


def test_a_plain_transformers_folder_is_refused(copied: Path) -> None:
    (copied / "modules.json").unlink()
    with pytest.raises(SourceRefused, match=r"no modules\.json"):
        read_spec(EncoderFiles(copied))


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"model_type": "bert", "hidden_size": "wide"}'])
def test_a_damaged_config_is_an_error_with_a_sentence(copied: Path, text: str) -> None:
    (copied / "config.json").write_text(text)
    with pytest.raises(EncoderBroken, match=r"config\.json"):
        read_spec(EncoderFiles(copied))
