"""The trainer's log: JSON like the service's, with the job it speaks of."""

import json
import subprocess
import sys

from app.registry import JobStatus, NewJob, Registry
from app.settings import Settings
from tests.conftest import environment, wait_until


def test_every_record_about_a_job_carries_its_id(settings: Settings) -> None:
    registry = Registry(settings.registry_path)
    base = registry.encoders.find("base@1")
    # A job that names no content of its dataset: it ends at once, which is all that its log needs.
    new = NewJob(
        name="bees",
        parent_id=base.id,
        dataset="gone",
        guards=[],
        dataset_digests={},
        recipe={},
        gate={},
        activate="never",
    )
    job = registry.jobs.add(new)
    registry.jobs.move(job.id, JobStatus.PREPARED, only_from=(JobStatus.QUEUED,))
    log = settings.data_dir.parent / "trainer.log"
    with log.open("w") as sink:
        trainer = subprocess.Popen([sys.executable, "-m", "trainer"], env=environment(settings), stderr=sink)
        try:
            wait_until(lambda: registry.jobs.get(job.id).status is JobStatus.FAILED)
        finally:
            trainer.terminate()
            trainer.wait(30)
    registry.close()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert any("exception" in line for line in lines)
    own = [line for line in lines if line["logger"] == "adiabat.trainer"]
    about = [line for line in own if str(settings.data_dir) not in line["message"]]  # where it waits, at its start
    assert {line.get("job") for line in about} == {job.id}
