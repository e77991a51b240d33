import numpy as np

from trainer.batches import Batches

LENGTHS = np.random.default_rng(0).integers(5, 200, size=1003)


def epoch(batches: Batches, number: int) -> list[np.ndarray]:
    return [batches[number * batches.per_epoch + i] for i in range(batches.per_epoch)]


def test_every_pair_is_seen_once_in_every_epoch() -> None:
    batches = Batches(LENGTHS, batch_size=64, seed=0)
    for number in range(3):
        assert sorted(np.concatenate(epoch(batches, number))) == list(range(1003))


def test_no_batch_is_over_the_size_or_much_under_it() -> None:
    sizes = {len(batch) for batch in epoch(Batches(LENGTHS, batch_size=64, seed=0), 0)}
    assert max(sizes) <= 64
    assert max(sizes) - min(sizes) <= 1


def test_a_batch_depends_on_seed_and_step_and_not_on_what_came_before() -> None:
    batches, resumed = Batches(LENGTHS, batch_size=64, seed=3), Batches(LENGTHS, batch_size=64, seed=3)
    walked = [batches[step] for step in range(40)]
    assert np.array_equal(resumed[39], walked[39])
    assert np.array_equal(resumed[2], walked[2])
    other = Batches(LENGTHS, batch_size=64, seed=4)
    assert not np.array_equal(np.sort(other[0]), np.sort(walked[0]))


def test_epochs_differ() -> None:
    batches = Batches(LENGTHS, batch_size=64, seed=0)
    assert not np.array_equal(np.sort(epoch(batches, 0)[0]), np.sort(epoch(batches, 1)[0]))


def test_bucketing_saves_most_of_the_padding() -> None:
    lengths = np.random.default_rng(1).integers(5, 200, size=64 * 64)

    def padded(batches: list[np.ndarray]) -> int:
        return sum(len(batch) * int(lengths[batch].max()) for batch in batches)

    bucketed = padded(epoch(Batches(lengths, batch_size=64, seed=0), 0))
    shuffled = padded(np.array_split(np.random.default_rng(0).permutation(len(lengths)), 64))
    least = lengths.sum()
    assert bucketed - least < 0.1 * (shuffled - least)


def test_fewer_pairs_than_a_batch_make_one_batch() -> None:
    batches = Batches(LENGTHS[:5], batch_size=64, seed=0)
    assert batches.per_epoch == 1
    assert sorted(batches[7]) == [0, 1, 2, 3, 4]
