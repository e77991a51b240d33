"""Several real services on one registry and one collection: switched together, paused, killed, and unable."""

import os
import random
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app.client import AdiabatClient, ApiError
from app.encoders.digest import weights_ending
from app.encoders.files import EncoderFiles
from app.errors import Conflict
from app.passages.disk import copy_tree
from app.registry import Registry
from app.registry.copying import copy_registry
from app.registry.instances import LEASE_S
from app.settings import Settings
from tests.conftest import process, running, wait_until
from tests.postgres import Server, kill_server, own_server, start_server
from tests.service import encoders
from tests.service.hindered_service import BROKEN, HINDRANCE, SLOW
from tests.service.test_job_events import new_job

NAMES = ("base", "bees", "wasps")


@dataclass(kw_only=True)
class Member:
    child: subprocess.Popen[bytes]
    client: AdiabatClient

    @property
    def generation(self) -> int:
        return self.client.active_encoder().encoder.generation


@dataclass(kw_only=True)
class Cluster:
    settings: Settings
    hindrance: Path
    stack: ExitStack
    members: list[Member]

    def start(self) -> Member:
        """One more; its loads can be hindered."""
        program = process(
            self.settings,
            "--no-trainer",
            program="tests.service.hindered_service",
            variables={HINDRANCE: str(self.hindrance)},
        )
        child, client = self.stack.enter_context(program)
        member = Member(child=child, client=client)
        self.members.append(member)
        return member

    def hinder(self, how: str) -> None:
        (self.hindrance / how).touch()

    def free(self) -> None:
        for how in (SLOW, BROKEN):
            (self.hindrance / how).unlink(missing_ok=True)


@pytest.fixture(scope="module", params=["postgresql", pytest.param("sqlite", marks=pytest.mark.nightly)])
def cluster(
    request: pytest.FixtureRequest,
    qdrant: str,
    postgres: Server,
    seeded: Path,
    tiny: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cluster]:
    url = postgres.fresh() if request.param == "postgresql" else None
    with clustered(seeded, tiny, tmp_path_factory.mktemp("cluster"), qdrant, url) as made:
        yield made
    if url is not None:
        postgres.drop(url)


@contextmanager
def clustered(seeded: Path, tiny: Path, folder: Path, qdrant: str, url: str | None) -> Iterator[Cluster]:
    """Two services on one data folder, with two encoders beside the base; the second one can be hindered."""
    copy_tree(seeded, folder / "data")
    settings = Settings(
        data_dir=folder / "data",
        passage_encoder=str(tiny),
        registry_url=url,
        qdrant_url=qdrant,
        collection=f"adiabat_test_{random.getrandbits(48):x}",
        trainer=False,
        source_dirs=(folder,),
        threads=1,
        map_weights=True,
    )
    if url is not None:
        source, target = Registry(settings.registry_path), Registry(url)
        copy_registry(source.database, target.database)
        source.close()
        target.close()
    (folder / "hindrance").mkdir()
    with ExitStack() as stack:
        child, client = stack.enter_context(process(settings, "--no-trainer"))
        first = Member(child=child, client=client)
        made = Cluster(settings=settings, hindrance=folder / "hindrance", stack=stack, members=[first])
        for seed, name in enumerate(NAMES[1:], start=1):
            client.register_encoder(name, path=str(encoders.near(tiny, folder / name, seed=seed)))
        client.upsert_passages([{"id": f"p{n}", "text": f"water pump {n}"} for n in range(5)])
        made.start()
        yield made


@pytest.fixture
def pair(cluster: Cluster) -> Iterator[tuple[Member, Member]]:
    """Two that live and stand at the same generation."""
    cluster.free()
    cluster.members = [each for each in cluster.members if each.child.poll() is None]
    while len(cluster.members) < 2:
        cluster.start()
    first, second = cluster.members[:2]
    wait_until(lambda: first.client.active_encoder().replicas == second.client.active_encoder().replicas)
    wait_until(lambda: first.generation == second.generation)
    yield first, second
    cluster.free()


def another(member: Member) -> str:
    """An encoder that is not active."""
    active = member.client.active_encoder().encoder.name
    return next(name for name in NAMES if name != active)


