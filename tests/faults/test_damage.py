"""Files that were damaged while nobody looked: a sentence names them and what mends them; nothing wrong is served."""

import faulthandler
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from app.client import ApiError
from app.encoders.graph import GRAPH, MAP, WEIGHTS
from app.errors import Unavailable
from app.passages.disk import copy_tree
from app.passages.edge import EdgeStore
from app.settings import Settings
from tests.conftest import running
from tests.passages.conftest import SPACE, points
from tests.service import encoders
from tests.service.test_process import start_and_fail

Damage = Callable[[Path], None]


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def flipped(path: Path) -> None:
    """One bit of each of its pages that holds something."""
    content = bytearray(path.read_bytes())
    for start in range(0, len(content), 4096):
        if any(content[start : start + 4096]):
            content[min(start + 8, len(content) - 1)] ^= 1
    path.write_bytes(content)


def one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def removed(path: Path) -> None:
    path.unlink()


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with an index, and with writes that are in its log alone."""
    folder = tmp_path_factory.mktemp("damage") / "passages"
    store = EdgeStore(folder, SPACE, index_after=300)
    store.upsert(points(400))
    assert store.wait_indexed(60)
    store.upsert(points(450)[400:])
    store.close()
    return folder


SAME, REFUSED = 10, 11  # how a child that looked at a damaged store ends


def look(folder: Path) -> int:
    """In a child: on some damage Edge ends the process."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    faulthandler.disable()  # it would write pages about an end that is expected
    status = 1
    try:
        store = EdgeStore(folder, SPACE)
        passages, _ = store.page(None, 1_000)
        status = SAME if store.count() == len(passages) == 450 else 1
        store.close()
    except Unavailable as error:
        status = REFUSED if str(folder) in error.detail and "adiabat restore FILE" in error.detail else 1
    finally:
        os._exit(status)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("id_tracker.versions", removed),
        ("payload_index/config.json", cut),
        ("payload_storage/config.json", emptied),
        ("payload_storage/bitmask.dat", cut),
        ("payload_storage/page_0.dat", emptied),
    ],
)
def test_a_damaged_shard_is_told_with_what_to_restore(indexed: Path, tmp_path: Path, name: str, damage: Damage) -> None:
    folder = tmp_path / "passages"
    copy_tree(indexed, folder)
    for path in folder.glob(f"shard-*/segments/*/{name}"):
        damage(path)
    assert look(folder) == REFUSED


