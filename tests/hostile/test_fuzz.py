"""Whatever comes is read or refused with a slug: the short form of `bench/fuzz.py`, with inputs that shrink."""

import argparse
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.encoders.overlay import EncoderFiles
from bench import fuzz


@pytest.mark.parametrize("target", sorted(fuzz.TARGETS))
def test_damage_of_every_kind_is_refused_with_a_slug(
    target: str, base: EncoderFiles, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def no_surprise(draw: random.Random) -> None:
        assert fuzz.read(fuzz.TARGETS[target](fuzz.whole(), draw), base, folder) in fuzz.Found.GOOD
        assert list(folder.iterdir()) == []

    no_surprise()


def test_the_long_form_tells_what_it_met_and_goes_on_where_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    found = fuzz.Found()
    lines = [{"begun": 3, "target": "config"}, {"ended": "read", "said": ""}, {"begun": 4, "target": "files"}]
    assert fuzz._heard(iter(lines), 3, found) == 5  # the child died of input 4
    found.tell(1)
    assert "crash" in capsys.readouterr().out
    assert (found.bad, found.counts["config"]["read"]) == (1, 1)
    assert fuzz.made(7, 11, None) == fuzz.made(7, 11, None)


def test_a_few_inputs_in_the_child() -> None:
    found = fuzz.Found()
    fuzz.watch(argparse.Namespace(start=0, inputs=10, seed=3, target=None), found)
    assert sum(sum(ends.values()) for ends in found.counts.values()) == 10
    assert found.bad == 0, found.first
