"""What the console adds to the service, without a browser: pages, files, the session, who may write."""

import io
import json
import re
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.api import session
from app.passages.disk import copy_tree
from app.recipe import Gate, Recipe
from app.settings import Settings
from tests.conftest import Service, running
from tests.service import encoders

KEY = "correct horse battery"
SECRET = b"of this service"
SAMPLES = Path(__file__).resolve().parents[2] / "samples"
PAGES = (
    "/",
    "/console/encoders",
    "/console/encoders/base@1",
    "/console/tuning",
    "/console/tuning/none",
    "/console/evaluations",
    "/console/evaluations/none",
    "/console/judgments",
    "/console/data",
    "/console/operations",
)


@pytest.fixture(scope="module")
def http(unchanged: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=unchanged.url, trust_env=False) as client:
        yield client


@pytest.fixture
def own(service: Service) -> Iterator[httpx.Client]:
    """To a service of the test's own, which it may change."""
    with httpx.Client(base_url=service.url, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def with_key(seeded: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("console") / "data"
    copy_tree(seeded, folder)
    settings = Settings(data_dir=folder, passage_encoder=str(tiny), trainer=False, threads=1, api_key=KEY)
    with running(settings) as service:
        yield service


@pytest.fixture
def locked(with_key: Service) -> Iterator[httpx.Client]:
    """A browser of nobody's, over a service that has a key."""
    with httpx.Client(base_url=with_key.url, trust_env=False) as client:
        yield client


def signed_in(client: httpx.Client) -> str:
    """The page's token; the client has the cookie from here on."""
    answer = client.post("/console/login", data={"key": KEY})
    assert answer.status_code == 303
    found = re.search(r'name="adiabat-token" content="([0-9a-f]{64})"', client.get("/").text)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("path", PAGES)
def test_every_page_forbids_what_is_not_of_this_service(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|\sstyle=|https?://", answer.text)


def test_files_are_kept_for_ever_under_a_name_of_their_content(http: httpx.Client) -> None:
    named = re.findall(r'"(/console/static/[^"]+)"', http.get("/").text)
    assert len(named) >= 4
    for name in named:
        answer = http.get(name)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    old = re.sub("/static/[0-9a-f]+/", "/static/0123456789ab/", named[0])
    assert http.get(old).headers["cache-control"] == "no-store"
    assert http.get("/console/static/x/nothing.js").status_code == 404
    assert http.get("/console/static/x/..%2Fpages.py").status_code == 404


def test_scripts_name_only_scripts_that_there_are(http: httpx.Client) -> None:
    folder = re.search(r"/console/static/[0-9a-f]+/", http.get("/").text)
    assert folder is not None
    waiting, seen = {"search.js", "encoder.js", "job.js", "data.js", "operations.js", "evaluation.js"}, set[str]()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        answer = http.get(folder[0] + name)
        assert answer.status_code == 200, name
        waiting |= set(re.findall(r'(?:from|import\()\s*"\./([^"]+)"', answer.text)) - seen
    assert {"api.js", "charts.js", "dom.js"} <= seen


def test_the_form_has_every_field_of_recipe_and_gate_with_its_reason(http: httpx.Client) -> None:
    page = http.get("/console/tuning").text
    for group, model in (("recipe", Recipe), ("gate", Gate)):
        for name, field in model.model_fields.items():
            assert f'name="{group}.{name}"' in page
            assert field.description is not None
            assert field.description.split("'")[0][:40].replace("&", "&amp;") in page


def test_what_an_address_holds_is_text_on_the_page(http: httpx.Client) -> None:
    page = http.get("/console/encoders/%3Cscript%3Ealert(1)%3C%2Fscript%3E".replace("%2F", "")).text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_the_samples_are_those_of_the_project(own: httpx.Client) -> None:
    assert own.get("/console/samples/corpus.jsonl").content == (SAMPLES / "corpus.jsonl").read_bytes()
    packed = zipfile.ZipFile(io.BytesIO(own.get("/console/samples/beekeeping.zip").content))
    assert packed.read("queries.jsonl") == (SAMPLES / "queries.jsonl").read_bytes()
    assert len([name for name in packed.namelist() if name.startswith("qrels/")]) == 7
    kind = {"content-type": "application/zip"}
    answer = own.put("/datasets/beekeeping", content=own.get("/console/samples/beekeeping.zip").content, headers=kind)
    assert answer.json()["queries"] == 1676


def test_an_encoder_without_a_card_has_no_pictures(http: httpx.Client) -> None:
    assert http.get("/console/cards/base@1").json() == {"pictures": []}
    assert http.get("/console/cards/base@1/card/loss.png").status_code == 404
    assert http.get("/console/cards/base@1/adiabat.json").status_code == 404
    assert http.get("/console/cards/nobody@1").json()["type"] == "urn:adiabat:problem:encoder-not-found"


def test_pictures_of_a_card_are_handed_out(service: Service, own: httpx.Client) -> None:
    folder = service.settings.artifacts_dir / "base@1" / "card"
    folder.mkdir()
    (folder / "loss.png").write_bytes(b"\x89PNG")
    (folder / "notes.html").write_text("<script>")
    assert own.get("/console/cards/base@1").json() == {"pictures": ["card/loss.png"]}
    answer = own.get("/console/cards/base@1/card/loss.png")
    assert (answer.content, answer.headers["content-type"]) == (b"\x89PNG", "image/png")


def test_without_a_key_nobody_signs_in(http: httpx.Client) -> None:
    assert http.get("/console/login").headers["location"] == "/"
    assert http.post("/console/login", data={"key": "x"}).headers["location"] == "/"
    assert 'content=""' in http.get("/").text


def test_pages_lead_to_the_way_in_and_from_there_only_to_pages(locked: httpx.Client) -> None:
    answer = locked.get("/console/tuning?new=1")
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        "/console/login?next=%2Fconsole%2Ftuning%3Fnew%3D1",
    )
    assert "<h1>Sign in</h1>" in locked.get(answer.headers["location"]).text
    for evil in ("//evil.example", "https://evil.example", "/\\evil.example", "javascript:x", "/\n/evil.example"):
        assert locked.post("/console/login", data={"key": KEY, "next": evil}).headers["location"] == "/"


def test_a_wrong_key_opens_nothing(locked: httpx.Client) -> None:
    answer = locked.post("/console/login", data={"key": "wrong horse"})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_the_cookie_alone_reads_and_writes_nothing(locked: httpx.Client) -> None:
    token = signed_in(locked)
    assert locked.get("/encoders").status_code == 200
    assert locked.get("/console/cards/base@1").status_code == 200
    for wrong in (b"", token[:-1].encode() + b"x", "é".encode()):
        assert locked.post("/search", json={"query": "x"}, headers={b"X-Adiabat-Token": wrong}).status_code == 401
    assert locked.post("/search", json={"query": "x"}).status_code == 401
    with_token = {"X-Adiabat-Token": token}
    assert locked.post("/search", json={"query": "x"}, headers=with_token).status_code == 200
    form = locked.post("/active-encoder/rollback", data={"X-Adiabat-Token": token})
    assert form.status_code == 401


def test_the_token_is_nothing_without_its_cookie(locked: httpx.Client) -> None:
    token = signed_in(locked)
    locked.cookies.clear()
    assert locked.post("/search", json={"query": "x"}, headers={"X-Adiabat-Token": token}).status_code == 401
    assert locked.get("/console/cards/base@1").status_code == 401


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_origins_page_neither_reads_by_cookie_nor_writes(locked: httpx.Client, site: str) -> None:
    token = signed_in(locked)
    foreign = {"Sec-Fetch-Site": site, "X-Adiabat-Token": token}
    assert locked.get("/encoders", headers=foreign).status_code == 401
    refused = locked.post("/search", json={"query": "x"}, headers=foreign)
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:adiabat:problem:cross-site")
    own = {"Sec-Fetch-Site": "same-origin", "X-Adiabat-Token": token}
    assert locked.post("/search", json={"query": "x"}, headers=own).status_code == 200


def test_a_program_with_the_key_is_served_as_ever(locked: httpx.Client) -> None:
    assert locked.get("/encoders").status_code == 401
    assert locked.get("/encoders", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200


def test_a_session_ends_with_its_time_and_with_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = session.open_session(SECRET, "3f0c")
    assert session.key_of(SECRET, opened) == "3f0c"
    assert session.key_of(SECRET, session.open_session(SECRET, "")) == ""
    assert session.key_of(b"another", opened) is None
    assert session.key_of(SECRET, opened.replace(opened[:4], "9999", 1)) is None  # a later end
    assert session.key_of(SECRET, opened.replace(".3f0c.", "..", 1)) is None  # another key
    for torn in ("", ".", "..", "...", "x", opened.rpartition(".")[0], f"é.{opened}"):
        assert session.key_of(SECRET, torn) is None
    later = time.time() + session.LASTS_S + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert session.key_of(SECRET, opened) is None


def test_signing_out_takes_the_cookie_away(locked: httpx.Client) -> None:
    signed_in(locked)
    locked.post("/console/logout")
    assert locked.get("/").status_code == 303


def test_long_lists_come_in_parts_and_briefly(service: Service, own: httpx.Client, tiny: Path, sources: Path) -> None:
    for seed in (1, 2, 3):
        encoders.near(tiny, sources / f"e{seed}", seed=seed)
        service.client.register_encoder(f"e{seed}", path=f"e{seed}", force=True)
    names = [each["name"] for each in own.get("/encoders").json()["encoders"]]
    assert names == ["base", "e1", "e2", "e3"]
    part = own.get("/encoders?limit=2&offset=1&brief=true").json()["encoders"]
    assert [each["name"] for each in part] == ["e1", "e2"]
    assert part[0]["checks"] == []
    assert own.get("/encoders?offset=9").json() == {"encoders": []}
    assert own.get("/encoders?limit=0").status_code == 422


def test_encoders_are_found_by_a_part_of_their_key(
    service: Service, own: httpx.Client, sources: Path, tiny: Path
) -> None:
    for seed, name in enumerate(("a_b", "acb", "acb"), start=1):
        encoders.near(tiny, sources / f"{name}{seed}", seed=seed)
        service.client.register_encoder(name, path=f"{name}{seed}", force=True)

    def found(part: str) -> list[str]:
        return [
            f"{each['name']}@{each['version']}" for each in own.get(f"/encoders?contains={part}").json()["encoders"]
        ]

    assert found("CB") == ["acb@1", "acb@2"]
    assert found("b@1") == ["a_b@1", "acb@1"]
    assert found("a_b") == ["a_b@1"]  # no pattern: it is that letter
    assert found("nothing") == []
    assert [each["name"] for each in own.get("/encoders?contains=b@&limit=1&offset=1").json()["encoders"]] == ["acb"]
    assert own.get("/encoders?contains=%25").status_code == own.get("/encoders?contains=").status_code == 422


def test_jobs_and_evaluations_come_in_parts(service: Service, own: httpx.Client, tmp_path: Path) -> None:
    lines = [{"query": "why", "split": split, "relevant": ["p1"]} for split in ("train", "dev", "test")]
    file = tmp_path / "d.ndjson"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    service.client.upsert_passages([{"id": "p1", "text": "because"}])
    service.client.put_dataset("d", file)
    for name in ("one", "two", "three"):
        service.client.create_tuning_job(name, "d")
        service.client.create_evaluation(["d"])
    jobs = own.get("/tuning-jobs?limit=2&brief=true").json()["tuning_jobs"]
    assert [job["name"] for job in jobs] == ["three", "two"]
    assert [job["name"] for job in own.get("/tuning-jobs?offset=2").json()["tuning_jobs"]] == ["one"]
    assert len(own.get("/evaluations?limit=2&offset=2").json()["evaluations"]) == 1
