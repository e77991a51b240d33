"""Figures that are counted as they happen. Names and units by Prometheus' conventions.

The parts that are watched call the methods here through protocols of their own; none of them waits for anything.
"""

from collections.abc import Sequence
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from app.registry.activations import Reason
from app.wire.judgments import MAX_RELEVANCE

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
REQUEST_SECONDS = (*SECONDS[1:], 30, 60)
WAITING_SECONDS = (0.0001, 0.00025, *SECONDS[:-2])
SWITCH_SECONDS = (5e-7, 1e-6, 2e-6, 5e-6, 1e-5, 1e-4, 1e-3, 0.01)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
UNMATCHED = "unmatched"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """One to an application, with a registry of its own: two applications in one process do not mix."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each of ours that nobody reads
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._requests = self._histogram(
            "adiabat_http_request_duration_seconds",
            "From a request's first byte to its answer's last, by route template, method and status.",
            REQUEST_SECONDS,
            ("method", "route", "status"),
        )
        self._request: dict[tuple[str, str, int], Histogram] = {}
        self.in_flight = Gauge(
            "adiabat_http_requests_in_flight", "Requests that are being answered.", registry=self.registry
        )
        self._queue = self._histogram(
            "adiabat_queue_seconds", "How long a request's texts waited for the query encoder.", WAITING_SECONDS
        )
        self._encode = self._histogram("adiabat_encode_seconds", "One run of a query encoder over a batch.", SECONDS)
        self._texts = self._histogram("adiabat_batch_texts", "Texts in one run of a query encoder.", TEXTS)
        self._tokens = self._histogram(
            "adiabat_batch_tokens", "Tokens in one run of a query encoder, padding not counted.", TOKENS
        )
        search = self._histogram("adiabat_search_seconds", "The passage store's part of a search.", SECONDS)
        self.searched = search.observe
        self._load = self._histogram(
            "adiabat_encoder_load_seconds", "Reading and checking an encoder before it can serve.", REQUEST_SECONDS
        )
        self._warmup = self._histogram(
            "adiabat_encoder_warmup_seconds", "Running an encoder on the probe texts before it can serve.", SECONDS
        )
        evictions = Counter(
            "adiabat_encoder_evictions", "Encoders that left memory to make room for others.", registry=self.registry
        )
        self.evicted = evictions.inc
        self._switch = self._histogram(
            "adiabat_switch_seconds", "Replacing the active encoder, once loaded and warm.", SWITCH_SECONDS
        )
        self._activations = Counter(
            "adiabat_activations",
            "Activations asked for, by reason and outcome: done, unchanged, or the slug of the refusal.",
            ("reason", "outcome"),
            registry=self.registry,
        )
        for reason in get_args(Reason):  # from zero on, so that the first one shows as an increase
            self._activations.labels(reason, "done")

        self._judgments = Counter(
            "adiabat_judgments", "Judgments taken, by their grade.", ("relevance",), registry=self.registry
        )
        for grade in range(MAX_RELEVANCE + 1):
            self._judgments.labels(str(grade))
        self._logged = Counter(
            "adiabat_logged_searches",
            "Searches for the query log: stored, or dropped since too many waited or it could not be written.",
            ("outcome",),
            registry=self.registry,
        )
        for outcome in ("stored", "dropped"):
            self._logged.labels(outcome)
        self._webhooks = Counter(
            "adiabat_webhook_messages",
            "Messages to the webhook: sent, or failed at every try.",
            ("outcome",),
            registry=self.registry,
        )
        for outcome in ("sent", "failed"):
            self._webhooks.labels(outcome)
        clicks = Counter("adiabat_clicks", "Clicks that were stored.", registry=self.registry)
        self.clicked = clicks.inc

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        key = (method, route, status)
        child = self._request.get(key)
        if child is None:  # a label lookup costs more than the observation
            known = method if method in METHODS else "other"
            child = self._request[known, route, status] = self._requests.labels(known, route, str(status))
        child.observe(seconds)

    def ran(self, *, texts: int, tokens: int, waited_s: Sequence[float], took_s: float) -> None:
        """One run of an engine for `len(waited_s)` requests."""
        for seconds in waited_s:
            self._queue.observe(seconds)
        self._encode.observe(took_s)
        self._texts.observe(texts)
        self._tokens.observe(tokens)

    def loaded(self, load_ms: float, warmup_ms: float) -> None:
        self._load.observe(load_ms / 1000)
        self._warmup.observe(warmup_ms / 1000)

    def switched(self, reason: str, switch_us: float) -> None:
        self._switch.observe(switch_us / 1e6)
        self._activations.labels(reason, "done").inc()

    def not_switched(self, reason: str, outcome: str) -> None:
        self._activations.labels(reason, outcome).inc()

    def judged(self, relevance: int) -> None:
        self._judgments.labels(str(relevance)).inc()

    def logged(self, outcome: str, count: int) -> None:
        self._logged.labels(outcome).inc(count)

    def notified(self, outcome: str) -> None:
        self._webhooks.labels(outcome).inc()

    def _histogram(self, name: str, help: str, buckets: Sequence[float], labels: Sequence[str] = ()) -> Histogram:
        return Histogram(name, help, labels, buckets=buckets, registry=self.registry)
