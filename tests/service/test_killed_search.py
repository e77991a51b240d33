"""A search for everything that a recipe leaves to "auto", whose trainer is killed with kill -9 again and again."""

import json
import os
import random
import signal
from pathlib import Path

import pytest

from app.client import AdiabatClient
from app.settings import Settings
from tests.conftest import trainer_of, wait_until
from tests.service.test_tuning_jobs import dataset, ready

__all__ = ["dataset"]  # a fixture

pytestmark = pytest.mark.nightly

SEARCH = {"learning_rate": "auto", "epochs": "auto", "soften": "auto", "runs": 2, "batch_size": 4}
GATE = {"min_gain": -1, "max_guard_loss": 1}
KILLS = 3


def started(client: AdiabatClient, name: str) -> str:
    return client.create_tuning_job(name, "pumps", guards=["own-corpus"], recipe=SEARCH, gate=GATE).id


def test_a_search_that_was_killed_at_random_moments_chooses_and_makes_what_an_unbroken_one_does(
    settings: Settings, dataset: Path, tmp_path: Path
) -> None:
    seed = random.randrange(10**6)
    print(f"the moments are those of seed {seed}")
    moments = random.Random(seed)
    with ready(settings, dataset, tmp_path) as (child, client):
        whole = client.wait_for_job(started(client, "whole"))
        assert whole.status == "succeeded", whole
        searched = whole.result["search"]
        # After so many trials, somewhere in the next one; that may be a tuning in full.
        kills = sorted(moments.sample(range(1, len(searched) - 1), KILLS))
        job_id = started(client, "broken")
        kept = settings.checkpoints_dir(job_id) / "trials.json"
        for count in kills:
            further = moments.randrange(10)

            def reached(count: int = count, further: int = further) -> bool:
                progress = client.tuning_job(job_id).progress
                done = len(json.loads(kept.read_text())) if kept.exists() else 0
                return done > count or (done == count and progress.get("step", 0) >= further)

            wait_until(reached)
            os.kill(trainer_of(child.pid), signal.SIGKILL)
            wait_until(lambda: client.tuning_job(job_id).status == "interrupted")
            told = json.loads(kept.read_text())
            assert len(told) >= count
            assert told == searched[: len(told)]
            client.resume_tuning_job(job_id)
        broken = client.wait_for_job(job_id)
        assert broken.status == "succeeded", broken
        assert broken.result["search"] == searched
        assert broken.result["chosen"] == whole.result["chosen"]
        assert client.encoder("broken").digest == client.encoder("whole").digest
        events = list(client.job_events(job_id))
        resumed = next(n for n, each in enumerate(events) if each.data.get("status") == "interrupted")
        first = searched[0]["learning_rate"]
        assert not [each for each in events[resumed:] if each.data.get("phase") == f"tuning at {first:g}"]