def register_fresh(cluster: Cluster, member: Member, tiny: Path) -> str:
    """An encoder that no member has in memory."""
    name = f"ants{random.getrandbits(32):x}"
    folder = encoders.near(tiny, cluster.settings.data_dir.parent / name, seed=random.getrandbits(16))
    return member.client.register_encoder(name, path=str(folder)).name


def put(member: Member, name: str, timeout_s: float = 60) -> httpx.Response:
    return httpx.put(
        f"{member.client.url}/active-encoder",
        json={"name": name, "timeout_s": timeout_s},
        timeout=timeout_s + 30,
        trust_env=False,
    )


def test_a_switch_that_was_answered_is_a_switch_of_all(pair: tuple[Member, Member]) -> None:
    for here, there in (pair, pair[::-1]):
        name = another(here)
        answer = put(here, name)
        said = answer.json()
        assert (answer.status_code, said["replicas"]) == (200, {"live": 2, "switched": 2, "behind": []})
        found = there.client.search("water pump")
        assert (found.encoder.name, found.encoder.generation) == (name, said["encoder"]["generation"])
        assert there.client.active_encoder().previous == here.client.active_encoder().previous


def test_a_generation_that_was_read_at_one_counts_at_the_other(pair: tuple[Member, Member]) -> None:
    here, there = pair
    generation = here.generation
    assert there.client.rollback(if_generation=generation).encoder.generation == generation + 1
    with pytest.raises(ApiError, match=f"Generation {generation} was expected, but {generation + 1}"):
        here.client.activate(another(here), if_generation=generation)


@pytest.mark.parametrize(("replicas", "switches"), [(2, 30), pytest.param(4, 200, marks=pytest.mark.nightly)])
def test_many_conflicting_switches_end_in_one_history_without_a_gap_and_in_equal_replicas(
    cluster: Cluster, pair: tuple[Member, Member], replicas: int, switches: int
) -> None:
    before = pair[0].generation
    while len(cluster.members) < replicas:
        cluster.start()

    def switch(number: int) -> int:
        member = cluster.members[number % len(cluster.members)]
        return put(member, NAMES[number % 3]).status_code

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(switch, range(switches)))
    assert set(codes) <= {200, 202}
    history = pair[0].client.history(1000)
    assert [each.generation for each in history] == list(range(history[0].generation, 0, -1))
    assert history[0].generation > before
    wait_until(lambda: {each.generation for each in cluster.members} == {history[0].generation})
    active = [each.client.active_encoder() for each in cluster.members]
    assert {each.encoder.digest for each in active} == {history[0].digest}
    assert len({each.previous.digest for each in active if each.previous}) == 1
    for extra in cluster.members[2:]:
        extra.child.terminate()  # in order: nobody waits for its lease
        assert extra.child.wait(60) == 0
    wait_until(lambda: pair[0].client.active_encoder().replicas.live == 2)


@pytest.mark.parametrize("part", ["table-*.bin", "{digest}/weights.bin"])
def test_replicas_on_one_host_have_an_encoders_weights_in_memory_once(
    cluster: Cluster, pair: tuple[Member, Member], tiny: Path, part: str
) -> None:
    """The token embeddings always; the layers as they are asked to, or each had the runtime's own form of them."""
    digest = f"*-{weights_ending(EncoderFiles(tiny))}"
    [path] = (cluster.settings.artifacts_dir / "weights").glob(part.format(digest=digest))
    with path.open("rb") as file:
        os.fsync(file.fileno())  # these tests copied it just now; the service syncs what it writes
    maps = [mapped(member.child.pid, path) for member in pair]
    for each in maps:
        assert each["inode"] == path.stat().st_ino
        assert each["Rss"] == each["Shared_Clean"] >= 0.9 * path.stat().st_size / 1024
        assert each["Private_Dirty"] == each["Private_Clean"] == each["Anonymous"] == 0
    assert sum(each["Pss"] for each in maps) <= maps[0]["Rss"]


def mapped(pid: int, path: Path) -> dict[str, int]:
    """kB of what the process has mapped of the file, part by part, and its inode."""
    found: dict[str, int] = {}
    of_it = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, *values = line.split()
        if not name.endswith(":"):  # the head of the next map
            of_it = line.endswith(str(path))
            if of_it:
                found["inode"] = int(values[3])
        elif of_it and values[-1] == "kB":
            key = name.removesuffix(":")
            found[key] = found.get(key, 0) + int(values[0])
    return found


