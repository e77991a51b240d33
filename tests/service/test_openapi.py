"""`/openapi.json` is complete, and every example in it is a request that the service takes."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ConfigDict

from app.cli.datasets import zip_folder
from app.passages.disk import copy_tree
from app.registry import NewSearch
from app.settings import Settings
from app.wire.queries import FeedbackCreate
from tests.conftest import Service, running
from tests.registry.test_queries import searched
from tests.service import encoders
from tests.service.archives import packed
from tests.service.hub import repository, running_hub
from tests.service.keys import SERVICE_KEY, holding
from tests.service.test_datasets import QRELS, QUERIES

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
METHODS = {"get", "put", "post", "delete"}
FORM = "multipart/form-data"
FILE = "application/octet-stream"
Example = tuple[str, str, str, Any]


@pytest.fixture(scope="module")
def served(seeded: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that holds what the examples speak of: the samples, their dataset, a folder `models/bees`, a hub."""
    folder = tmp_path_factory.mktemp("examples")
    copy_tree(seeded, folder / "data")
    models = folder / "models"
    models.mkdir()
    encoders.near(tiny, models / "bees")
    settings = Settings(
        data_dir=folder / "data",
        passage_encoder=str(tiny),
        trainer=False,
        source_dirs=(models,),
        threads=1,
        hub=True,
        query_log=1,
        api_key=SERVICE_KEY,  # one of the examples makes a key, from which on all need one
    )
    repositories = {
        "datasets/BeIR/scifact": repository(folder / "scifact", {"queries.jsonl": QUERIES}),
        "datasets/BeIR/scifact-qrels": repository(folder / "scifact-qrels", {"test.tsv": QRELS}),
    }
    with (
        pytest.MonkeyPatch.context() as patched,
        running_hub(repositories, folder / "hub-cache", patched),
        running(settings) as service,
    ):
        lines = (SAMPLES / "corpus.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        service.client.upsert_passages(
            {"id": row["_id"], "text": row["text"], "title": row["title"], "metadata": row["metadata"]} for row in rows
        )
        service.client.put_dataset("beekeeping", zip_folder(SAMPLES, folder / "bees.zip", corpus=False))
        service.parts.registry.queries.add([(asked(FeedbackCreate.model_config), 0.0)])
        yield service


def asked(config: ConfigDict) -> NewSearch:
    """The search that the example of feedback speaks of."""
    extra: Any = config["json_schema_extra"]
    (example,) = extra["examples"]
    clicked = {click["position"]: click["passage_id"] for click in example["clicks"]}
    shown = [clicked.get(position, f"en-{position:03}") for position in range(1, 11)]
    return searched(example["search_id"], shown=shown)


@pytest.fixture(scope="module")
def description(served: Service) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{served.url}/openapi.json", trust_env=False).json()
    return found


def calls(description: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in description["paths"].items():
        for method, call in item.items():
            if method in METHODS:
                yield method, path, call


def schema_of(description: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = description["components"]["schemas"][name] if name else content.get("schema", {})
    return found


def examples(description: dict[str, Any]) -> Iterator[Example]:
    for method, path, call in calls(description):
        for kind, content in call.get("requestBody", {}).get("content", {}).items():
            schema = schema_of(description, content)
            named = [each.get("value", each.get("x-files")) for each in content.get("examples", {}).values()]
            for example in named or schema.get("examples", []):
                if kind == FORM:
                    files = {
                        name for name, field in schema["properties"].items() if field.get("contentMediaType") == FILE
                    }
                    example = {name: (name in files, value) for name, value in example.items()}
                yield method, path, kind, example


def test_every_call_has_a_tag_a_sentence_a_name_and_a_typed_answer(description: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in description["tags"]}
    names = [call["operationId"] for _, _, call in calls(description)]
    assert len(set(names)) == len(names) > 30
    for method, path, call in calls(description):
        assert set(call["tags"]) <= tags, path
        assert call["tags"], path
        assert call.get("description") or call["summary"] != call["operationId"], (method, path)
        assert call["operationId"].isidentifier(), path
        refusals = [answer for status, answer in call["responses"].items() if status >= "400"]
        assert all(set(answer["content"]) == {"application/problem+json"} for answer in refusals), path


def test_every_body_has_an_example(description: dict[str, Any]) -> None:
    for method, path, call in calls(description):
        for kind, content in call.get("requestBody", {}).get("content", {}).items():
            found = content.get("examples") or schema_of(description, content).get("examples")
            assert found, f"{method} {path} {kind}"


def test_every_example_is_taken(served: Service, description: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(served.settings.data_dir.parent)  # `models/bees` is named from here
    sent: list[str] = []
    with holding(served, SERVICE_KEY) as http:
        for method, path, kind, example in sorted(examples(description), key=_order):
            path = path.replace("{name}", "beekeeping-example").replace("{job_id}", "none")
            answer = http.request(method.upper(), path, **body_of(kind, example))
            assert answer.is_success, (method, path, kind, example, answer.text)
            sent.append(kind)
    assert len(sent) >= 12
    assert {"application/json", "application/x-ndjson", "application/zip", FORM} <= set(sent)


def body_of(kind: str, example: Any) -> dict[str, Any]:
    """What httpx is to send. A file of a form is named `FOLDER.tar.gz` and packed from `models/FOLDER`."""
    if kind == FORM:
        said = {name: value for name, (is_file, value) in example.items() if not is_file}
        return {
            "data": {name: value if isinstance(value, str) else json.dumps(value) for name, value in said.items()},
            "files": {
                name: (value, packed(Path("models") / value.removesuffix(".tar.gz"), "tar.gz"))
                for name, (is_file, value) in example.items()
                if is_file
            },
        }
    if kind == "application/zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, text in example.items():
                archive.writestr(name, text)
        return {"content": buffer.getvalue(), "headers": {"Content-Type": kind}}
    text = example if isinstance(example, str) else json.dumps(example)
    return {"content": text.encode(), "headers": {"Content-Type": kind}}


def _order(example: Example) -> bool:
    """What deletes comes last."""
    return "delete" in example[1]


def test_every_call_takes_the_parameters_that_the_description_names(unchanged: Service) -> None:
    with httpx.Client(base_url=unchanged.url, trust_env=False, timeout=60) as asked:
        described = asked.get("/openapi.json").json()["paths"]
        for path, method in ((path, method) for path, calls in described.items() for method in calls):
            parameters = described[path][method].get("parameters", [])
            named = sorted(each["name"] for each in parameters if each["in"] == "query")
            refused = asked.request(method, path.replace("{", "").replace("}", ""), params={"nonsense": 1}).json()
            takes = f"what is taken: {', '.join(named)}" if named else "it takes none in its address"
            assert refused["detail"] == f"nonsense: is no parameter of this call; {takes}", (method, path)
