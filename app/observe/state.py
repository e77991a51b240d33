"""Figures that are read when somebody asks: what is active, resident, stored, queued. Reading takes no lock for long.

A part that does not answer is missing from the answer, and `adiabat_part_up` says so: the rest is worth having.
"""

import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app import __version__
from app.encoders.lanes import PassageLanes
from app.encoders.pool import EncoderPool
from app.encoders.query_cache import QueryCache
from app.encoders.replicas import Among
from app.encoders.session import SHARED
from app.encoders.slot import Slot
from app.errors import AdiabatError
from app.passages import PassageStore
from app.registry import JobRecord, JobStatus, Registry
from app.registry.job_records import AT_TRAINER

TRAINER_SILENT_S = 30  # a trainer beats every second; one this silent is called dead


@dataclass(frozen=True, kw_only=True, slots=True)
class State(Collector):
    """Registered once the parts stand; `collect` runs in whatever thread asks."""

    registry: Registry
    store: PassageStore
    pool: EncoderPool
    slot: Slot
    lanes: PassageLanes
    cache: QueryCache
    replicas: Among

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "adiabat_part_up", "Whether a part answered just now; without it its figures are missing.", labels=["part"]
        )
        parts: dict[str, Callable[[], Iterable[Metric]]] = {
            "encoders": self._encoders,
            "store": self._stored,
            "registry": self._registered,
        }
        for name, read in parts.items():
            try:
                found = list(read())
            except AdiabatError:
                found = []
            yield from found
            up.add_metric([name], bool(found))
        yield up

    def _encoders(self) -> Iterator[Metric]:
        active = self.slot.current
        record = active.encoder.record
        yield GaugeMetricFamily(
            "adiabat_generation", "Grows by one at every activation and every change of a route.", active.reached
        )
        yield GaugeMetricFamily(
            "adiabat_generations_behind",
            "Generations that this replica has yet to take up.",
            self.replicas.generations_behind(),
        )
        info = {"name": record.name, "version": str(record.version), "digest": record.digest}
        yield InfoMetricFamily("adiabat_active_encoder", "The encoder that /search uses.", info)
        engine = active.encoder.dispatcher.engine_name
        build = {"version": __version__, "python": platform.python_version(), "engine": engine}
        yield InfoMetricFamily("adiabat_build", "What runs here.", build)

        resident = self.pool.resident()
        yield GaugeMetricFamily("adiabat_resident_encoders", "Query encoders in memory.", len(resident))
        sizes = GaugeMetricFamily(
            "adiabat_resident_encoder_bytes", "Weights that an encoder in memory has for itself.", labels=["encoder"]
        )
        waiting = GaugeMetricFamily(
            "adiabat_queue_texts",
            "Texts that wait for an encoder; beyond ADIABAT_MAX_WAITING: 429.",
            labels=["encoder"],
        )
        for encoder in resident:
            sizes.add_metric([encoder.record.key], encoder.weights_bytes)
            waiting.add_metric([encoder.record.key], encoder.dispatcher.waiting)
        yield sizes
        yield waiting
        yield GaugeMetricFamily(
            "adiabat_shared_weights_bytes", "Token embeddings that encoders over one base share.", SHARED.nbytes
        )
        yield from self._cached()

    def _cached(self) -> Iterator[Metric]:
        cache = self.cache
        yield CounterMetricFamily("adiabat_query_cache_hits", "Queries whose vector was still there.", cache.hits)
        yield CounterMetricFamily("adiabat_query_cache_misses", "Queries that had to be embedded.", cache.misses)
        yield GaugeMetricFamily("adiabat_query_cache_bytes", "Memory that cached vectors take.", cache.nbytes)
        yield GaugeMetricFamily("adiabat_query_cache_entries", "Vectors in the cache.", len(cache))

    def _stored(self) -> Iterator[Metric]:
        info = self.store.info()
        yield GaugeMetricFamily("adiabat_passages", "Passages stored.", info.passages)
        yield GaugeMetricFamily("adiabat_passages_indexed", "Vectors in the HNSW index.", info.indexed)
        yield GaugeMetricFamily("adiabat_store_segments", "Segments of the passage store.", info.segments)
        yield GaugeMetricFamily("adiabat_store_indexing", "1 while the index is rebuilt.", info.indexing)
        yield CounterMetricFamily("adiabat_store_writes", "Writes to the passage store, over restarts.", info.writes)
        yield CounterMetricFamily(
            "adiabat_passages_embedded", "Passages embedded since the start.", self.lanes.embedded
        )

    def _registered(self) -> Iterator[Metric]:
        if not self.replicas.registry_answers():
            return
        ages_s = self.registry.workers.ages_s()
        alive = sum(age < TRAINER_SILENT_S for age in ages_s.values())
        yield GaugeMetricFamily(
            "adiabat_trainers_alive", f"Trainers seen within the last {TRAINER_SILENT_S} seconds.", alive
        )
        silence = GaugeMetricFamily(
            "adiabat_trainer_silence_seconds", "Seconds since a trainer was last seen.", labels=["trainer"]
        )
        for name, age_s in ages_s.items():
            silence.add_metric([name], age_s)
        yield silence

        clocks = GaugeMetricFamily(
            "adiabat_clock_offset_seconds",
            "By how much the clock of a live service or trainer is ahead of the registry database's.",
            labels=["process"],
        )
        for whose, ahead_s in self.registry.clocks.ahead_s().items():
            clocks.add_metric([whose], ahead_s)
        yield clocks

        standing = self.replicas.standing()
        replicas = GaugeMetricFamily(
            "adiabat_replicas",
            "Live services on the registry, by whether they have the newest generation.",
            labels=["state"],
        )
        replicas.add_metric(["switched"], standing.switched)
        replicas.add_metric(["behind"], len(standing.behind))
        yield replicas

        counts = self.registry.jobs.counts()
        jobs = GaugeMetricFamily("adiabat_tuning_jobs", "Tuning jobs by status.", labels=["status"])
        for status in JobStatus:
            jobs.add_metric([status], counts.get(status, 0))
        yield jobs
        progress = GaugeMetricFamily(
            "adiabat_tuning_job_progress_ratio",
            "Steps done of a job that a trainer works on, from 0 to 1.",
            labels=["tuning_job", "encoder"],  # "job" is a label of Prometheus' own
        )
        for job in self.registry.jobs.with_status(*AT_TRAINER):
            if not isinstance(job, JobRecord):
                continue
            done = job.progress.get("step", 0) / max(job.progress.get("steps", 0), 1)
            progress.add_metric([job.id, job.name], done)
        yield progress