def test_a_replica_that_cannot_load_says_why_stays_on_the_old_one_and_follows_when_it_can(
    cluster: Cluster, pair: tuple[Member, Member], tiny: Path
) -> None:
    here, there = pair
    fresh = register_fresh(cluster, here, tiny)
    old = there.client.active_encoder().encoder
    cluster.hinder(BROKEN)
    answer = put(here, fresh)
    [behind] = answer.json()["replicas"]["behind"]
    assert (answer.status_code, answer.json()["replicas"]["switched"]) == (202, 1)
    assert behind["name"].endswith(f"-{there.child.pid}")
    assert (behind["generation"], "the disk of this replica is gone" in behind["reason"]) == (old.generation, True)
    assert there.client.search("water pump").encoder == old
    assert there.client.ready().status == "ready"
    assert any("the disk of this replica is gone" in note for note in there.client.ready().notes)
    wait_until(lambda: here.client.active_encoder().replicas == there.client.active_encoder().replicas)
    assert "adiabat_generations_behind 1.0" in there.client.metrics()
    assert 'adiabat_replicas{state="behind"} 1.0' in here.client.metrics()
    cluster.free()
    wait_until(lambda: there.generation == here.generation)
    assert there.client.ready().notes == []


# Not before the test above that counts generations without a gap: those of routes are none of the active encoder's.
def test_a_route_is_one_of_all_and_who_cannot_load_its_encoder_keeps_the_old_one(
    cluster: Cluster, pair: tuple[Member, Member], tiny: Path
) -> None:
    here, there = pair
    active = there.client.active_encoder().encoder
    first, second = (register_fresh(cluster, here, tiny) for _ in range(2))
    made = here.client.set_route("medical", first, match={"lang": ["de"]})
    assert (made.replicas.live, made.replicas.switched) == (2, 2)
    found = there.client.search("water pump", lang="de")
    assert (found.rule, found.encoder.name, found.encoder.generation) == ("route", first, made.generation)
    cluster.hinder(BROKEN)
    later = here.client.set_route("medical", second, match={"lang": ["de"]})
    [behind] = later.replicas.behind
    assert (behind.generation, "the disk of this replica is gone" in (behind.reason or "")) == (made.generation, True)
    assert there.client.search("water pump", lang="de").encoder.name == first
    switched = here.client.activate(first)  # which it has: one route cuts it off from no switch, and from no way back
    wait_until(lambda: there.client.search("water pump").encoder.name == first)
    assert there.client.search("water pump", lang="de").encoder.name == first
    there.client.rollback(if_generation=switched.encoder.generation)
    active = here.client.active_encoder().encoder
    wait_until(lambda: there.client.search("water pump").encoder == active)
    cluster.free()
    wait_until(lambda: there.client.search("water pump", lang="de").encoder.name == second)
    there.client.remove_route("medical", if_generation=later.generation)
    assert here.client.search("water pump", lang="de").encoder == active


def test_one_that_is_killed_in_the_middle_of_a_switch_is_waited_for_no_longer_than_its_lease(
    cluster: Cluster, pair: tuple[Member, Member], tiny: Path
) -> None:
    here, there = pair
    fresh = register_fresh(cluster, here, tiny)
    cluster.hinder(SLOW)
    answered: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answered.append(put(here, fresh, 4 * LEASE_S)))
    thread.start()
    wait_until(lambda: here.client.active_encoder().encoder.name == fresh)  # it waits for the other one
    assert answered == []
    there.child.kill()
    thread.join()
    [answer] = answered
    assert (answer.status_code, answer.json()["replicas"]) == (200, {"live": 1, "switched": 1, "behind": []})
    cluster.free()
    again = cluster.start()
    assert again.client.active_encoder().encoder == here.client.active_encoder().encoder


