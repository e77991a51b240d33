"""Spans, as an OpenTelemetry collector gets them: a real service process, OTLP over HTTP, decoded by its own schema."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.assembly import _traces
from app.client import AdiabatClient
from app.settings import Settings
from tests.conftest import process, wait_until

pytest.importorskip("opentelemetry.sdk", reason="the extra 'otel' is not installed")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECRET = "my secret illness"
PASSAGES = [{"id": f"p{n}", "text": f"the water pump {n}"} for n in range(5)]


class Collector:
    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.resource: dict[str, Any] = {}
        self.spans: list[Span] = []

    def take(self, body: bytes) -> None:
        self.bodies.append(body)
        for each in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = attributes(each.resource)
            self.spans += [span for scope in each.scope_spans for span in scope.spans]

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def within(self, parent: Span) -> list[Span]:
        inside = [span for span in self.spans if span.parent_span_id == parent.span_id]
        return sorted(inside, key=lambda span: span.start_time_unix_nano)


def attributes(holder: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in holder.attributes}


@contextmanager
def collecting() -> Iterator[tuple[str, Collector]]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", collector
    server.shutdown()
    server.server_close()
    thread.join()


def stop(child: "subprocess.Popen[bytes]") -> float:
    """How many seconds it took."""
    started = time.monotonic()
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 0
    return time.monotonic() - started


def lines(settings: Settings) -> list[dict[str, Any]]:
    log: Path = settings.data_dir.parent / "service.log"
    return [json.loads(line) for line in log.read_text().splitlines()]


def ask(client: AdiabatClient) -> dict[str, httpx.Response]:
    """The requests whose spans the test looks at, by their X-Request-Id."""
    answers: dict[str, httpx.Response] = {}

    def call(id: str, method: str, path: str, headers: dict[str, str] | None = None, **sent: Any) -> None:
        answers[id] = http.request(method, path, headers={"X-Request-Id": id, **(headers or {})}, **sent)

    parent = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=opaque"}
    with httpx.Client(base_url=client.url, trust_env=False, timeout=60) as http:
        call("put", "POST", "/passages", json={"passages": PASSAGES})
        call("found", "POST", "/search", parent, json={"query": SECRET, "limit": 3, "mode": "hybrid"})
        call("again", "GET", f"/search?q={SECRET}")
        call("many", "POST", "/search/batch", json={"queries": [f"{SECRET} {n}" for n in range(40)]})
        call("none", "GET", "/passages/none")
        call("left-out", "GET", "/version", {"traceparent": f"00-{TRACE}-{PARENT}-00"})
        call("health", "GET", "/health/ready")
    return answers


@pytest.fixture(scope="module")
def told(
    seeded: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Settings, Collector, dict[str, httpx.Response]]:
    """Of one service process, from its start to its end. It sends nothing before: what waits comes when it stops."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("traced") / "data", passage_encoder=str(tiny), trainer=False)
    subprocess.run(["cp", "-r", seeded, settings.data_dir], check=True)
    with collecting() as (url, collector):
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "600000"}
        with process(settings, "--no-trainer", variables=variables) as (child, client):
            answers = ask(client)
            assert collector.spans == []
            assert stop(child) < 15
    return settings, collector, answers


Told = tuple[Settings, Collector, dict[str, httpx.Response]]


def span_of(collector: Collector, request_id: str) -> Span:
    [found] = [span for span in collector.spans if attributes(span).get("adiabat.request_id") == request_id]
    return found


def test_a_search_is_a_span_in_its_callers_trace_with_one_for_embedding_and_one_for_the_store(told: Told) -> None:
    _, collector, _ = told
    span = span_of(collector, "found")
    assert (span.name, span.kind) == ("POST /search", Span.SPAN_KIND_SERVER)
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.trace_state) == (TRACE, PARENT, "vendor=opaque")
    said = attributes(span)
    assert said["http.request.method"] == "POST"
    assert said["http.route"] == said["url.path"] == "/search"
    assert said["http.response.status_code"] == 200
    assert (said["adiabat.encoder"], said["adiabat.generation"], said["adiabat.rule"]) == ("base@1", 1, "active")
    embed, search = collector.within(span)
    assert (embed.name, search.name) == ("embed queries", "search passages")
    assert {embed.trace_id.hex(), search.trace_id.hex()} == {TRACE}
    said = attributes(embed)
    assert (said["adiabat.encoder.name"], said["adiabat.encoder.version"]) == ("base", 1)
    assert said["adiabat.texts"] == said["adiabat.batch.texts"] == 1
    assert 0 <= said["adiabat.queue_ms"] * 1e6 < embed.end_time_unix_nano - embed.start_time_unix_nano
    said = attributes(search)
    assert (said["adiabat.mode"], said["adiabat.limit"], said["adiabat.hits"]) == ("hybrid", 3, 3)
    assert said["db.system.name"] == "qdrant"
    assert search.kind == Span.SPAN_KIND_INTERNAL  # Edge is in this process
    inside = [at for each in (embed, search) for at in (each.start_time_unix_nano, each.end_time_unix_nano)]
    times = [span.start_time_unix_nano, *inside, span.end_time_unix_nano]
    assert times == sorted(times)
    assert collector.resource["service.name"] == "adiabat"


