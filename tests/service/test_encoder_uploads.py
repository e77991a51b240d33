"""`POST /encoders` with an archive: every form, every refusal, and nothing left behind."""

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from tests.conftest import Service, running
from tests.service import encoders
from tests.service.archives import FORMATS, leftovers, packed, upload
from tests.tiny import build_tiny


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("top", ["", "my-model"])
def test_an_archive_is_the_encoder_that_its_folder_is(
    service: Service, tiny: Path, sources: Path, form: str, top: str
) -> None:
    folder = encoders.near(tiny, sources / "bees")
    answer = upload(service, packed(folder, form, top))
    assert answer.status_code == 201
    assert answer.headers["location"] == "/encoders/bees@1"
    assert leftovers(service) == {"base@1", "bees@1"}
    again = service.client.register_encoder("bees", path=str(folder))
    assert (again.version, again.digest) == (1, answer.json()["digest"])


def test_the_fields_of_the_form_are_kept_and_the_encoder_serves(service: Service, tiny: Path, tmp_path: Path) -> None:
    content = packed(encoders.near(tiny, tmp_path / "bees"))
    answer = upload(service, content, description="of 2026", labels='{"domain": "bees"}', force="false")
    assert (answer.json()["description"], answer.json()["labels"]) == ("of 2026", {"domain": "bees"})
    service.client.activate("bees")
    assert service.client.search("water").encoder.name == "bees"


def test_the_checks_are_those_for_folders(service: Service, tmp_path: Path) -> None:
    stranger = packed(build_tiny(tmp_path / "stranger", seed=5))
    refused = upload(service, stranger)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:adiabat:problem:encoder-refused")
    assert leftovers(service) == {"base@1"}
    assert upload(service, stranger, force="true").json()["admission"] == "forced"


@pytest.mark.parametrize(
    ("breakage", "slug", "word"),
    [
        (encoders.with_nan, "encoder-broken", "NaN"),
        (encoders.truncated, "encoder-broken", "model.safetensors"),
        (encoders.pickled, "source-refused", "pickle"),
        (encoders.with_remote_code, "source-refused", "evil"),
    ],
)
def test_broken_and_unsafe_content_is_refused_even_by_force(
    unchanged: Service, tiny: Path, tmp_path: Path, breakage: Callable[[Path, Path], Path], slug: str, word: str
) -> None:
    refused = upload(unchanged, packed(breakage(tiny, tmp_path / "broken"), "zip"), force="true")
    assert refused.json()["type"] == f"urn:adiabat:problem:{slug}"
    assert word in refused.json()["detail"]
    assert leftovers(unchanged) == {"base@1"}
    assert [item.name for item in unchanged.client.encoders()] == ["base"]


def test_an_unsafe_or_damaged_archive_is_refused_and_nothing_is_left(
    unchanged: Service, tiny: Path, tmp_path: Path
) -> None:
    whole = packed(tiny, "tar.gz")
    for content, word in ((b"", "cannot be read"), (whole[: len(whole) // 2], "cannot be read"), (b"x" * 99, "zip")):
        refused = upload(unchanged, content)
        assert (refused.status_code, refused.json()["type"]) == (422, "urn:adiabat:problem:source-refused")
        assert word in refused.json()["detail"]
    outside = packed(encoders.near(tiny, tmp_path / "bees"), "zip", top="../escaped")
    assert "outside" in upload(unchanged, outside).json()["detail"]
    assert leftovers(unchanged) == {"base@1"}
    assert list(unchanged.settings.data_dir.parent.rglob("escaped")) == []


def test_an_archive_over_the_limit_is_413_packed_or_unpacked(settings: Settings, tiny: Path) -> None:
    content = packed(tiny, "zip")
    with running(settings.model_copy(update={"max_archive_bytes": len(content) + 2_000})) as small:
        unpacked = upload(small, content)
        assert (unpacked.status_code, unpacked.json()["type"]) == (413, "urn:adiabat:problem:too-large")
        assert "unpacks to" in unpacked.json()["detail"]
        assert upload(small, packed(tiny) * 2).status_code == 413
        assert leftovers(small) == {"base@1"}


def test_an_archive_may_be_larger_than_json_and_json_may_not(settings: Settings, tiny: Path) -> None:
    with running(settings.model_copy(update={"max_body_bytes": 10_000})) as small:
        assert upload(small, packed(tiny)).status_code == 201
        body = {"name": "x", "source": {"job": "y"}, "description": "z" * 10_000}
        assert httpx.post(f"{small.url}/encoders", json=body, trust_env=False).status_code == 413


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"name": "Bees"}, "name"),
        ({"name": "base"}, "means the passage encoder"),
        ({"labels": "{"}, "labels: is not JSON"),
        ({"labels": "[]"}, "labels"),
        ({"force": "perhaps"}, "force"),
        ({"colour": "red"}, "colour"),
        ({"description": ["a", "b"]}, "description: is there twice"),
        ({"description": "x" * 100_000}, "exceeded maximum size"),
    ],
)
def test_a_bad_field_is_422_by_name(unchanged: Service, fields: dict[str, str], word: str) -> None:
    refused = upload(unchanged, b"never looked at", **fields)
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    assert word in refused.json()["detail"]


def test_a_form_without_an_archive_and_other_bodies_are_refused_with_a_sentence(unchanged: Service) -> None:
    def sent(content: bytes, kind: str) -> tuple[int, str]:
        answer = httpx.post(
            f"{unchanged.url}/encoders", content=content, headers={"Content-Type": kind}, trust_env=False
        )
        return answer.status_code, str(answer.json()["detail"])

    form = b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nbees\r\n--b--\r\n'
    assert sent(form, "multipart/form-data; boundary=b") == (
        422,
        "archive: is missing; send the archive as a file of this form field.",
    )
    for content, kind, word in (
        (form, "multipart/form-data", "boundary"),
        (b"--b\r\nrubbish", "multipart/form-data; boundary=b", "form"),
        (b"name=bees", "application/x-www-form-urlencoded", "application/json"),
        (b'{"name": "bees", "source": {"job": "x"}}', "text/plain", "application/json"),
        (b'{"name": "bees"', "application/json", "JSON"),
        (b'{"name": "bees", "source": {}}', "application/json", "one of 'path'"),
        (
            json.dumps({"name": "bees", "source": {"path": "/x", "revision": "main"}}).encode(),
            "application/json",
            "hub",
        ),
    ):
        status, detail = sent(content, kind)
        assert (status, word in detail) == (422, True), (content, detail)


def test_a_relative_path_is_found_below_the_allowed_folders(service: Service, tiny: Path, sources: Path) -> None:
    encoders.near(tiny, sources / "bees")
    assert service.client.register_encoder("bees", path="bees").version == 1
