"""From settings to running parts, in the order in which they need each other; undone in reverse."""

import logging
import os
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from app.api.deps import Parts
from app.api.event_stream import EventStreams
from app.api.refusals import Refusals
from app.backup.restoring import require_finished
from app.continuous import ContinuousTuner
from app.datasets import DatasetStore
from app.encoders.admission import AdmissionRules, Registrar
from app.encoders.artifacts import BASE_KEY, ArtifactStore, fsync_folder
from app.encoders.base import ensure_base, require_one_folder
from app.encoders.child import Limits
from app.encoders.lanes import passage_lanes
from app.encoders.loaded import EngineSettings, load_encoder
from app.encoders.pool import EncoderPool
from app.encoders.query_cache import QueryCache
from app.encoders.replicas import Alone, Among, Replica
from app.encoders.shared_artifacts import open_artifacts
from app.encoders.slot import Slot
from app.encoders.switching import Switcher
from app.errors import BadInput
from app.experiments import ExperimentKeeper
from app.guarding import Seen
from app.ingest import Ingest
from app.intake import Intake
from app.judgments import JudgedNow
from app.keys import KeyRing, session_secret
from app.lock import data_dir_lock
from app.observe.metrics import Metrics
from app.observe.state import State
from app.observe.trace import spans_wanted
from app.openai_tokens import Vocabulary
from app.passages import IndexSpace, described, open_store
from app.preparing import JobKeeper
from app.query_log import QueryLog
from app.registry import Registry
from app.registry.engines import SERVICE_PATIENCE_S
from app.retrieval import Retrieval, probe_overlap
from app.settings import LOOPBACK_HOSTS, Settings
from app.webhook import Webhook

if TYPE_CHECKING:
    from app.observe.traces import Traces

log = logging.getLogger("adiabat")


