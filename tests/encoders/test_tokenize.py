from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.encoders.files import EncoderFiles
from app.encoders.spec import read_spec
from app.encoders.tokenize import QueryTokenizer
from app.errors import BadInput, EncoderBroken, SourceRefused
from tests.encoders.conftest import TEXTS, reference
from tests.tiny import FAMILIES, Family


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_and_mask_are_those_of_transformers(family: Family, build: Callable[..., EncoderFiles]) -> None:
    files = build(family=family)
    spec = read_spec(files)
    ours = QueryTokenizer(files, spec).encode(TEXTS, "query: ")
    theirs = reference(files.own).preprocess(list(TEXTS), prompt="query: ")
    assert ours["input_ids"].shape[1] == spec.max_length  # the longest text is cut to it
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name].numpy())
    assert ("token_type_ids" in ours) == (family == "bert")


def test_the_truncation_and_padding_of_the_file_are_put_aside(minilm: EncoderFiles) -> None:
    tokenizer = QueryTokenizer(minilm, read_spec(minilm))
    assert tokenizer.encode(["hi"])["input_ids"].shape == (1, 3)
    assert tokenizer.lengths(["word " * 1000, "", "hi"]) == [256, 2, 3]
    ids = reference(minilm.own).preprocess(["word " * 1000])["input_ids"].numpy()
    np.testing.assert_array_equal(tokenizer.encode(["word " * 1000])["input_ids"], ids)


def test_padding_is_on_the_side_that_the_encoder_wants(tiny: EncoderFiles) -> None:
    left = QueryTokenizer(tiny, replace(read_spec(tiny), padding_side="left")).encode(["water", "water oil fire"])
    assert left["attention_mask"].tolist() == [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert left["input_ids"][0, :2].tolist() == [0, 0]


def test_lower_casing_is_applied_where_the_encoder_wants_it(build: Callable[..., EncoderFiles]) -> None:
    files = build(family="xlm-roberta")
    spec = read_spec(files)
    plain = QueryTokenizer(files, spec)
    lowered = QueryTokenizer(files, replace(spec, lower_case=True))
    assert plain.lengths(["WATER"]) != plain.lengths(["water"])
    assert lowered.split(["WATER"])[0].ids == plain.split(["water"])[0].ids


def test_half_a_surrogate_pair_is_bad_input(tiny: EncoderFiles) -> None:
    with pytest.raises(BadInput, match="surrogate"):
        QueryTokenizer(tiny, read_spec(tiny)).encode(["\ud83d"])


def test_a_folder_without_the_fast_tokenizer_is_refused(copied: Path) -> None:
    (copied / "tokenizer.json").unlink()
    with pytest.raises(SourceRefused, match=r"no tokenizer\.json"):
        QueryTokenizer(EncoderFiles(copied), read_spec(EncoderFiles(copied)))


def test_a_damaged_tokenizer_is_an_error_with_a_sentence(copied: Path) -> None:
    spec = read_spec(EncoderFiles(copied))
    (copied / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(EncoderBroken, match=r"tokenizer\.json cannot be read"):
        QueryTokenizer(EncoderFiles(copied), spec)
