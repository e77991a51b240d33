"""What a copy leaves alone, what it reads back, and what a server that is away for a moment costs."""

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException

from app.errors import Unavailable
from app.passages import qdrant_calls
from app.passages.copying import SAMPLED, copy_passages
from app.passages.payload import DENSE, point_id
from app.passages.qdrant import Layout, QdrantStore
from tests.passages.conftest import DIM, SPACE, OpenEdge, points, unit_vectors


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    made = QdrantClient(":memory:")
    yield made
    made.close()


def test_what_is_there_already_is_left_alone(
    open_edge: OpenEdge, client: QdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = open_edge(), QdrantStore(client, "passages", SPACE)
    source.upsert(points(600))
    assert copy_passages(source, target, lambda _: None) == 600
    source.upsert(points(10, seed=1))
    written, upsert, told = [0], target.upsert, list[int]()
    monkeypatch.setattr(target, "upsert", lambda made: (written.append(len(made)), upsert(made)))
    assert copy_passages(source, target, told.append) == 600
    assert (sum(written), told[-1]) == (10, 600)
    again = target.fetch(["p3"], with_vectors=True)[0].vector
    assert again is not None
    assert np.allclose(again, unit_vectors(10, seed=1)[3], atol=1e-6)


def test_a_copy_that_reads_back_otherwise_is_told(open_edge: OpenEdge, client: QdrantClient) -> None:
    source, target = open_edge(), QdrantStore(client, "passages", SPACE)
    source.upsert(points(SAMPLED))
    copy_passages(source, target, lambda _: None)
    other = unit_vectors(1, seed=9)[0].tolist()
    client.update_vectors("passages", [models.PointVectors(id=str(point_id("p7")), vector={DENSE: other})])
    with pytest.raises(Unavailable, match="'p7' is not in the copy as it was sent"):
        copy_passages(source, target, lambda _: None)


def test_a_copy_that_lacks_some_is_told_by_its_count(
    open_edge: OpenEdge, client: QdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that acknowledges what it then loses; of 600 no sample need have the one."""
    source, target = open_edge(), QdrantStore(client, "passages", SPACE)
    source.upsert(points(600))
    upsert = target.upsert
    monkeypatch.setattr(target, "upsert", lambda made: upsert([each for each in made if each.passage.id != "p7"]))
    with pytest.raises(Unavailable, match="600 passages were copied, and 599 are there"):
        copy_passages(source, target, lambda _: None)
    monkeypatch.undo()
    assert copy_passages(source, target, lambda _: None) == 600


class Away:
    """A method of the client that breaks so many times before it answers."""

    def __init__(self, method: Any, times: int, source: Exception) -> None:
        self.method, self.times, self.source, self.calls = method, times, source, 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        if self.calls <= self.times:
            raise self.source
        return self.method(*arguments, **options)


@pytest.mark.parametrize(
    "source",
    [ResponseHandlingException(httpx.ConnectError("refused")), ResourceExhaustedResponse("too much", 1)],
    ids=["away", "busy"],
)
def test_a_server_that_is_back_in_a_moment_costs_no_call(
    client: QdrantClient, monkeypatch: pytest.MonkeyPatch, source: Exception
) -> None:
    store = QdrantStore(client, "passages", SPACE)
    away = Away(client.upsert, len(qdrant_calls.BACKOFF_S), source)
    monkeypatch.setattr(client, "upsert", away)
    store.upsert(points(3))
    assert (away.calls, store.count()) == (len(qdrant_calls.BACKOFF_S) + 1, 3)


@pytest.mark.parametrize(
    ("times", "source", "calls"),
    [
        (9, ResponseHandlingException(httpx.ConnectError("refused")), len(qdrant_calls.BACKOFF_S) + 1),
        (1, ResponseHandlingException(httpx.ReadTimeout("30 s")), 1),
    ],
    ids=["gone", "too slow"],
)
def test_one_that_stays_away_or_is_too_slow_is_told(
    client: QdrantClient, monkeypatch: pytest.MonkeyPatch, times: int, source: Exception, calls: int
) -> None:
    store = QdrantStore(client, "passages", SPACE)
    away = Away(client.query_batch_points, times, source)
    monkeypatch.setattr(client, "query_batch_points", away)
    with pytest.raises(Unavailable, match="does not answer"):
        store.search(np.ones(DIM, dtype=np.float32), limit=1)
    assert away.calls == calls


def test_making_a_collection_is_never_repeated(client: QdrantClient, monkeypatch: pytest.MonkeyPatch) -> None:
    away = Away(client.create_collection, 1, ResponseHandlingException(httpx.ReadError("reset")))
    monkeypatch.setattr(client, "create_collection", away)
    with pytest.raises(Unavailable, match="does not answer"):
        QdrantStore(client, "passages", SPACE)
    assert away.calls == 1


def test_a_collection_is_laid_out_as_asked(client: QdrantClient, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    create = client.create_collection
    monkeypatch.setattr(
        client, "create_collection", lambda name, **options: (asked.update(options), create(name, **options))
    )
    QdrantStore(client, "passages", SPACE, layout=Layout(shards=3, replicas=2, write_consistency=2))
    told = [asked[key] for key in ("shard_number", "replication_factor", "write_consistency_factor")]
    assert told == [3, 2, 2]


def test_points_go_by_grpc_where_a_port_is_given() -> None:
    assert not qdrant_calls.connect("http://127.0.0.1:1")._client._prefer_grpc
    made = qdrant_calls.connect("https://127.0.0.1:1", grpc_port=6334)
    with pytest.raises(Unavailable, match="UNAVAILABLE"):
        qdrant_calls.collection_id(made, "passages")