def make_folder(data_dir: Path) -> None:
    """Raises `BadInput` where nothing can be kept there."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"{data_dir} cannot be the data folder ({error.strerror}); name one that this user may write to, "
            "with --data-dir or ADIABAT_DATA_DIR."
        ) from error


def assemble(settings: Settings, stack: ExitStack) -> Parts:
    """Open everything and take up the generation the service had. Raises `AdiabatError` with what to mend."""
    vocabulary = Vocabulary(settings.openai_vocabulary) if settings.openai_vocabulary else None
    make_folder(settings.data_dir)
    stack.enter_context(data_dir_lock(settings.data_dir, shared=settings.qdrant_url is not None))
    require_finished(settings.data_dir)
    registry = Registry(settings.registry_at, SERVICE_PATIENCE_S)
    stack.callback(registry.close)
    ring = _key_ring(settings, registry)
    stack.callback(ring.close)
    refusals = Refusals(registry.audit)
    stack.callback(refusals.close)
    artifacts = open_artifacts(settings, registry)
    require_one_folder(settings, artifacts, registry)
    slot = Slot()
    metrics = Metrics()
    traces = _traces(settings)
    if traces is not None:
        stack.callback(traces.close)
    cache = QueryCache(settings.query_cache_bytes)
    engine = EngineSettings(
        kind=settings.engine,
        precision=settings.precision,
        threads=settings.threads,
        map_weights=settings.map_weights,
        max_waiting=settings.max_waiting,
        max_wait_s=settings.max_wait_s,
    )
    pool = EncoderPool(
        lambda record: load_encoder(artifacts, record, engine, cache, metrics),
        lambda: switcher.pinned_ids(),
        max_bytes=settings.max_resident_bytes,
        observer=metrics,
    )
    stack.callback(pool.close)
    switcher = Switcher(registry, pool, slot, metrics)
    replicas = _join(settings, registry, switcher, slot)
    registry.idempotency.forget_unfinished()
    artifacts.sweep_half_made()
    for key in registry.encoders.sweep(artifacts.keys(), artifacts.set_aside):
        log.warning(
            "%s was on disk without a row in the registry: a crash left it, or the registry is another one", key
        )

    rules = admission_rules(settings)
    base_record = ensure_base(settings, artifacts, registry, Registrar(artifacts, registry, rules, None))
    base = pool.get(base_record)

    store = open_store(settings, index_space(artifacts, normalized=base.spec.normalize))
    stack.callback(store.close)
    for folder in (settings.data_dir.parent, settings.data_dir):  # the names of what a first start made in them
        fsync_folder(folder)
    lanes = passage_lanes(
        artifacts.files(BASE_KEY),
        base.spec,
        kind=base.dispatcher.engine_name,
        precision=settings.precision,
        threads=settings.threads,
        graphs_dir=artifacts.graphs,
        weights_dir=artifacts.weights,
    )
    stack.callback(lanes.close)
    switcher.start(replicas.others_have)
    replicas.start()
    stack.callback(replicas.stop)
    threading.Thread(target=switcher.load_previous, name="load-previous", daemon=True).start()
    judged = JudgedNow(registry, eta=settings.click_eta, per_key=settings.clicks_per_key)
    datasets = DatasetStore(artifacts, registry, store, judged, settings.max_archive_bytes)
    query_log = QueryLog(
        registry.queries,
        metrics,
        datasets.forget_judgments,
        share=settings.query_log,
        days=settings.query_log_days,
        rows=settings.query_log_rows,
    )
    query_log.start()
    stack.callback(query_log.stop)
    jobs = JobKeeper(registry, artifacts, store, switcher, settings, datasets.release, replicas.leads)
    jobs.start()
    stack.callback(jobs.stop)
    webhook = Webhook(settings.webhook_url, settings.webhook_secret, metrics.notified)
    webhook.start()
    stack.callback(webhook.stop)
    seen = Seen()
    experiments = ExperimentKeeper(registry, switcher, seen, webhook, replicas.leads)
    experiments.start()
    stack.callback(experiments.stop)
    continuous = ContinuousTuner(registry, switcher, datasets, webhook, wake=jobs.wake, leads=replicas.leads)
    continuous.start()
    stack.callback(continuous.stop)
    metrics.registry.register(
        State(registry=registry, store=store, pool=pool, slot=slot, lanes=lanes, cache=cache, replicas=replicas)
    )
    ingest = Ingest(store, lanes, settings)
    return Parts(
        settings=settings,
        registry=registry,
        ring=ring,
        refusals=refusals,
        artifacts=artifacts,
        store=store,
        pool=pool,
        slot=slot,
        switcher=switcher,
        replicas=replicas,
        registrar=Registrar(artifacts, registry, rules, probe_overlap(store)),
        retrieval=Retrieval(
            registry,
            pool,
            slot,
            store,
            metrics.searched,
            seen,
            max_waiting=settings.max_waiting,
            load_on_demand=settings.load_on_demand,
        ),
        ingest=ingest,
        intake=Intake(ingest, settings.max_body_bytes),
        datasets=datasets,
        query_log=query_log,
        experiments=experiments,
        continuous=continuous,
        jobs=jobs,
        events=EventStreams(registry.events.after),
        metrics=metrics,
        traces=traces,
        vocabulary=vocabulary,
    )


def admission_rules(settings: Settings) -> AdmissionRules:
    return AdmissionRules(
        min_cosine=settings.probe_min_cosine,
        min_overlap=settings.probe_min_overlap,
        engine=settings.engine,
        threads=settings.threads,
        limits=Limits(memory_bytes=settings.examine_bytes, timeout_s=settings.examine_timeout_s),
    )


def _key_ring(settings: Settings, registry: Registry) -> KeyRing:
    return KeyRing(
        registry.keys,
        settings.api_key,
        beyond_loopback=settings.host not in LOOPBACK_HOSTS,
        secret=session_secret(settings),
    )


def _traces(settings: Settings) -> "Traces | None":
    """Where OpenTelemetry's variables ask for spans; what is wrong with them keeps no service from starting."""
    try:
        if not spans_wanted(os.environ):
            return None
        from app.observe.traces import Traces

        return Traces(outside=settings.qdrant_url is not None)
    except ValueError as error:
        log.warning("no spans are sent: %s", error)
    except ImportError:
        log.warning("no spans are sent, though OTEL_* asks for them: pip install 'adiabat[otel]'")
    return None


def _join(settings: Settings, registry: Registry, switcher: Switcher, slot: Slot) -> Among:
    """Among the services on this registry; the embedded default is alone by the lock of its folder."""
    if settings.qdrant_url is None and settings.registry_url is None:
        return Alone(slot)
    replica = Replica(registry, switcher, slot, lambda: described(settings))
    replica.join()
    registry.idempotency.instance = replica.id
    return replica


def index_space(artifacts: ArtifactStore, *, normalized: bool) -> IndexSpace:
    """Of what the base in `artifacts` embeds; `normalized`: whether it gives vectors of length 1."""
    base = artifacts.manifest(BASE_KEY)
    return IndexSpace(
        passage_encoder_digest=base.digest,
        dimension=base.dimension,
        normalized=normalized,
        passage_prompt=base.passage_prompt,
        max_length=base.max_length,
    )
