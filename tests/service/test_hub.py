"""`source: {hub, revision}`, against a hub on this machine that speaks as much of its protocol as a download needs."""

import json
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from app.client import ApiError
from app.settings import Settings
from tests.conftest import Service, process
from tests.service import encoders
from tests.service.hub import COMMIT, running_hub

REPOSITORY = "someone/bees"


@pytest.fixture
def hub(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ThreadingHTTPServer, list[str]]]:
    """The hub, and the names of the files that were fetched from it."""
    folder = encoders.near(tiny, tmp_path / "repository")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "modeling.py").write_text("raise SystemExit")
    with running_hub({REPOSITORY: folder}, tmp_path / "hub-cache", monkeypatch) as running:
        yield running


def test_a_name_is_fetched_without_code_what_is_not_there_is_422_and_a_hub_that_is_down_503(
    settings: Settings, hub: tuple[ThreadingHTTPServer, list[str]]
) -> None:
    with process(settings, "--no-trainer") as (_, client):
        made = client.register_encoder("bees", hub=REPOSITORY)
        assert (made.version, made.admission) == (1, "probed")
        fetched = set(hub[1])
        assert {"modules.json", "model.safetensors", "1_Pooling/config.json"} <= fetched
        assert not fetched & {"pytorch_model.bin", "modeling.py"}
        manifest = json.loads((settings.artifacts_dir / "bees@1" / "adiabat.json").read_text())
        assert manifest["source"] == f"hub {REPOSITORY}@{COMMIT}"
        again = client.register_encoder("bees", hub=REPOSITORY, revision=COMMIT)
        assert (again.version, again.digest) == (1, made.digest)
        for source in ({"hub": "someone/nothing"}, {"hub": REPOSITORY, "revision": "v9"}):
            with pytest.raises(ApiError, match="could not be fetched") as caught:
                client.register_encoder("bees", **source)
            assert (caught.value.status, caught.value.slug) == (422, "source-refused")
        hub[0].shutdown()
        hub[0].server_close()
        with pytest.raises(ApiError, match="The model hub does not answer") as caught:
            client.register_encoder("bees", hub="someone/else")
        assert (caught.value.status, caught.value.slug) == (503, "unavailable")
        assert client.register_encoder("bees", hub=REPOSITORY).version == 1  # it was fetched before
        assert [item.name for item in client.encoders()] == ["base", "bees"]


def test_what_is_over_the_limit_on_archives_is_refused_before_a_file_is_fetched(
    settings: Settings, hub: tuple[ThreadingHTTPServer, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADIABAT_MAX_ARCHIVE_BYTES", "10000")
    with process(settings, "--no-trainer") as (_, client):
        with pytest.raises(ApiError, match="ADIABAT_MAX_ARCHIVE_BYTES") as caught:
            client.register_encoder("bees", hub=REPOSITORY)
        assert (caught.value.status, caught.value.slug) == (413, "too-large")
    assert hub[1] == []


def test_where_the_hub_is_off_the_setting_is_named(unchanged: Service) -> None:
    with pytest.raises(ApiError, match="ADIABAT_HUB=1") as caught:
        unchanged.client.register_encoder("bees", hub=REPOSITORY)
    assert (caught.value.status, caught.value.slug) == (422, "source-refused")


@pytest.mark.parametrize("name", ["../secrets", "a/b/c", "a b", ""])
def test_a_name_that_no_hub_has_is_422_by_field(unchanged: Service, name: str) -> None:
    with pytest.raises(ApiError, match=r"source\.hub"):
        unchanged.client.register_encoder("bees", hub=name)
