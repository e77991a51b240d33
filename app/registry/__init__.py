"""The registry database: encoders, activations, datasets, judgments, queries, jobs. Knows no torch, store or web."""

from pathlib import Path

from app.registry.activations import Activation, Activations, Canary, NewCanary, Rules, Serving
from app.registry.audit import Action, Actor, Audit, Entry, acting
from app.registry.clocks import Clocks
from app.registry.continuous import Continuous, NewStep, Standing, Step, StepKind
from app.registry.database import Database
from app.registry.datasets import DatasetRecord, Datasets
from app.registry.encoders import Admission, EncoderRecord, Encoders, EncoderState, NewEncoder
from app.registry.engines import PATIENCE_S
from app.registry.events import EventKind, JobEvent, JobEvents
from app.registry.experiments import Decided, ExperimentRecord, Experiments, Tally
from app.registry.idempotency import Answer, IdempotencyKeys, Keep
from app.registry.instances import Instance, Instances
from app.registry.job_records import AnyJob, EvaluationRecord, JobRecord, JobStatus, NewEvaluation, NewJob
from app.registry.jobs import Jobs
from app.registry.judgments import Judgment, Judgments, NewJudgment, Revision
from app.registry.keys import KeyRecord, Keys, NewKey, Scope
from app.registry.queries import Click, LoggedSearch, NewSearch, QueryRecords
from app.registry.routes import Match, MatchFilter, Route, RouteChange, Routes, RouteTerms
from app.registry.signals import Signals
from app.registry.workers import Workers

__all__ = [
    "Action",
    "Activation",
    "Activations",
    "Actor",
    "Admission",
    "Answer",
    "AnyJob",
    "Audit",
    "Canary",
    "Click",
    "Clocks",
    "Continuous",
    "DatasetRecord",
    "Datasets",
    "Decided",
    "EncoderRecord",
    "EncoderState",
    "Encoders",
    "Entry",
    "EvaluationRecord",
    "EventKind",
    "ExperimentRecord",
    "Experiments",
    "IdempotencyKeys",
    "Instance",
    "Instances",
    "JobEvent",
    "JobEvents",
    "JobRecord",
    "JobStatus",
    "Jobs",
    "Judgment",
    "Judgments",
    "Keep",
    "KeyRecord",
    "Keys",
    "LoggedSearch",
    "Match",
    "MatchFilter",
    "NewCanary",
    "NewEncoder",
    "NewEvaluation",
    "NewJob",
    "NewJudgment",
    "NewKey",
    "NewSearch",
    "NewStep",
    "QueryRecords",
    "Registry",
    "Revision",
    "Route",
    "RouteChange",
    "RouteTerms",
    "Routes",
    "Rules",
    "Scope",
    "Serving",
    "Signals",
    "Standing",
    "Step",
    "StepKind",
    "Tally",
    "Workers",
    "acting",
]


class Registry:
    """At a file of SQLite, or at the address of a database (`ADIABAT_REGISTRY_URL`)."""

    def __init__(self, at: Path | str, patience_s: float = PATIENCE_S) -> None:
        self.database = Database(at, patience_s)
        self.encoders = Encoders(self.database)
        self.activations = Activations(self.database)
        self.routes = Routes(self.database)
        self.datasets = Datasets(self.database)
        self.judgments = Judgments(self.database)
        self.queries = QueryRecords(self.database)
        self.experiments = Experiments(self.database)
        self.signals = Signals(self.database)
        self.jobs = Jobs(self.database)
        self.continuous = Continuous(self.database)
        self.events = JobEvents(self.database)
        self.instances = Instances(self.database)
        self.workers = Workers(self.database)
        self.clocks = Clocks(self.database)
        self.idempotency = IdempotencyKeys(self.database)
        self.keys = Keys(self.database)
        self.audit = Audit(self.database)

    def close(self) -> None:
        self.database.close()
