from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from app.errors import InvalidField
from tests.tiny import FAMILIES, Family, build_tiny
from trainer.parameters import choose_parameters, rate_scales


@pytest.mark.parametrize("family", FAMILIES)
def test_each_layer_has_its_share_of_the_rate_in_every_family(family: Family, tmp_path: Path) -> None:
    model = SentenceTransformer(str(build_tiny(tmp_path, family=family, layers=3, dense=8)), device="cpu")
    names = choose_parameters(model, ())
    scales = rate_scales(names, 0.5)
    by_layer = {f".{layer}.": scale for layer, scale in enumerate((0.25, 0.5, 1.0))}
    for mark, scale in by_layer.items():
        of_layer = [name for name in names if mark in name.partition(".")[2]]
        assert len(of_layer) >= 4
        assert {scales[name] for name in of_layer} == {scale}
    head = [name for name in names if not any(mark in name.partition(".")[2] for mark in by_layer)]
    assert "2.linear.weight" in head
    assert {scales[name] for name in head} == {1.0}


def test_without_decay_the_rate_is_one(tiny: SentenceTransformer) -> None:
    assert set(rate_scales(choose_parameters(tiny, ()), 1.0).values()) == {1.0}


def test_a_pattern_that_matches_nothing_is_refused_with_names_like_it(tiny: SentenceTransformer) -> None:
    with pytest.raises(InvalidField) as refused:
        choose_parameters(tiny, ("*.output.danse.weight",))
    assert "'*.output.danse.weight' matches no parameter; the names most like it are '" in refused.value.detail
    assert refused.value.detail.count(".output.dense.weight'") >= 2


def test_a_pattern_keeps_what_it_matches_still_and_nothing_else(tiny: SentenceTransformer) -> None:
    chosen = choose_parameters(tiny, ("*.output.dense.weight",))
    still = {name for name, parameter in tiny.named_parameters() if not parameter.requires_grad}
    assert still.isdisjoint(chosen)
    assert sum(name.endswith(".output.dense.weight") for name in still) == 4  # two in each of two layers
    assert all(name.endswith(".output.dense.weight") or "embeddings." in name for name in still)
