"""The dashboard and the documentation name the figures that the service really exports, and no others."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Service

ROOT = Path(__file__).parent.parent.parent
METRIC = re.compile(r"\b(?:adiabat|process|python)_[a-z_]+")
ROWS = ["Searches", "Encoder", "Store", "Trainer and jobs", "Process"]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
    return found


def expressions() -> Iterator[str]:
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (each["expr"] for each in dashboard()["annotations"]["list"])
    yield from (each["definition"] for each in dashboard()["templating"]["list"] if each["type"] == "query")


def families(service: Service) -> dict[str, set[str]]:
    """Names of samples by family, after everything that can be counted has been."""
    service.client.upsert_passages([{"id": "a", "text": "the water pump"}])
    service.client.search("water")
    service.parts.registry.workers.beat("embedded")
    with httpx.Client(base_url=service.url, trust_env=False) as http:
        text = http.get("/metrics").text
    told = {family.name: {sample.name for sample in family.samples} for family in text_string_to_metric_families(text)}
    # No job runs here: this family has no sample, and its name is that of a gauge's.
    assert told["adiabat_tuning_job_progress_ratio"] == set()
    return told | {"adiabat_tuning_job_progress_ratio": {"adiabat_tuning_job_progress_ratio"}}


def test_every_metric_of_the_dashboard_is_one_that_the_service_exports(service: Service) -> None:
    exported = set().union(*families(service).values())
    asked = {name for expression in expressions() for name in METRIC.findall(expression)}
    assert len(asked) > 30
    assert asked <= exported, sorted(asked - exported)


def test_every_figure_of_the_service_is_on_the_dashboard_and_documented(service: Service) -> None:
    shown = " ".join(expressions())
    documented = (ROOT / "docs" / "operations.md").read_text()
    for family, samples in families(service).items():
        if family.startswith("adiabat_"):
            assert any(sample in shown for sample in samples), f"{family} is on no panel"
            names = {family, *samples}
            assert any(f"`{name}`" in documented for name in names), f"{family} is not documented"


def test_the_dashboard_can_be_imported_anywhere() -> None:
    found = dashboard()
    assert found["schemaVersion"] == 42
    assert [panel["title"] for panel in found["panels"] if panel["type"] == "row"] == ROWS
    ids = [panel["id"] for panel in found["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in found["panels"]:
        assert panel.get("datasource", {"uid": "${datasource}"})["uid"] == "${datasource}"
        for target in panel.get("targets", ()):
            assert target["expr"].count('job="$job"') >= 1
            assert target["expr"].count("(") == target["expr"].count(")")


def test_no_two_panels_lie_over_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
