"""What plain sentence-transformers and qdrant-client made: what is taken over, and what is refused and how."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet as pq
from qdrant_client import QdrantClient, models

from app.encoders.overlay import EncoderFiles
from app.encoders.spec import read_spec
from app.errors import (
    AdiabatError,
    BadInput,
    DataDirLocked,
    EncoderRefused,
    IndexSpaceMismatch,
    NotFound,
    Unauthorized,
    Unavailable,
)
from app.passages import Point
from app.settings import Settings
from app.takeover import Limits
from app.takeover.bringing import Brought, Examined, bring, examine, verify
from app.takeover.elasticsearch import ElasticsearchSource
from app.takeover.encoder import Named, asking, named_encoder
from app.takeover.files import beir_source, parquet_source
from app.takeover.probe import interval, ranks
from app.takeover.qdrant import QdrantSource
from app.takeover.source import BadPoint, Fields, Source
from tests.conftest import free_port, running, wait_until
from tests.takeover.conftest import encode, fill, text_of
from tests.tiny import build_tiny

COUNT = 300
PROMPT = "passage: "  # the tiny encoder's own


def take(
    settings: Settings,
    source: Source,
    fields: Fields | None = None,
    *,
    bad: list[str] | None = None,
    copied: Callable[[int], None] = lambda _: None,
    **limits: float,
) -> tuple[Examined, Brought]:
    def on_bad(error: BadPoint) -> None:
        if bad is None:
            raise error
        bad.append(str(error))

    fields = fields or Fields()
    with asking(named_encoder(settings), settings) as asked:
        examined = examine(source, fields, asked, settings, Limits(samples=60, **limits))
        return examined, bring(source, fields, asked, examined, settings, on_bad=on_bad, copied=copied)


def refusal(settings: Settings, source: Source, fields: Fields | None = None, **limits: float) -> str:
    with pytest.raises(AdiabatError) as refused:
        take(settings, source, fields, **limits)
    return refused.value.detail


@pytest.fixture(scope="session")
def texts() -> list[str]:
    return [text_of(number) for number in range(COUNT)]


@pytest.fixture(scope="session")
def theirs(tiny: Path, texts: list[str]) -> Any:
    """(COUNT, 32), as whoever knows the prompt made them."""
    return encode(tiny, texts, PROMPT)


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Any:
    """Of another model with as many dimensions."""
    return encode(build_tiny(tmp_path_factory.mktemp("foreign") / "model", seed=9), texts)


def test_what_was_taken_over_is_served_as_it_was_found_and_nothing_is_embedded_again(
    settings: Settings, local: QdrantClient, texts: list[str], theirs: Any
) -> None:
    payloads = [{"text": text, "lang": "en", "n": n} for n, text in enumerate(texts)]
    name = fill(local, theirs, payloads)
    examined, brought = take(settings, QdrantSource(local, name))
    assert (examined.finding.equal, examined.finding.sampled) == (60, 60)
    assert examined.finding.lowest > 0.99999
    assert (brought.written, brought.unchanged, brought.bad, brought.there) == (COUNT, 0, 0, COUNT)
    with running(settings) as service:
        ours = service.client.search("the pump in the night", limit=20, exact=True, with_query_vector=True)
        them = local.query_points(name, ours.query_vector, limit=20).points
        assert [hit.id for hit in ours.hits] == [str(point.id) for point in them]
        assert np.allclose([hit.score for hit in ours.hits], [point.score for point in them], atol=1e-5)
        assert service.client.passage("17").metadata == {"lang": "en", "n": 17}
        again = [{"id": str(n), "text": text, "metadata": {"lang": "en", "n": n}} for n, text in enumerate(texts)]
        done = service.client.upsert_passages(again)
        assert (done.embedded, done.metadata_updated, done.unchanged) == (0, 0, COUNT)
        with pytest.raises(DataDirLocked):
            take(settings, QdrantSource(local, name))


def test_vectors_of_another_model_are_refused_with_the_figures_and_nothing_is_written(
    settings: Settings, local: QdrantClient, texts: list[str], foreign: Any, tiny: Path
) -> None:
    source = QdrantSource(local, fill(local, foreign, [{"text": text} for text in texts]))
    said = refusal(settings, source)
    assert f"{tiny} did not make the vectors of the collection" in said
    assert "0 of 60 sampled passages" in said
    assert "between 0.0% and 6.0% of all, with 95% confidence" in said
    assert "--encoder" in said
    with running(settings) as service:
        assert service.client.count_passages() == 0
    smaller = QdrantSource(local, fill(local, foreign[:, :16], [{"text": text} for text in texts]))
    assert "16 dimensions" in refusal(settings, smaller)


def test_nothing_is_written_where_the_base_is_another_than_was_asked(
    settings: Settings, local: QdrantClient, texts: list[str], foreign: Any, tmp_path: Path
) -> None:
    """As where the base lies in a bucket, and this machine has not seen it yet."""
    with running(settings):  # its first start makes the base
        pass
    files = EncoderFiles(build_tiny(tmp_path / "other", seed=9))
    other = Named(said="other", files=files, spec=read_spec(files))
    source = QdrantSource(local, fill(local, foreign, [{"text": text} for text in texts]))
    with asking(other, settings) as asked:
        examined = examine(source, Fields(), asked, settings, Limits(samples=60))
        assert examined.finding.equal == 60
        with pytest.raises(IndexSpaceMismatch, match=r"compared with other .* and the base of these services is"):
            bring(source, Fields(), asked, examined, settings, on_bad=lambda _: None, copied=lambda _: None)
    with running(settings) as service:
        assert service.client.count_passages() == 0


def test_two_encoders_in_one_collection_are_told_by_range_of_ids(
    settings: Settings, local: QdrantClient, texts: list[str], theirs: Any, foreign: Any
) -> None:
    mixed = np.concatenate([theirs[:200], foreign[200:260], theirs[260:]])
    source = QdrantSource(local, fill(local, mixed, [{"text": text} for text in texts]))
    with pytest.raises(EncoderRefused) as refused:
        take(settings, source)
    said = refused.value.detail
    assert "holds vectors that" in said
    assert "48 of 60 sampled" in said
    words = said.split("The others lie, by id, at ")[1].split()
    assert 200 <= int(words[0]) < 205
    assert 255 <= int(words[2]) < 260
    assert "(12 samples, mean cosine" in said
    examined, brought = take(settings, source, max_different=0.2)
    assert examined.finding.different[0].samples == 12
    assert brought.there == COUNT


def test_what_is_often_forgotten_is_named(
    settings: Settings, local: QdrantClient, texts: list[str], tiny: Path
) -> None:
    payloads = [{"text": text, "title": f"title {n}"} for n, text in enumerate(texts)]
    bare = QdrantSource(local, fill(local, encode(tiny, texts), payloads))
    assert "equal with --passage-prompt ''" in refusal(settings, bare)
    untitled = QdrantSource(local, fill(local, encode(tiny, texts, PROMPT), payloads))
    assert "leave out --title-field" in refusal(settings, untitled, Fields(title="title"))
    joined = [f"title {n} {text}" for n, text in enumerate(texts)]
    titled = QdrantSource(local, fill(local, encode(tiny, joined, PROMPT), payloads))
    assert "equal with --title-field title" in refusal(settings, titled)
    assert "equal with --text-field text" in refusal(settings, untitled, Fields(text="title"))
    long = [text + " water" * (60 if n % 2 else 0) for n, text in enumerate(texts)]
    short = QdrantSource(local, fill(local, encode(tiny, long, PROMPT, 40), [{"text": text} for text in long]))
    assert "with another maximum length" in refusal(settings, short)
    noise = np.random.default_rng(0).standard_normal((COUNT, 32)) * 0.02
    near = QdrantSource(local, fill(local, encode(tiny, texts, PROMPT) + noise, [{"text": text} for text in texts]))
    assert "a lower --min-cosine" in refusal(settings, near)
    assert take(settings, near, min_cosine=0.97)[0].finding.equal == 60
    with pytest.raises(IndexSpaceMismatch, match="--data-dir"):
        take(settings.model_copy(update={"passage_prompt": ""}), bare)


def test_a_run_that_broke_goes_on_and_a_later_one_brings_what_is_new(
    settings: Settings, local: QdrantClient, texts: list[str], theirs: Any
) -> None:
    name = fill(local, theirs[:280], [{"text": text} for text in texts[:280]])

    def breaks(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take(settings, QdrantSource(local, name), copied=breaks)
    _, brought = take(settings, QdrantSource(local, name))
    assert (brought.written, brought.unchanged) == (24, 256)
    new = [
        models.PointStruct(id=n, vector=theirs[n].tolist(), payload={"text": texts[n], "new": True})
        for n in (5, *range(280, COUNT))
    ]
    local.upsert(name, new)
    _, brought = take(settings, QdrantSource(local, name))
    assert (brought.written, brought.unchanged, brought.there) == (21, 279, COUNT)


def test_points_that_make_no_passage_stop_it_or_are_told(
    settings: Settings, local: QdrantClient, texts: list[str], theirs: Any
) -> None:
    payloads: list[dict[str, Any]] = [{"page": {"text": text, "id": f"p{n}"}} for n, text in enumerate(texts)]
    payloads[3] = {"page": {"id": "p3"}}
    payloads[4]["page"]["id"] = "p5"
    payloads[6]["page"]["text"] = "water " * 10_000
    vectors = theirs.copy()
    vectors[8] = 0
    source = QdrantSource(local, fill(local, vectors, payloads, distance=models.Distance.DOT))
    said = refusal(settings, source)
    assert "a text in 'text'" in said
    assert "'page.id', 'page.text'" in said
    fields = Fields(text="page.text", id="page.id")
    bad: list[str] = []
    with asking(named_encoder(settings), settings) as asked:
        examined = examine(source, fields, asked, settings, Limits(samples=50, max_different=0.02))
        brought = bring(source, fields, asked, examined, settings, on_bad=lambda e: bad.append(str(e)), copied=print)
    assert (brought.bad, brought.there) == (4, COUNT - 4)
    assert [said.split(":")[0].split(" has ")[0] for said in bad] == ["point 3", "point 5", "point 6", "point 8"]
    assert "the id 'p5'" in bad[1]


def test_what_has_no_one_dense_vector_or_another_order_is_refused(
    settings: Settings, local: QdrantClient, texts: list[str], theirs: Any
) -> None:
    params = models.VectorParams(size=32, distance=models.Distance.COSINE)
    local.create_collection("two", vectors_config={"a": params, "b": params})
    with pytest.raises(BadInput, match="'a', 'b'; say which with --vector-name"):
        QdrantSource(local, "two")
    with pytest.raises(BadInput, match="no vector 'c'"):
        QdrantSource(local, "two", "c")
    late = params.model_copy(
        update={"multivector_config": models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)}
    )
    local.create_collection("late", vectors_config={"late": late})
    with pytest.raises(BadInput, match="late interaction"):
        QdrantSource(local, "late")
    with pytest.raises(NotFound, match="there are: 'late', 'two'"):
        QdrantSource(local, "none")
    assert "nothing in the collection 'two'" in refusal(settings, QdrantSource(local, "two", "a"))
    payloads = [{"text": text} for text in texts]
    scaled = QdrantSource(local, fill(local, 3 * theirs, payloads, distance=models.Distance.DOT))
    assert "is not searched by cosine" in refusal(settings, scaled)


def test_a_named_vector_beside_others_and_uuids_as_ids(
    settings: Settings, local: QdrantClient, texts: list[str], theirs: Any, foreign: Any
) -> None:
    params = models.VectorParams(size=32, distance=models.Distance.COSINE)
    local.create_collection("both", vectors_config={"a": params, "b": params})
    ids = [f"00000000-0000-4000-8000-{n:012d}" for n in range(100)]
    points = [
        models.PointStruct(id=ids[n], vector={"a": foreign[n].tolist(), "b": theirs[n].tolist()}, payload={"text": t})
        for n, t in enumerate(texts[:100])
    ]
    local.upsert("both", points)
    assert "0 of 60" in refusal(settings, QdrantSource(local, "both", "a"))
    _, brought = take(settings, QdrantSource(local, "both", "b"))
    assert brought.there == 100
    with running(settings) as service:
        assert service.client.passage(ids[42]).text == texts[42]


def test_beside_itself_on_the_same_server_and_not_over_itself(
    settings: Settings, qdrant: str, texts: list[str], theirs: Any
) -> None:
    server = QdrantClient(url=qdrant, check_compatibility=False)
    name = fill(server, theirs, [{"text": text} for text in texts])
    beside = settings.model_copy(update={"qdrant_url": qdrant, "collection": f"{name}_taken"})
    _, brought = take(beside, QdrantSource(server, name))
    assert (brought.written, brought.there) == (COUNT, COUNT)
    with running(beside) as service:
        assert service.client.passage("7").text == texts[7]
    over = settings.model_copy(update={"qdrant_url": qdrant, "collection": name})
    assert "Name another collection (ADIABAT_COLLECTION)" in refusal(over, QdrantSource(server, name))
    assert server.count(name).count == COUNT
    server.close()


def test_a_corpus_in_beir_shape_with_its_vectors(
    settings: Settings, tiny: Path, texts: list[str], tmp_path: Path
) -> None:
    lines = [
        f'{{"_id": "d{n}", "title": "title {n}", "text": "{text}", "metadata": {{"n": {n}}}}}\n'
        for n, text in enumerate(texts)
    ]
    (tmp_path / "corpus.jsonl").write_text("".join(lines))
    vectors = encode(tiny, [f"title {n} {text}" for n, text in enumerate(texts)], PROMPT)
    np.save(tmp_path / "v.npy", vectors)
    np.save(tmp_path / "short.npy", vectors[:-1])
    with pytest.raises(BadInput, match="299 rows"):
        beir_source(tmp_path, tmp_path / "short.npy")
    with pytest.raises(BadInput, match="cannot be read as an array"):
        beir_source(tmp_path, tmp_path / "corpus.jsonl")
    fields = Fields(title="title", id="_id", metadata="metadata")
    _, brought = take(settings, beir_source(tmp_path, tmp_path / "v.npy"), fields)
    assert brought.there == COUNT
    with running(settings) as service:
        found = service.client.passage("d7")
        assert (found.title, found.text, found.metadata) == ("title 7", texts[7], {"n": 7})


def test_parquet_with_a_column_of_vectors(settings: Settings, texts: list[str], theirs: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "theirs.parquet")
    columns = {
        "docid": list(range(COUNT)),
        "body": texts,
        "lang": ["en"] * COUNT,
        "emb": [None, *theirs[1:].tolist()],
    }
    pq.write_table(pyarrow.table(columns), path)
    with pytest.raises(BadInput, match="no column 'vector'"):
        parquet_source(path, [path], "vector")
    with pytest.raises(BadInput, match="holds int64; lists of numbers"):
        parquet_source(path, [path], "docid")
    bad: list[str] = []
    _, brought = take(settings, parquet_source(path, [path], "emb"), Fields(text="body", id="docid"), bad=bad)
    assert (brought.there, bad) == (COUNT - 1, ["point theirs.parquet row 1 has no vector"])
    with running(settings) as service:
        assert service.client.passage("7").metadata == {"lang": "en"}


@pytest.fixture
def elastic(texts: list[str], theirs: Any, foreign: Any, tmp_path: Path) -> Iterator[str]:
    vector = {"type": "dense_vector", "dims": 32, "similarity": "cosine"}
    documents = [
        [f"e{n}", {"body": text, "n": n, "good": theirs[n].tolist(), "bad": foreign[n].tolist()}]
        for n, text in enumerate(texts)
    ]
    properties = {"body": {"type": "text"}, "n": {"type": "long"}, "good": vector, "bad": vector}
    tiny_index = {"mappings": {"properties": {"v": vector | {"element_type": "byte"}}}, "documents": []}
    file = tmp_path / "indexes.json"
    file.write_text(
        json.dumps({"docs": {"mappings": {"properties": properties}, "documents": documents}, "tiny": tiny_index})
    )
    port = free_port()
    child = subprocess.Popen([sys.executable, "-m", "tests.takeover.elasticsearch_rest", str(port), str(file)])
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: _answers(url))
    yield url
    child.kill()
    child.wait()


def test_an_index_of_elasticsearch_by_a_stand_in_for_its_routes(
    settings: Settings, elastic: str, texts: list[str]
) -> None:
    fields = Fields(text="body")
    bad = ElasticsearchSource(elastic, "docs", "bad", "secret")
    assert "0 of 60" in refusal(settings, bad, fields)
    bad.close()
    source = ElasticsearchSource(elastic, "docs", "good", "secret")
    assert [found.at for found in source.sample([0, 150, 299])] == ["e0", "e150", "e299"]
    _, brought = take(settings, source, fields)
    assert (brought.written, brought.there) == (COUNT, COUNT)
    assert httpx.get(f"{elastic}/_pit/open", headers={"Authorization": "ApiKey secret"}, trust_env=False).json() == {
        "open": 0
    }
    source.close()
    with running(settings) as service:
        found = service.client.passage("e7")
        assert (found.text, found.metadata) == (texts[7], {"n": 7})
    for index, vector, key, kind, word in (
        ("docs", None, "secret", BadInput, "'good', 'bad'; say which with --vector-field"),
        ("docs", "body", "secret", BadInput, "no field of dense vectors 'body'"),
        ("tiny", None, "secret", BadInput, "vectors of byte"),
        ("nobody", None, "secret", NotFound, "no index 'nobody'"),
        ("docs", None, None, Unauthorized, "--from-api-key"),
    ):
        with pytest.raises(kind, match=word):
            ElasticsearchSource(elastic, index, vector, key)
    with pytest.raises(Unavailable, match="does not answer"):
        ElasticsearchSource("http://127.0.0.1:9", "docs")


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/docs/_count", trust_env=False).status_code == 401
    except httpx.TransportError:
        return False


def test_what_does_not_lie_in_the_store_as_it_was_sent_is_told(
    settings: Settings, local: QdrantClient, texts: list[str], theirs: Any, foreign: Any
) -> None:
    source = QdrantSource(local, fill(local, theirs, [{"text": text} for text in texts]))
    with asking(named_encoder(settings), settings) as asked:
        examined = examine(source, Fields(), asked, settings, Limits())
    passage, vector = examined.passages[3]
    with running(settings) as service:
        store = service.parts.store
        store.upsert([Point(passage=p, content_hash="", vector=v) for p, v in examined.passages])
        verify(store, examined)
        store.upsert([Point(passage=passage, content_hash="", vector=foreign[3])])
        with pytest.raises(Unavailable, match=f"The passage '{passage.id}' is not"):
            verify(store, examined)
        store.delete([passage.id])
        with pytest.raises(Unavailable, match="as it was sent"):
            verify(store, examined)
        store.upsert([Point(passage=replace(passage, text="edited since"), content_hash="", vector=-vector)])
        verify(store, examined)


def test_the_sample_has_one_point_of_each_stretch_and_speaks_for_the_whole() -> None:
    drawn = ranks(10_000, 200)
    assert [rank // 50 for rank in drawn] == list(range(200))
    assert ranks(7, 200) == list(range(7))
    assert interval(200, 200) == pytest.approx((0.025 ** (1 / 200), 1.0))
    assert interval(0, 200) == pytest.approx((0.0, 1 - 0.025 ** (1 / 200)))
    assert interval(180, 200) == pytest.approx((0.8497, 0.9377), abs=2e-3)


def test_a_payload_becomes_a_passage_by_its_fields(settings: Settings) -> None:
    from app.takeover.source import Found

    payload = {"page_content": "text", "metadata": {"title": "t", "source": "s", "deep": {"id": 7}}, "a.b": 1}
    found = Found(at="x", payload=payload, vector=None)
    plain = Fields(text="page_content", title="metadata.title", id="metadata.deep.id").passage(found, settings)
    assert (plain.id, plain.title, plain.metadata) == ("7", "t", {"metadata": {"source": "s"}, "a.b": 1})
    lifted = Fields(text="page_content", metadata="metadata").passage(found, settings)
    assert (lifted.id, lifted.metadata) == ("x", payload["metadata"])
    with pytest.raises(BadPoint, match="point x has no text in 'a'"):
        Fields(text="a").passage(found, settings)
