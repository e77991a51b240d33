"""The beat of a trainer: what it brings back is about one job and ends no other."""

import threading
from pathlib import Path
from typing import Any

import pytest

from app.registry import JobStatus, Registry
from trainer.heartbeat import Heartbeat


@pytest.mark.parametrize("answer", [JobStatus.CANCELLED, None])
def test_a_late_word_about_the_job_before_does_not_end_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: JobStatus | None
) -> None:
    registry = Registry(tmp_path / "registry.db")
    asked, go_on, again = threading.Event(), threading.Event(), threading.Event()

    def report(job_id: str, *_: Any, **__: Any) -> JobStatus | None:
        if job_id == "second":
            again.set()
            return JobStatus.RUNNING
        asked.set()
        assert go_on.wait(30)
        return answer

    monkeypatch.setattr(registry.jobs, "report", report)
    with Heartbeat(registry, "w", "w/1", threading.Event()) as heartbeat:
        heartbeat.follow("first")
        assert asked.wait(30)
        heartbeat.unfollow()
        heartbeat.follow("second")
        go_on.set()
        assert again.wait(30)
        assert not heartbeat.cancelled
    registry.close()
