import numpy as np
import pytest
import torch

from tests.trainer.conftest import unit
from trainer.losses import drift, excluded_columns, infonce, triplet


def numpy_infonce(queries: np.ndarray, candidates: np.ndarray, excluded: np.ndarray, t: float) -> float:
    losses = []
    for i, query in enumerate(queries):
        seen = [j for j in range(len(candidates)) if not excluded[i, j]]
        exps = {j: np.exp(np.dot(query, candidates[j]) / t) for j in seen}
        losses.append(-np.log(exps[i] / sum(exps.values())))
    return float(np.mean(losses))


def test_infonce_agrees_with_the_formula() -> None:
    rng = np.random.default_rng(0)
    queries, candidates = unit(rng.normal(size=(5, 8))), unit(rng.normal(size=(12, 8)))
    excluded = rng.random((5, 12)) < 0.3
    excluded[np.arange(5), np.arange(5)] = False
    loss = infonce(*map(torch.from_numpy, (queries, candidates, excluded, np.arange(5))), temperature=0.1)
    assert float(loss) == pytest.approx(numpy_infonce(queries, candidates, excluded, 0.1), rel=1e-5)


def test_a_part_of_a_batch_finds_its_own_columns() -> None:
    rng = np.random.default_rng(4)
    queries, candidates = unit(rng.normal(size=(6, 8))), unit(rng.normal(size=(9, 8)))
    tensors = [torch.from_numpy(each) for each in (queries, candidates, np.zeros((6, 9), dtype=bool))]
    whole = infonce(*tensors, torch.arange(6), temperature=0.1)
    parts = [
        infonce(tensors[0][part], tensors[1], tensors[2][part], torch.arange(6)[part], temperature=0.1)
        for part in (slice(0, 2), slice(2, 6))
    ]
    assert float(whole) == pytest.approx(float(parts[0]) * 2 / 6 + float(parts[1]) * 4 / 6, rel=1e-6)


@pytest.mark.parametrize("reach", [4, 6])
def test_who_is_out_of_reach_has_no_gradient_and_counts(reach: int) -> None:
    rng = np.random.default_rng(5)
    queries = torch.tensor(unit(rng.normal(size=(8, 4))), requires_grad=True)
    candidates = torch.tensor(unit(rng.normal(size=(11, 4))))
    excluded = torch.zeros((8, 11), dtype=torch.bool)
    excluded[0, 1:] = True  # the first of one
    scores = (queries @ candidates.T).masked_fill(excluded, float("-inf"))
    better = [int((scores[i] > scores[i, i]).sum()) for i in range(8)]
    assert reach in better  # by one too far
    within = [i for i in range(8) if better[i] < reach]

    def gradient(reach: int, *, of: list[int]) -> tuple[float, torch.Tensor]:
        loss = infonce(queries[of], candidates, excluded[of], torch.tensor(of), temperature=0.1, reach=reach) * (
            len(of) / 8
        )
        return loss.item(), torch.autograd.grad(loss, queries)[0]

    everybody = list(range(8))
    assert gradient(reach, of=everybody)[0] == pytest.approx(gradient(0, of=everybody)[0], rel=1e-6)
    torch.testing.assert_close(gradient(reach, of=everybody)[1], gradient(0, of=within)[1])


def test_infonce_has_the_right_gradient() -> None:
    rng = np.random.default_rng(1)
    queries = torch.tensor(unit(rng.normal(size=(4, 6))), dtype=torch.float64, requires_grad=True)
    candidates = torch.tensor(unit(rng.normal(size=(9, 6))), dtype=torch.float64)
    excluded = torch.from_numpy(rng.random((4, 9)) < 0.3)
    excluded[range(4), range(4)] = False
    assert torch.autograd.gradcheck(
        lambda q: infonce(q, candidates, excluded, torch.arange(4), temperature=0.5), (queries,)
    )


def test_an_excluded_candidate_has_no_influence() -> None:
    rng = np.random.default_rng(2)
    queries = torch.tensor(unit(rng.normal(size=(2, 4))))
    candidates = torch.tensor(unit(rng.normal(size=(3, 4))))
    excluded = torch.tensor([[False, False, True], [False, False, True]])
    before = infonce(queries, candidates, excluded, torch.arange(2), temperature=0.1)
    candidates[2] = queries[0]
    assert torch.equal(infonce(queries, candidates, excluded, torch.arange(2), temperature=0.1), before)


def test_triplet_agrees_with_the_formula_where_negatives_are_uneven() -> None:
    rng = np.random.default_rng(3)
    queries, positives = unit(rng.normal(size=(3, 4))), unit(rng.normal(size=(3, 4)))
    negatives = unit(rng.normal(size=(3, 4)))
    drawn = np.array([[True, True], [False, False], [True, False]])
    owner = [0, 0, 2]
    wanted = [
        max(0.0, (1 - queries[o] @ positives[o]) - (1 - queries[o] @ n) + 0.6)
        for o, n in zip(owner, negatives, strict=True)
    ]
    loss = triplet(*map(torch.from_numpy, (queries, positives, negatives, drawn)), margin=0.6)
    assert 0 < float(loss) == pytest.approx(np.mean(wanted), rel=1e-5)


def test_triplet_without_any_negative_is_zero_and_still_has_a_gradient() -> None:
    queries = torch.tensor(unit(np.eye(2)), requires_grad=True)
    loss = triplet(queries, torch.eye(2), torch.empty((0, 2)), torch.zeros((2, 1), dtype=torch.bool), margin=0.1)
    loss.backward()
    assert loss.item() == 0
    assert queries.grad is not None


def test_drift_is_the_mean_cosine_distance() -> None:
    queries, parent = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    assert float(drift(queries, parent)) == pytest.approx((0 + 0.2) / 2)


def test_other_positives_identical_texts_and_repetitions_are_excluded_and_the_own_column_never() -> None:
    # Two queries; columns: own of 0 (group 5), own of 1 (group 5 as well), then 7, 8, 7, 9.
    groups = torch.tensor([5, 5, 7, 8, 7, 9])
    positives = torch.tensor([[5, 8, -1], [5, -1, -1]])
    wanted = [
        [0, 1, 0, 1, 1, 0],  # column 1 has the text of its positive, 3 is its other positive, 4 repeats 2
        [1, 0, 0, 0, 1, 0],
    ]
    assert excluded_columns(groups, positives).int().tolist() == wanted