def test_damage_on_which_edge_ends_the_process_is_told_at_the_next_start(indexed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "passages"
    copy_tree(indexed, folder)
    for path in folder.glob("shard-*/segments/*/id_tracker.mappings"):
        flipped(path)
    assert look(folder) < 0
    assert look(folder) == REFUSED


def test_a_start_that_was_killed_while_it_opened_the_shard_opens_it(indexed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "passages"
    copy_tree(indexed, folder)
    (folder / "OPENING").touch()
    assert look(folder) == SAME
    assert not (folder / "OPENING").exists()


def test_a_record_of_the_store_that_cannot_be_read_is_named_with_what_to_restore(indexed: Path, tmp_path: Path) -> None:
    for damage in (b"", b"{", b'{"format": 1}', b"[]"):
        folder = tmp_path / "passages"
        copy_tree(indexed, folder)
        (folder / "CURRENT").write_bytes(damage)
        with pytest.raises(Unavailable, match=r"CURRENT is damaged .*'adiabat restore FILE'"):
            EdgeStore(folder, SPACE)
        shutil.rmtree(folder)


def test_a_shard_that_is_gone_is_no_empty_store(tmp_path: Path) -> None:
    folder = tmp_path / "passages"
    store = EdgeStore(folder, SPACE)
    store.upsert(points(3))
    store.close()
    (folder / "shard-000001").rename(tmp_path / "elsewhere")
    with pytest.raises(Unavailable, match=r"shard-000001 are gone.*'adiabat restore FILE'"):
        EdgeStore(folder, SPACE)
    (tmp_path / "elsewhere").rename(folder / "shard-000001")
    store = EdgeStore(folder, SPACE)
    assert store.count() == 3
    store.close()


def test_a_registry_that_is_no_database_is_told_at_the_start(settings: Settings) -> None:
    settings.registry_path.write_bytes(b"no database" * 1_000)
    said = start_and_fail(settings)
    assert f"{settings.registry_path} is damaged" in said
    assert "adiabat restore FILE" in said


def test_a_lost_registry_is_no_first_start(switched: Settings) -> None:
    """What would begin anew has no keys: everybody could come in."""
    switched.registry_path.unlink()
    said = start_and_fail(switched)
    assert "is empty" in said
    assert "the encoder bees@1 of an earlier one" in said
    shutil.rmtree(switched.artifacts_dir / "bees@1")
    assert "holds passages of an earlier one" in start_and_fail(switched)
    assert (switched.artifacts_dir / "base@1").is_dir()


def test_a_first_start_that_was_cut_off_begins_again(settings: Settings) -> None:
    settings.registry_path.unlink()
    shutil.rmtree(settings.passages_dir)
    with running(settings) as service:
        assert service.client.ready().status == "ready"


def test_a_page_of_the_registry_that_is_damaged_costs_what_is_on_it_and_no_search(settings: Settings) -> None:
    with sqlite3.connect(settings.registry_path) as registry:
        [page] = registry.execute("SELECT rootpage FROM sqlite_master WHERE name = 'judgments'").fetchone()
        [size] = registry.execute("PRAGMA page_size").fetchone()
    with settings.registry_path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    with running(settings) as service:
        with pytest.raises(ApiError, match=r"registry in .* is damaged .*'adiabat restore FILE'") as refused:
            service.client.judgments()
        assert (refused.value.status, refused.value.slug) == (503, "unavailable")
        service.client.upsert_passages([{"id": "p", "text": "water pump"}])
        assert service.client.search("water").hits[0].id == "p"


@pytest.fixture
def switched(settings: Settings, tiny: Path, sources: Path) -> Settings:
    """A data folder whose active encoder is `bees`."""
    with running(settings) as service:
        service.client.register_encoder("bees", path=str(encoders.near(tiny, sources / "bees")))
        service.client.activate("bees")
    return settings


@pytest.mark.parametrize("damage", [flipped, cut, emptied, removed])
def test_an_active_encoder_whose_weights_are_damaged_gives_way_to_the_base_until_they_are_restored(
    switched: Settings, damage: Damage
) -> None:
    weights = switched.artifacts_dir / "bees@1" / "delta.safetensors"
    whole = weights.read_bytes()
    damage(weights)
    with running(switched) as service:
        client = service.client
        assert client.active_encoder().encoder.name == "base"
        assert "bees@1 could not be loaded, serving base@1" in client.ready().notes[0]
        assert client.encoder("bees@1").state == "broken"
        with pytest.raises(ApiError) as refused:
            client.activate("bees@1")
        assert (refused.value.status, refused.value.slug) == (409, "encoder-broken")
        weights.write_bytes(whole)
        assert client.activate("bees@1").encoder.name == "bees"
        assert client.encoder("bees@1").state == "ready"
        assert client.ready().notes == []


@pytest.mark.parametrize(
    ("damage", "told"),
    [(one_bit, "base@1: its files have digest"), (flipped, "The artifact of base@1 cannot be read")],
)
def test_a_damaged_passage_encoder_is_no_start_and_says_what_to_restore(
    settings: Settings, damage: Damage, told: str
) -> None:
    """Without it neither a query nor a passage could be embedded rightly."""
    damage(settings.artifacts_dir / "base@1" / "model.safetensors")
    said = start_and_fail(settings)
    assert told in said
    assert "adiabat restore FILE" in said


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *((f"weights/*/{WEIGHTS}", damage) for damage in (flipped, cut, emptied, removed)),
        ("weights/table-*.bin", flipped),
        *(  # the export takes its time
            pytest.param(f"graphs/*/{name}", damage, marks=pytest.mark.nightly)
            for name, damage in ((GRAPH, flipped), (MAP, cut))
        ),
    ],
)
def test_the_engines_copies_of_an_encoder_are_made_anew_where_they_are_damaged(
    switched: Settings, name: str, damage: Damage
) -> None:
    for path in switched.artifacts_dir.glob(name):
        damage(path)
    with running(switched) as service:
        assert service.client.active_encoder().encoder.name == "bees"
        assert service.client.ready().notes == []
        assert {each.state for each in service.client.encoders()} == {"ready"}
        service.client.upsert_passages([{"id": "p", "text": "water pump"}])
        assert service.client.search("water").hits[0].id == "p"