def test_a_query_from_the_cache_has_no_span_and_a_large_batch_one_for_each_run(told: Told) -> None:
    _, collector, _ = told
    again = span_of(collector, "again")
    assert again.name == "GET /search"
    assert [each.name for each in collector.within(again)] == ["search passages"]
    assert attributes(again)["adiabat.texts_cached"] == 1
    many = collector.within(span_of(collector, "many"))
    assert [each.name for each in many] == ["embed queries", "embed queries", "search passages"]
    assert [attributes(each)["adiabat.batch.texts"] for each in many[:2]] == [32, 8]
    put = collector.within(span_of(collector, "put"))
    assert [(each.name, next(iter(attributes(each).values()))) for each in put] == [
        ("embed passages", 5),
        ("store passages", 5),
    ]


def test_a_trace_begins_here_without_a_caller_and_its_id_is_in_answer_log_and_refusal(told: Told) -> None:
    settings, collector, answers = told
    span = span_of(collector, "none")
    assert (span.name, span.parent_span_id) == ("GET /passages/{passage_id}", b"")
    assert attributes(span)["http.response.status_code"] == 404
    assert attributes(span)["adiabat.refusal"] == "passage-not-found"
    assert span.status.code == Status.STATUS_CODE_UNSET  # a refusal is no fault of the service
    answer = answers["none"]
    assert answer.json()["trace_id"] == span.trace_id.hex() != TRACE
    version, trace_id, span_id, flags = answer.headers["traceresponse"].split("-")
    assert (trace_id, span_id) == (span.trace_id.hex(), span.span_id.hex())
    assert (version, int(flags, 16) & 1) == ("00", 1)
    [line] = [line for line in lines(settings) if line.get("request_id") == "none"]
    assert (line["trace_id"], line["span_id"]) == (trace_id, span_id)


def test_what_the_caller_does_not_sample_and_health_checks_have_no_span(told: Told) -> None:
    settings, collector, answers = told
    assert {attributes(span).get("adiabat.request_id") for span in collector.spans} >= {"put", "found", "none"}
    assert not [span for span in collector.spans if attributes(span).get("url.path") in ("/version", "/health/ready")]
    assert answers["left-out"].headers["traceresponse"].startswith(f"00-{TRACE}-")
    assert answers["left-out"].headers["traceresponse"].endswith("-00")
    [line] = [line for line in lines(settings) if line.get("request_id") == "left-out"]
    assert line["trace_id"] == TRACE
    assert "traceresponse" not in answers["health"].headers


def test_no_span_holds_what_people_search_for(told: Told) -> None:
    _, collector, _ = told
    sent = b"".join(collector.bodies)
    assert b"adiabat.queue_ms" in sent
    assert b"secret" not in sent


def test_a_collector_that_is_away_stops_nobody(settings: Settings) -> None:
    away = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with process(settings, "--no-trainer", variables=away) as (child, client):
        client.search("water")
        wait_until(lambda: any("opentelemetry" in line["logger"] for line in lines(settings)))
        assert client.search("water").encoder.name == "base"
        assert stop(child) < 15


def test_variables_that_are_wrong_and_an_extra_that_is_not_there_are_told_and_stop_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert _traces(Settings()) is None
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_PROTOCOL")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    monkeypatch.delitem(sys.modules, "app.observe.traces", raising=False)
    assert _traces(Settings()) is None
    wrong, missing = (record.getMessage() for record in caplog.records)
    assert wrong.startswith("no spans are sent: OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'")
    assert missing.endswith("pip install 'adiabat[otel]'")
