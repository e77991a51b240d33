import pytest
import torch
from sentence_transformers import SentenceTransformer

from app.errors import InvalidField
from trainer.soften import load_softened, softened

BASE = {"w": torch.tensor([1.0, -2.0]), "b": torch.tensor([0.5])}
TUNED = {"w": torch.tensor([2.0, -4.0]), "b": torch.tensor([0.5])}


def test_the_share_that_is_kept() -> None:
    got = softened(BASE, TUNED, 0.25)
    assert got["w"].tolist() == [1.25, -2.5]
    assert got["b"].tolist() == [0.5]
    assert BASE["w"].tolist() == [1.0, -2.0]


def test_one_keeps_everything_to_the_bit() -> None:
    base, tuned = {"w": torch.randn(1000)}, {"w": torch.randn(1000)}
    assert torch.equal(softened(base, tuned, 1.0)["w"], tuned["w"])


def test_a_step_below_half_precision_survives() -> None:
    base, tuned = {"w": torch.tensor([0.05])}, {"w": torch.tensor([0.05 + 6e-8])}
    moved = softened(base, tuned, 0.5)["w"]
    assert base["w"] < moved < tuned["w"]


@pytest.mark.parametrize("a", [0, -0.1, 1.01, float("nan")])
def test_a_share_out_of_range_is_refused(a: float) -> None:
    with pytest.raises(InvalidField, match="soften"):
        softened(BASE, TUNED, a)


def test_loading_changes_the_named_parameters_and_no_other(tiny: SentenceTransformer) -> None:
    before = {name: p.detach().clone() for name, p in tiny.named_parameters()}
    name = next(name for name in before if name.endswith("intermediate.dense.weight"))
    load_softened(tiny, before, {name: before[name] + 1}, 0.5)
    for other, parameter in tiny.named_parameters():
        wanted = before[other] + 0.5 if other == name else before[other]
        assert torch.allclose(parameter, wanted, atol=1e-6)
