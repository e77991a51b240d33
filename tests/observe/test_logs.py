"""Records as JSON and as text, and what a request or job binds to them."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest

from app.observe.logs import JsonFormatter, TextFormatter, bound, note, noted

log = logging.Logger("adiabat.test")  # nobody else's: what is no Unicode must not get into a report


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """What `log` writes; the formatter is set by each test."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    log.addHandler(handler)
    yield stream
    log.removeHandler(handler)


def lines(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_record_is_one_line_of_json_with_time_level_logger_and_message(written: io.StringIO) -> None:
    log.warning("two\nlines and %s", "ünï")
    [line] = lines(written)
    assert line.pop("time").endswith("Z")
    assert line == {"level": "warning", "logger": "adiabat.test", "message": "two\nlines and ünï"}


def test_bound_fields_are_in_every_record_of_the_block_and_of_no_other(written: io.StringIO) -> None:
    with bound(request_id="r1"):
        log.info("inside")
        note(encoder="bees@1")
        assert noted("encoder") == "bees@1"
        with bound(job="j"):
            log.info("deeper", extra={"fields": {"status": 200}})
    note(encoder="nobody hears this")
    log.info("outside")
    inside, deeper, outside = lines(written)
    assert (inside["request_id"], "encoder" in inside) == ("r1", False)
    assert (deeper["request_id"], deeper["encoder"], deeper["job"], deeper["status"]) == ("r1", "bees@1", "j", 200)
    assert not {"request_id", "encoder", "job", "status"} & set(outside)


def test_a_thread_that_works_for_a_request_notes_into_its_fields() -> None:
    with ThreadPoolExecutor(1) as thread, bound(request_id="r1"):
        thread.submit(copy_context().run, lambda: note(encoder="bees@1")).result()
        assert noted("encoder") == "bees@1"


def test_a_traceback_and_what_is_no_unicode_fit_into_the_line(written: io.StringIO) -> None:
    try:
        raise ValueError("broken \udc80")
    except ValueError:
        log.exception("failed on %s", "\udcff")
    [line] = lines(written)
    assert line["message"] == "failed on \udcff"
    assert "Traceback" in line["exception"]
    assert "ValueError" in line["exception"]


def test_text_cannot_be_made_to_look_like_another_record(written: io.StringIO) -> None:
    log.handlers[0].setFormatter(TextFormatter())
    with bound(request_id="r1"):
        log.info("GET /x\n2026-01-01 ERROR adiabat: forged\r")
    [line] = written.getvalue().splitlines()
    assert line.endswith("INFO adiabat.test: GET /x\\n2026-01-01 ERROR adiabat: forged\\r request_id=r1")


@pytest.mark.parametrize(("format", "is_json"), [("auto", True), ("json", True), ("text", False)])
def test_where_standard_error_is_no_terminal_auto_means_json(format: str, is_json: bool) -> None:
    code = (
        "import logging, warnings; from app.observe import logs; "
        f"logs.install({format!r}, 'info'); logging.getLogger('x').info('hello'); "
        "logging.getLogger('x').debug('not this'); warnings.warn('and this')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    found = done.stderr.splitlines()
    assert found[0].startswith("{") is is_json
    assert "hello" in found[0]
    assert "not this" not in done.stderr
    assert "and this" in done.stderr
    if is_json:
        assert [json.loads(line)["logger"] for line in found] == ["x", "py.warnings"]
