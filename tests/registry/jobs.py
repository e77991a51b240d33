"""Encoders and jobs for the registry's tests."""

from app.registry import Admission, EncoderRecord, JobStatus, NewEncoder, NewEvaluation, NewJob, Registry


def new_encoder(name: str = "bees", digest: str = "sha256:a") -> NewEncoder:
    return NewEncoder(
        name=name,
        digest=digest,
        base_digest="sha256:base",
        parent_digest=None,
        admission=Admission.VERIFIED,
        size_bytes=1,
        labels={},
        metrics={},
        checks=[],
    )


def add(registry: Registry, name: str = "bees", digest: str = "sha256:a") -> EncoderRecord:
    return registry.encoders.add(new_encoder(name, digest), lambda _: None)[0]


def new_job(registry: Registry, dataset_digests: dict[str, str] | None = None) -> NewJob:
    parent = add(registry, "base", "sha256:base")
    return NewJob(
        name="bees",
        parent_id=parent.id,
        dataset="d",
        guards=[],
        dataset_digests=dataset_digests or {},
        recipe={},
        gate={},
        activate="never",
    )


def prepared_job(registry: Registry) -> str:
    job = registry.jobs.add(new_job(registry))
    assert registry.jobs.move(job.id, JobStatus.PREPARED, only_from=(JobStatus.QUEUED,))
    return job.id


def new_evaluation(*encoders: EncoderRecord) -> NewEvaluation:
    ids = [encoder.id for encoder in encoders]
    return NewEvaluation(encoder_ids=ids, datasets=["d:test"], dataset_digests={}, reads_store=True)


def prepared_evaluation(registry: Registry, *encoders: EncoderRecord) -> str:
    job = registry.jobs.add_evaluation(new_evaluation(*encoders))
    assert registry.jobs.move(job.id, JobStatus.PREPARED, only_from=(JobStatus.QUEUED,))
    return job.id
