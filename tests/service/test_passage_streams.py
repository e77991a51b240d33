"""`POST /passages` as NDJSON: any length, bad lines told by number, and what is certain when something fails."""

import json
import re
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.intake import BATCH_LINES, MAX_STREAMS
from app.settings import Settings
from app.wire.passages import MAX_BAD_LINES
from tests.conftest import Service, process, running, wait_until

NDJSON = {"content-type": "application/x-ndjson"}
SAMPLES = Path(__file__).resolve().parents[2] / "samples" / "corpus.jsonl"


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, trust_env=False, timeout=60) as opened:
        yield opened


def line(number: int, text: str = "the water pump leaks", **more: Any) -> bytes:
    return json.dumps({"id": f"p{number}", "text": text, **more}).encode() + b"\n"


def counts(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    fates = ("embedded", "metadata_updated", "unchanged", "repeated", "bad_line_count")
    assert set(found) == {*fates, "lines", "bad_lines"}
    assert sum(found[name] for name in fates) == found["lines"]
    return found


def test_a_beir_corpus_is_taken_as_it_lies_and_twice_is_once(http: httpx.Client) -> None:
    corpus = SAMPLES.read_bytes()
    first = counts(http.post("/passages", content=corpus, headers=NDJSON))
    assert (first["lines"], first["embedded"], first["bad_lines"]) == (523, 523, [])
    assert http.get("/passages/count").json() == {"count": 523}
    kept = {"content-type": "application/x-ndjson; charset=utf-8"}
    again = counts(http.post("/passages", content=iter([corpus[:1000], corpus[1000:]]), headers=kept))
    assert (again["embedded"], again["unchanged"]) == (0, 523)


def test_bad_lines_are_told_by_number_and_the_others_are_stored(http: httpx.Client, service: Service) -> None:
    body = b"".join(
        (
            line(1),
            b"\n",
            b"not json\n",
            b'{"id": "x"}\n',
            b'{"id": "x", "text": " "}\n',
            b'{"id": "x", "text": "t", "colour": "red"}\n',
            b'{"id": "x", "text": "\xff"}\n',
            b'{"id": "x", "text": "\\ud800"}\n',
            b'{"id": "x", "text": "t", "metadata": {"score": NaN}}\n',
            json.dumps({"id": "x", "text": "t" * 40_000}).encode() + b"\n",
            b"[1]\n",
            line(2).rstrip(),
        )
    )
    found = counts(http.post("/passages", content=body, headers=NDJSON))
    assert (found["lines"], found["embedded"], found["bad_line_count"]) == (11, 2, 9)
    told = {bad["line"]: bad["problem"] for bad in found["bad_lines"]}
    expected = {
        3: "is not JSON",
        4: "text: is missing",
        5: "text: is empty",
        6: "colour: is not known",
        7: "invalid unicode",
        8: "hex escape",
        9: "metadata.score",
        10: "ADIABAT_MAX_TEXT_CHARS",
        11: "a JSON object",
    }
    assert list(told) == list(expected)
    for number, word in expected.items():
        assert word in told[number], told[number]
    assert service.client.count_passages() == 2


def test_many_bad_lines_are_counted_and_the_first_thousand_told(http: httpx.Client) -> None:
    found = counts(http.post("/passages", content=b"x\n" * 1_500, headers=NDJSON))
    assert (found["bad_line_count"], len(found["bad_lines"])) == (1_500, MAX_BAD_LINES)
    assert found["bad_lines"][-1]["line"] == MAX_BAD_LINES


def test_of_a_repeated_id_the_last_line_wins_near_and_far(http: httpx.Client, service: Service) -> None:
    near = line(0, "first") + line(0, "second")
    filling = b"".join(line(number) for number in range(1, 2 * BATCH_LINES))
    found = counts(http.post("/passages", content=near + filling + line(0, "last"), headers=NDJSON))
    assert (found["repeated"], found["embedded"]) == (1, 2 * BATCH_LINES + 1)
    assert service.client.passage("p0").text == "last"
    assert service.client.count_passages() == 2 * BATCH_LINES


def test_batches_that_name_a_passage_again_never_overtake_each_other(http: httpx.Client, service: Service) -> None:
    """The first batch is long at the lanes; the second, one that could be written at once, must come after it."""
    for turn in range(2):
        slow = line(0, f"old {turn}") + b"".join(line(n, f"word {turn} " * 60) for n in range(1, BATCH_LINES))
        counts(http.post("/passages", content=slow + line(0, f"new {turn}"), headers=NDJSON))
        assert service.client.passage("p0").text == f"new {turn}"


def test_the_limit_on_bodies_is_one_on_each_line_and_stays_on_every_other_call(settings: Settings) -> None:
    with (
        running(settings.model_copy(update={"max_body_bytes": 1_000})) as service,
        httpx.Client(base_url=service.url, trust_env=False) as http,
    ):
        body = line(1, "x" * 2_000) + b"".join(line(number) for number in range(2, 102))
        found = counts(http.post("/passages", content=body, headers=NDJSON))
        assert found["embedded"] == 100
        assert found["bad_lines"] == [{"line": 1, "problem": "line: is longer than ADIABAT_MAX_BODY_BYTES allows."}]
        for path, kind in (("/passages", "application/json"), ("/search", NDJSON["content-type"])):
            assert http.post(path, content=body, headers={"content-type": kind}).status_code == 413
        assert (
            http.post("/passages", content=body, headers={"content-type": "application/x-ndjsonx"}).status_code == 413
        )


def test_what_fails_half_way_says_up_to_which_line_everything_is_stored(http: httpx.Client, service: Service) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"\n" + b"".join(line(number) for number in range(BATCH_LINES))
        yield b"".join(line(number) for number in range(BATCH_LINES, 3 * BATCH_LINES))
        wait_until(lambda: service.parts.store.count() == 3 * BATCH_LINES)
        service.parts.store.close()
        yield b"".join(line(number) for number in range(3 * BATCH_LINES, 8 * BATCH_LINES))

    answer = http.post("/passages", content=chunks(), headers=NDJSON)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    through = answer.json()["stored_through_line"]
    # The blank line counts. A batch is settled when a later one wants its place: it may be stored and not yet certain.
    assert through in (1 + BATCH_LINES, 1 + 2 * BATCH_LINES, 1 + 3 * BATCH_LINES)
    assert f"Everything up to line {through} is stored; send the lines from {through + 1} on again." in answer.text


def test_what_was_stored_before_a_broken_connection_stays(http: httpx.Client, service: Service) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"".join(line(number) for number in range(BATCH_LINES)) + b'{"id": "half'
        wait_until(lambda: service.parts.store.count() == BATCH_LINES)
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        http.post("/passages", content=chunks(), headers=NDJSON)
    assert service.client.count_passages() == BATCH_LINES
    assert counts(http.post("/passages", content=line(0), headers=NDJSON))["unchanged"] == 1


def test_more_streams_than_may_be_open_are_refused_at_once(service: Service) -> None:
    opened, go_on = threading.Semaphore(0), threading.Event()

    def held() -> Iterator[bytes]:
        yield line(1)
        opened.release()
        go_on.wait(60)
        yield line(2)

    def post() -> None:
        with httpx.Client(base_url=service.url, trust_env=False, timeout=60) as own:
            answers.append(own.post("/passages", content=held(), headers=NDJSON).status_code)

    answers: list[int] = []
    threads = [threading.Thread(target=post) for _ in range(MAX_STREAMS)]
    try:
        for thread in threads:
            thread.start()
        for _ in threads:
            opened.acquire(timeout=60)
        wait_until(lambda: service.parts.intake.streams == MAX_STREAMS)
        refused = httpx.post(f"{service.url}/passages", content=line(3), headers=NDJSON, trust_env=False)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    finally:
        go_on.set()
        for thread in threads:
            thread.join()
    assert answers == [200] * MAX_STREAMS
    assert service.parts.intake.streams == 0


def test_searches_go_on_while_a_stream_is_embedded(http: httpx.Client, service: Service) -> None:
    service.client.upsert_passages([{"id": "a", "text": "the water pump"}])
    found = []

    def chunks() -> Iterator[bytes]:
        for batch in range(4):
            yield b"".join(line(number, f"pump {number}") for number in range(batch * 256, batch * 256 + 256))
            found.append(service.client.search("water").hits[0].id)

    counts(http.post("/passages", content=chunks(), headers=NDJSON))
    assert len(found) == 4


def test_memory_stays_bounded_however_long_the_stream_is(settings: Settings) -> None:
    def most_kib(pid: int) -> int:
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        assert found
        return int(found[1])

    long = b'{"id": "x", "text": "' + b"t" * 2**20 + b'"}\n'  # refused for its length, after it was read
    with process(settings, "--no-trainer") as (child, client):
        url = client.url
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
            counts(http.post("/passages", content=(long for _ in range(8)), headers=NDJSON))
            before = most_kib(child.pid)
            found = counts(http.post("/passages", content=(long for _ in range(80)), headers=NDJSON))
        assert found["bad_line_count"] == 80
        assert most_kib(child.pid) - before < 32 * 1024


def test_a_stop_ends_a_stream_whose_bytes_do_not_come_and_says_what_is_stored(service: Service) -> None:
    connection = HTTPConnection(service.url.removeprefix("http://"), timeout=30)
    connection.putrequest("POST", "/passages")
    connection.putheader("content-type", NDJSON["content-type"])
    connection.putheader("content-length", "1000000")
    connection.endheaders(b"".join(line(number) for number in range(BATCH_LINES)))
    wait_until(lambda: service.parts.store.count() == BATCH_LINES)
    service.parts.intake.close()
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["stored_through_line"]) == (503, BATCH_LINES)
    connection.close()
