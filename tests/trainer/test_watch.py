import pytest

from trainer.watch import Look, best_look, should_end


def looks(*figures: tuple[float, float]) -> list[Look]:
    return [Look(step=10 * i, dev=dev, drift=drift) for i, (dev, drift) in enumerate(figures, start=1)]


@pytest.mark.parametrize(
    ("figures", "patience", "ends"),
    [
        ([], 1, False),
        ([(0.5, 0.0)], 1, False),
        ([(0.5, 0.0), (0.4, 0.0)], 1, True),
        ([(0.5, 0.0), (0.4, 0.0)], 2, False),
        ([(0.5, 0.0), (0.4, 0.0), (0.45, 0.0)], 2, True),
        ([(0.5, 0.0), (0.5, 0.0), (0.5, 0.0)], 2, True),  # as good is not better
        ([(0.5, 0.0), (0.4, 0.0), (0.6, 0.0)], 2, False),
        ([(0.5, 0.0), (0.4, 0.0), (0.3, 0.0)], 0, False),
    ],
)
def test_patience_counts_the_looks_since_the_best(
    figures: list[tuple[float, float]], patience: int, ends: bool
) -> None:
    assert bool(should_end(looks(*figures), patience=patience, drift_budget=None)) is ends


def test_the_reason_is_a_sentence() -> None:
    history = looks((0.5, 0.01), (0.4, 0.2))
    assert should_end(history, patience=1, drift_budget=None) == (
        "Dev MRR@10 was best after step 10 (0.5000); looks without a rise since: 1."
    )
    assert should_end(history, patience=0, drift_budget=0.1) == (
        "After step 20 the drift was 0.2000, above the budget of 0.1."
    )


def test_drift_ends_a_tuning_only_above_its_budget() -> None:
    assert should_end(looks((0.5, 0.1)), patience=1, drift_budget=0.1) is None
    assert should_end(looks((0.5, 0.11)), patience=1, drift_budget=0.1)
    assert should_end(looks((0.5, 0.11)), patience=1, drift_budget=None) is None


def test_the_best_look_is_the_earliest_of_the_best_within_the_budget() -> None:
    history = looks((0.4, 0.0), (0.5, 0.1), (0.5, 0.0), (0.6, 0.3))
    assert best_look(history, drift_budget=None) is history[3]
    assert best_look(history, drift_budget=0.2) is history[1]
    assert best_look(history, drift_budget=0.05) is history[2]
    assert best_look(history[3:], drift_budget=0.2) is None
    assert best_look([], drift_budget=None) is None
