"""The registry database: encoders, activations, datasets, tuning jobs. Knows no torch, no store, no web."""

from pathlib import Path

from app.registry.activations import Activation, Activations
from app.registry.database import Database
from app.registry.datasets import DatasetRecord, Datasets
from app.registry.encoders import Admission, EncoderRecord, Encoders, EncoderState, NewEncoder
from app.registry.jobs import JobRecord, Jobs, JobStatus, NewJob, Workers

__all__ = [
    "Activation",
    "Activations",
    "Admission",
    "DatasetRecord",
    "Datasets",
    "EncoderRecord",
    "EncoderState",
    "Encoders",
    "JobRecord",
    "JobStatus",
    "Jobs",
    "NewEncoder",
    "NewJob",
    "Registry",
    "Workers",
]


class Registry:
    def __init__(self, path: Path) -> None:
        self.database = Database(path)
        self.encoders = Encoders(self.database)
        self.activations = Activations(self.database)
        self.datasets = Datasets(self.database)
        self.jobs = Jobs(self.database)
        self.workers = Workers(self.database)

    def close(self) -> None:
        self.database.close()
