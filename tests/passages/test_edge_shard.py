"""What a shard's readers are told when something goes wrong: Edge's word of its files in ours, all else as it is."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import qdrant_edge as edge

from app.errors import BadInput, Unavailable
from app.passages.edge_shard import Handle, ShardSlot, create_shard, load_shard
from app.passages.payload import DENSE
from tests.passages.conftest import DIM, SPACE


@pytest.fixture
def slot(tmp_path: Path) -> Iterator[ShardSlot]:
    folder = tmp_path / "passages" / "shard-000001"
    folder.mkdir(parents=True)
    create_shard(folder, SPACE)
    made = ShardSlot(Handle(shard=load_shard(folder), folder=folder))
    yield made
    made.close()


def ask(name: str, vector: list[float]) -> Callable[[Handle], object]:
    request = edge.QueryRequest(limit=1, query=edge.Query.Nearest(vector, name), with_payload=False, with_vector=False)
    return lambda live: live.shard.query_batch(edge.QueryBatchRequest([request]))


def refuse(_: Handle) -> None:
    raise BadInput("a filter was given that is none")


@pytest.mark.parametrize(
    ("mistake", "error", "says"),
    [
        (refuse, BadInput, "a filter was given that is none"),
        (lambda live: live.no_such_thing, AttributeError, "no_such_thing"),
        (lambda live: live.shard.count(3), TypeError, "CountRequest"),
        (ask(DENSE, [1.0] * (DIM + 1)), Exception, "^Vector dimension error"),
        (ask("another", [1.0] * DIM), Exception, "^Not existing vector name"),
    ],
)
def test_a_mistake_of_the_caller_is_no_damage(
    slot: ShardSlot, mistake: Callable[[Handle], object], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as raised, slot.reading() as live:
        mistake(live)
    assert raised.type is error


def test_what_edge_says_of_its_files_is_told_with_what_mends_it(slot: ShardSlot, tmp_path: Path) -> None:
    says = rf"{tmp_path}/passages/shard-000001 cannot be read: Service runtime error: .*'adiabat restore FILE'"
    with pytest.raises(Unavailable, match=says), slot.reading():
        edge.EdgeShard.load(str(tmp_path / "elsewhere"))
