"""What a running service tells about itself: figures, request ids, traces, its access log."""

import json
import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.client import ApiError
from app.observe.logs import JsonFormatter
from app.settings import Settings
from tests.conftest import Service, process, running, wait_until
from tests.service import encoders

KEY = "correct horse battery"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PASSAGES = [{"id": f"p{n}", "text": f"the water pump {n}"} for n in range(5)]

Labels = dict[str, str]


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, trust_env=False) as opened:
        yield opened


class Lines(logging.Handler):
    """The access log as it would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.found: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(json.loads(self.format(record)))

    def of(self, request_id: str) -> list[dict[str, Any]]:
        """A line is written after its answer is out."""
        wait_until(lambda: any(line.get("request_id") == request_id for line in self.found))
        return [line for line in self.found if line.get("request_id") == request_id]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, log = Lines(), logging.getLogger("adiabat")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield handler
    log.removeHandler(handler)
    log.setLevel(logging.NOTSET)


def scrape(http: httpx.Client) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    response = http.get("/metrics")
    assert response.status_code == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def value(found: dict[Any, float], name: str, /, **labels: str) -> float:
    """The sum over all samples of that name which have these labels."""
    wanted = set(labels.items())
    values = [figure for (sample, has), figure in found.items() if sample == name and wanted <= has]
    assert values, f"no {name} with {labels}"
    return sum(values)


def test_requests_are_counted_by_route_method_and_status(http: httpx.Client) -> None:
    for passage_id in ("a", "b", "c"):
        http.get(f"/passages/{passage_id}")
    for path in ("/nowhere", "/nowhere/else"):
        http.get(path)
    http.post("/search", content=b"{not json")
    count = "adiabat_http_request_duration_seconds_count"
    wait_until(lambda: value(scrape(http), count, status="422") == 1)
    found = scrape(http)
    assert value(found, count, method="GET", route="/passages/{passage_id}", status="404") == 3
    assert value(found, count, method="GET", route="unmatched", status="404") == 2
    assert value(found, count, method="POST", route="/search", status="422") == 1
    assert value(found, "adiabat_http_requests_in_flight") == 1  # this very scrape
    assert not any("nowhere" in text for _, has in found for _, text in has)


def test_searches_fill_the_figures_of_encoder_and_store(service: Service, http: httpx.Client) -> None:
    service.client.upsert_passages(PASSAGES)
    before = scrape(http)
    with ThreadPoolExecutor(4) as clients:
        list(clients.map(lambda n: service.client.search(f"pump {n}"), range(20)))
    wait_until(lambda: value(scrape(http), "adiabat_batch_texts_sum") - value(before, "adiabat_batch_texts_sum") == 20)
    found = scrape(http)

    def grown(name: str) -> float:
        return value(found, name) - value(before, name)

    assert grown("adiabat_queue_seconds_count") == 20
    assert grown("adiabat_search_seconds_count") == 20
    assert 0 < grown("adiabat_encode_seconds_count") <= 20
    assert grown("adiabat_encode_seconds_sum") > 0
    encoder = service.parts.slot.current.encoder
    assert grown("adiabat_batch_tokens_sum") == sum(encoder.count_tokens([f"pump {n}" for n in range(20)]))
    assert value(found, "adiabat_passages") == value(found, "adiabat_passages_embedded_total") == 5
    assert value(found, "adiabat_store_writes_total") >= 1
    assert value(found, "adiabat_part_up", part="store") == 1
    assert value(found, "adiabat_resident_encoders") == 1
    assert value(found, "adiabat_resident_encoder_bytes", encoder="base@1") == encoder.weights_bytes > 0
    assert value(found, "adiabat_shared_weights_bytes") > 0
    assert value(found, "process_resident_memory_bytes") > 0


def test_switches_and_refusals_are_counted_and_the_active_encoder_is_named(
    service: Service, http: httpx.Client, tiny: Path, sources: Path
) -> None:
    service.client.register_encoder("bees", path=str(encoders.near(tiny, sources / "bees")))
    assert value(scrape(http), "adiabat_generation") == 1
    service.client.activate("bees")
    service.client.activate("bees")
    service.client.rollback()
    service.client.activate("bees")
    with pytest.raises(ApiError):
        service.client.activate("bees", if_generation=1)
    with pytest.raises(ApiError):
        service.client.activate("nobody")
    found = scrape(http)
    assert value(found, "adiabat_generation") == 4
    assert value(found, "adiabat_active_encoder_info", name="bees", version="1") == 1
    outcomes = {"done": 2, "unchanged": 1, "stale-generation": 1, "encoder-not-found": 1}
    for outcome, count in outcomes.items():
        assert value(found, "adiabat_activations_total", reason="activate", outcome=outcome) == count
    assert value(found, "adiabat_activations_total", reason="rollback", outcome="done") == 1
    assert value(found, "adiabat_switch_seconds_count") == 3
    assert value(found, "adiabat_encoder_load_seconds_count") == 2  # base and bees, once each
    assert value(found, "adiabat_resident_encoders") == 2


def test_jobs_and_trainers_are_told_from_the_registry(service: Service, http: httpx.Client) -> None:
    found = scrape(http)
    assert value(found, "adiabat_trainers_alive") == 0
    assert value(found, "adiabat_tuning_jobs") == 0
    assert value(found, "adiabat_tuning_jobs", status="running") == 0
    service.parts.registry.workers.beat("embedded")
    found = scrape(http)
    assert value(found, "adiabat_trainers_alive") == 1
    assert value(found, "adiabat_trainer_silence_seconds", trainer="embedded") < 30


def test_a_part_that_does_not_answer_leaves_the_others_figures(service: Service, http: httpx.Client) -> None:
    service.parts.store.close()
    found = scrape(http)
    assert value(found, "adiabat_part_up", part="store") == 0
    assert value(found, "adiabat_part_up", part="registry") == 1
    assert value(found, "adiabat_generation") == 1
    assert ("adiabat_passages", frozenset()) not in found


def test_the_figures_need_the_key_unless_a_setting_opens_them(settings: Settings) -> None:
    locked = settings.model_copy(update={"api_key": KEY})
    with running(locked) as service, httpx.Client(base_url=service.url, trust_env=False) as http:
        assert http.get("/metrics").status_code == 401
        answer = http.get("/metrics", headers={"Authorization": f"Bearer {KEY}"})
        assert answer.headers["content-type"].startswith("text/plain")
    opened = locked.model_copy(update={"open_metrics": True})
    with running(opened) as service, httpx.Client(base_url=service.url, trust_env=False) as http:
        modern = {"Accept": "application/openmetrics-text; version=1.0.0"}
        answer = http.get("/metrics", headers=modern)
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert answer.text.endswith("# EOF\n")
        assert http.get("/encoders").status_code == 401


def test_the_figures_come_packed_to_whoever_takes_them_so(http: httpx.Client) -> None:
    packed = http.get("/metrics", headers={"Accept-Encoding": "gzip"})
    plain = http.get("/metrics", headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 4
    assert "adiabat_generation 1.0" in packed.text
    assert "adiabat_generation 1.0" in plain.text


def test_a_sane_request_id_is_kept_and_any_other_is_replaced(http: httpx.Client, lines: Lines) -> None:
    kept = http.get("/version", headers={"X-Request-Id": "order-66/a.b:c"})
    assert kept.headers["x-request-id"] == "order-66/a.b:c"
    for bad in ("x" * 129, "two words", "{}", "é".encode()):
        made = http.get("/version", headers={"X-Request-Id": bad}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", made)
    problem = http.get("/passages/none", headers={"X-Request-Id": "abc"})
    assert problem.headers["x-request-id"] == problem.json()["request_id"] == "abc"
    [line] = lines.of("abc")
    assert (line["method"], line["route"], line["status"]) == ("GET", "/passages/{passage_id}", 404)


def test_a_refusal_before_any_route_has_its_id_too(settings: Settings, lines: Lines) -> None:
    small = settings.model_copy(update={"max_body_bytes": 100})
    with running(small) as service, httpx.Client(base_url=service.url, trust_env=False) as http:
        answer = http.post("/search", json={"query": "x" * 200}, headers={"X-Request-Id": "big"})
        assert (answer.status_code, answer.json()["request_id"]) == (413, "big")
        assert lines.of("big")[0]["status"] == 413


def test_a_bug_is_a_500_whose_id_leads_to_the_traceback(service: Service, http: httpx.Client, lines: Lines) -> None:
    slot = service.parts.slot
    active, slot._current = slot.current, "no encoder"  # type: ignore[assignment]  # a bug, as real as one can be made
    answer = http.get("/active-encoder")
    slot._current = active
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    request_id = answer.headers["x-request-id"]
    assert answer.json()["id"] == answer.json()["request_id"] == request_id
    assert "str" not in answer.json()["detail"]
    wait_until(lambda: len(lines.of(request_id)) == 2)
    bug, access = lines.of(request_id)
    assert "AttributeError" in bug["exception"]
    assert access["status"] == 500
    assert value(scrape(http), "adiabat_http_request_duration_seconds_count", status="500") == 1


def test_a_trace_is_in_the_log_and_in_the_answer(http: httpx.Client, lines: Lines) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "traced"}
    answer = http.get("/version", headers=headers)
    [line] = lines.of("traced")
    assert line["trace_id"] == TRACE
    assert answer.headers["traceresponse"] == f"00-{TRACE}-{line['span_id']}-00"
    refused = http.get("/passages/none", headers=headers).json()
    assert (refused["trace_id"], refused["request_id"]) == (TRACE, "traced")
    untraced = http.get("/version", headers={"traceparent": "00-rubbish", "X-Request-Id": "untraced"})
    assert "traceresponse" not in untraced.headers
    assert "trace_id" not in lines.of("untraced")[0]


def test_a_search_names_encoder_and_generation_in_its_line_and_no_query(
    service: Service, http: httpx.Client, lines: Lines
) -> None:
    service.client.upsert_passages(PASSAGES)
    http.get("/search", params={"q": "my secret illness"}, headers={"X-Request-Id": "s1"})
    [line] = lines.of("s1")
    assert (line["encoder"], line["generation"], line["route"]) == ("base@1", 1, "/search")
    assert line["duration_ms"] > 0
    http.post(
        "/search",
        json={"query": "my secret", "encoder": "base@1", "compare_to": "base@1"},
        headers={"X-Request-Id": "s2"},
    )
    assert lines.of("s2")[0]["encoder"] == "base@1"
    http.post("/v1/embeddings", json={"model": "active", "input": "my secret"}, headers={"X-Request-Id": "s3"})
    assert (lines.of("s3")[0]["encoder"], lines.of("s3")[0]["generation"]) == ("base@1", 1)
    assert "secret" not in json.dumps(lines.found)


def test_health_checks_are_in_the_log_only_where_they_fail(service: Service, http: httpx.Client, lines: Lines) -> None:
    http.get("/health/ready", headers={"X-Request-Id": "well"})
    service.parts.store.close()
    http.get("/health/ready", headers={"X-Request-Id": "ill"})
    assert lines.of("ill")[0]["status"] == 503
    assert not [line for line in lines.found if line.get("request_id") == "well"]


def test_the_process_writes_nothing_but_lines_of_json(settings: Settings) -> None:
    with process(settings, "--no-trainer") as (_, client):
        client.search("water")
        with httpx.Client(base_url=client.url, trust_env=False) as http:
            http.get("/version", headers={"X-Request-Id": "last"})
        log = settings.data_dir.parent / "service.log"
        wait_until(lambda: '"last"' in log.read_text())
    found = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["logger"] for line in found} == {"adiabat.serve", "adiabat.access"}
    assert [line["encoder"] for line in found if line.get("route") == "/search"] == ["base@1"]
