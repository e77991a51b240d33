import pytest

from trainer.schedule import Schedule, rate_factor


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_every_step_moves_and_none_exceeds_the_peak(schedule: Schedule, warmup: float, steps: int) -> None:
    factors = [rate_factor(step, steps, warmup=warmup, schedule=schedule) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == 1


def test_the_rate_rises_to_the_peak_then_falls() -> None:
    factors = [rate_factor(step, 20, warmup=0.25, schedule="linear") for step in range(20)]
    assert factors[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert factors[6:] == sorted(factors[6:], reverse=True)
    assert factors[-1] == pytest.approx(1 / 15)


def test_cosine_is_half_way_in_the_middle_and_constant_stays() -> None:
    assert rate_factor(10, 20, warmup=0, schedule="cosine") == pytest.approx(0.5)
    assert rate_factor(19, 20, warmup=0.1, schedule="constant") == 1
