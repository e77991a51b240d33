"""`traceparent` by the standard's rules: what is taken, what is refused, what is answered."""

import pytest

from app.observe.trace import parse, spans_wanted

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{PARENT}-01"


def test_a_valid_traceparent_is_read_and_answered_with_a_span_of_its_own() -> None:
    first, second = parse(GOOD), parse(GOOD)
    assert first is not None
    assert second is not None
    assert (first.trace_id, first.parent_id, first.flags) == (TRACE, PARENT, 1)
    assert first.response == f"00-{TRACE}-{first.span_id}-00"  # not sampled: no span is kept
    assert first.span_id not in (PARENT, second.span_id)


def test_the_flag_of_a_random_trace_id_is_handed_back() -> None:
    trace = parse(f"00-{TRACE}-{PARENT}-03")
    assert trace is not None
    assert trace.response.endswith("-02")


@pytest.mark.parametrize("value", [f"01-{TRACE}-{PARENT}-01", f"cc-{TRACE}-{PARENT}-01-what-comes-later"])
def test_a_later_version_is_read_as_far_as_this_one_goes(value: str) -> None:
    trace = parse(value)
    assert trace is not None
    assert trace.trace_id == TRACE


@pytest.mark.parametrize(
    "value",
    [
        "",
        "garbage",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"01-{TRACE}-{PARENT}-01more",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-1",
        f"{GOOD}\n",
        f" {GOOD}",
    ],
)
def test_what_the_standard_forbids_is_no_trace(value: str) -> None:
    assert parse(value) is None


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "shop"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://collector/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "TRUE"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
    ],
)
def test_spans_are_wanted_where_the_standard_variables_say_so(variables: dict[str, str], wanted: bool) -> None:
    assert spans_wanted(variables) is wanted


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is 'zipkin'"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, "OTEL_EXPORTER_OTLP_ENDPOINT is 'collector:4317'"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "grpc://collector:4317"}, "OTEL_EXPORTER_OTLP_ENDPOINT is 'grpc://coll"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL is 'grpc'",
        ),
    ],
)
def test_variables_that_cannot_be_followed_are_told_by_name(variables: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        spans_wanted(variables)