def test_one_that_was_paused_is_named_then_left_out_and_answers_again_only_with_the_newest(
    cluster: Cluster, pair: tuple[Member, Member], tiny: Path
) -> None:
    here, there = pair
    fresh = register_fresh(cluster, here, tiny)
    os.kill(there.child.pid, signal.SIGSTOP)
    try:
        early = put(here, another(here), 0.5)
        assert early.status_code == 202
        assert early.json()["replicas"]["behind"][0]["name"].endswith(f"-{there.child.pid}")
        later = put(here, fresh)
        assert (later.status_code, later.json()["replicas"]["live"]) == (200, 1)
        with ThreadPoolExecutor(4) as pool:  # they lie in its socket when it comes back
            waiting = [pool.submit(there.client.search, "water pump") for _ in range(4)]
            cluster.hinder(SLOW)
            os.kill(there.child.pid, signal.SIGCONT)
            with suppress(TimeoutError):  # whoever is answered now is answered with what the others have left
                waiting[0].result(1)
            assert not any(each.done() for each in waiting)
            cluster.free()
            found = [each.result().encoder.generation for each in waiting]
    finally:
        os.kill(there.child.pid, signal.SIGCONT)
    assert found == [later.json()["encoder"]["generation"]] * 4


def test_a_service_with_another_collection_or_with_passages_of_its_own_is_refused(
    cluster: Cluster, pair: tuple[Member, Member], tmp_path: Path
) -> None:
    other = cluster.settings.model_copy(update={"collection": "others"})
    with pytest.raises(Conflict, match="share one collection on a Qdrant server"), running(other):
        pass
    assert pair[0].client.ready().status == "ready"
    if cluster.settings.registry_url is not None:
        edge = cluster.settings.model_copy(update={"qdrant_url": None, "data_dir": tmp_path / "data"})
        shutil.copytree(cluster.settings.artifacts_dir, edge.artifacts_dir)
        with pytest.raises(Conflict, match=r"Qdrant Edge .* which serves one process"), running(edge):
            pass


def test_jobs_are_looked_after_by_one_of_them_and_by_another_when_it_is_gone(
    cluster: Cluster, pair: tuple[Member, Member]
) -> None:
    registry = Registry(cluster.settings.registry_at)
    for member in pair:
        job_id = new_job(member.client.url, member.client)
        wait_until(lambda job_id=job_id: registry.jobs.get(job_id).status == "prepared")  # type: ignore[misc]
        prepared = [event.data["status"] for event in registry.events.after(job_id, 0, 99)]
        assert prepared == ["queued", "preparing", "queued"]
    leader, other = sorted(pair, key=lambda each: registry_order(registry, each))
    leader.child.kill()
    job_id = new_job(other.client.url, other.client)
    wait_until(lambda: registry.jobs.get(job_id).status == "prepared")
    registry.close()


def registry_order(registry: Registry, member: Member) -> int:
    return [each.name.rpartition("-")[2] for each in registry.instances.live()].index(str(member.child.pid))


@pytest.mark.nightly
def test_a_database_that_is_killed_in_the_middle_of_a_switch_costs_no_search_and_no_generation(
    seeded: Path, tiny: Path, tmp_path: Path, qdrant: str
) -> None:
    with own_server() as server:
        url = server.get_uri()
        with clustered(seeded, tiny, tmp_path / "cluster", qdrant, url) as cluster:
            here, there = cluster.members
            cluster.hinder(SLOW)
            answered: list[httpx.Response] = []
            thread = threading.Thread(target=lambda: answered.append(put(here, "bees")))
            thread.start()
            wait_until(lambda: here.client.active_encoder().encoder.name == "bees")
            kill_server(server)
            thread.join()
            [answer] = answered
            assert (answer.status_code, answer.json()["encoder"]["name"]) == (202, "bees")
            assert "does not answer" in answer.json()["replicas"]["behind"][0]["reason"]
            for member, name in ((here, "bees"), (there, "base")):
                assert member.client.search("water pump").encoder.name == name
                wait_until(lambda member=member: told_away(member))  # type: ignore[misc]
            assert put(here, "wasps").status_code == 503
            assert here.client.search("water pump").encoder.name == "bees"
            start_server(server)
            cluster.free()
            wait_until(lambda: there.client.active_encoder().encoder == here.client.active_encoder().encoder)
            assert here.client.active_encoder().encoder.name == "bees"
            again = put(there, "wasps").json()
            assert again.get("replicas") == {"live": 2, "switched": 2, "behind": []}, again
            assert here.client.search("water pump").encoder.name == "wasps"
            assert [each.generation for each in here.client.history()] == [3, 2, 1]
            assert here.client.ready().notes == there.client.ready().notes == []


def told_away(member: Member) -> bool:
    return any("The registry does not answer" in note for note in member.client.ready().notes)
