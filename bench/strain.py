"""What those feel who ask politely while others ask badly:

    python bench/strain.py [--data FOLDER --work WORK] [--turns 3] [--seconds 10] [--only WORD] [--json FILE]

A real service on `samples/`' passages, or on those of the BEIR folder medquad in FOLDER, that has room in memory for
one encoder beside the base. A polite client, a process of its own, searches 20 times a second at random moments
(`load.py`), alone and then beside each strain, which comes from another address:

- one client sends queries of 100,000 characters, each as soon as the one before is answered;
- one client sends batches of 256 queries, each of as many characters as a query may have, likewise;
- 2,000 connections at once, each with one search, and again 2,000 once all of them are answered;
- every second a client sends forty searches for 1,000 whole texts on one connection and reads no answer;
- one client names an encoder that has left memory, and then the next one, so that each search loads one.

Asked: no answer but the clear ones that `STRAINS` names; the polite client's p99, the median of the turns, at most
twice what it is alone, and none of its searches failed; resident memory never more than 512 MiB over what it was
before the first strain of all, and after the last turn no more than 32 MiB over after the first, each strain having
been there once before. Exits with 1 where one is not met. The strain is made on the same cores as the answers.
"""

import argparse
import asyncio
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from residency import ROOM_FOR_ONE, Report, quantiles, register, rss_mb, service
from road import read_judged
from serving import fill
from soak import load_command

from app.beir import read_jsonl
from app.client import AdiabatClient
from app.wire.search import MAX_LIMIT, MAX_QUERIES

STRANGER = "127.0.0.2"  # the strain's address: the service tells callers apart by key and address
RATE = 20  # polite searches a second
TIMES, HIGHEST_MB, GROWN_MB = 2, 512 * 2**20 / 1e6, 32 * 2**20 / 1e6
CONNECTIONS = 2_000
LONG, MOST = 100_000, 8_192  # characters: of a query that is refused, of the longest that is not
VARIANTS = 4
SEARCHES_EACH = 40  # of one who never reads: more than the system keeps for a connection
BROKEN, LEFT_OPEN = 0, 1  # in place of a status
WITHOUT = {BROKEN: "broken", LEFT_OPEN: "left open"}
TIMEOUT_S = 5  # ADIABAT_REQUEST_TIMEOUT_S of the service, so that what it gives up is given up within a turn
SETTLE_S = 3  # after the last answer
ROOT = Path(__file__).resolve().parents[1]
TEXT = "what are the symptoms of a leaking heart valve and how long can one live with it? "


class Told:
    """How a strain was answered: statuses, or what became of a connection that got none."""

    def __init__(self, port: int, done: threading.Event) -> None:
        self.port, self.done, self.statuses = port, done, Counter[int]()

    async def ask(self, path: str, **body: object) -> None:
        """On a connection of its own; the status counts once the whole answer is read."""
        status = BROKEN
        with suppress(OSError, EOFError, ValueError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(STRANGER, 0))
            writer.write(request(path, body))
            answer = await reader.read()
            status = int(answer.split(maxsplit=2)[1]) if answer else BROKEN
            writer.close()
        self.statuses[status] += 1


def request(path: str, body: Report, *, close: bool = True) -> bytes:
    content = json.dumps(body).encode()
    ends = "Connection: close\r\n" if close else ""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{ends}"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


async def long_queries(told: Told) -> None:
    while not told.done.is_set():
        await told.ask("/search", query=(TEXT * LONG)[:LONG])


async def large_batches(told: Told) -> None:
    number = 0
    while not told.done.is_set():
        number += 1
        queries = [f"{number} {each} {TEXT * MOST}"[:MOST] for each in range(MAX_QUERIES)]
        await told.ask("/search/batch", queries=queries)


async def connections(told: Told) -> None:
    while not told.done.is_set():
        await asyncio.gather(*(told.ask("/search", query=f"{TEXT} {number}") for number in range(CONNECTIONS)))


async def never_read(told: Told) -> None:
    opened = []
    while not told.done.is_set():
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.bind((STRANGER, 0))
        connection.connect(("127.0.0.1", told.port))
        connection.setblocking(False)
        connection.sendall(request("/search", {"query": TEXT, "limit": MAX_LIMIT}, close=False) * SEARCHES_EACH)
        opened.append(connection)
        await asyncio.sleep(1)
    until = time.monotonic() + 3 * TIMEOUT_S
    while time.monotonic() < until and not all(map(is_broken, opened)):
        await asyncio.sleep(0.1)
    for connection in opened:
        told.statuses[BROKEN if is_broken(connection) else LEFT_OPEN] += 1
        connection.close()


def is_broken(connection: socket.socket) -> bool:
    """By what is sent, since reading would take what nobody was to take; empty lines before a request mean nothing."""
    try:
        connection.send(b"\r\n")
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False


async def evicted(told: Told) -> None:
    number = 0
    while not told.done.is_set():
        number += 1
        await told.ask("/search", query=TEXT, encoder=f"v{number % VARIANTS}@1")


class Strain(NamedTuple):
    run: Callable[[Told], Awaitable[None]]
    clear: frozenset[int]  # what the strain may be answered


STRAINS = {
    f"queries of {LONG:,} characters": Strain(long_queries, frozenset({422})),
    f"batches of {MAX_QUERIES} queries of {MOST:,} characters": Strain(large_batches, frozenset({200, 429})),
    f"{CONNECTIONS:,} connections at once": Strain(connections, frozenset({200, 429})),
    "clients that never read": Strain(never_read, frozenset({BROKEN})),
    "an encoder that left memory": Strain(evicted, frozenset({200})),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, help="keeps the data folder for the next run")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="of each turn")
    parser.add_argument("--only", default="", help="the strains whose name holds this")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ["ADIABAT_REQUEST_TIMEOUT_S"] = str(TIMEOUT_S)
    with TemporaryDirectory() as scratch:
        work = given.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        source = given.data / "medquad" if given.data else ROOT / "samples"
        questions = Path(scratch) / "questions.txt"
        questions.write_text("".join(" ".join(query.split()) + "\n" for query, _ in read_judged(source, "dev")))
        if given.data:
            fill(given.data, work)
        with service(work, ROOM_FOR_ONE) as (pid, client):
            if not given.data:
                rows = [row for _, row in read_jsonl(source / "corpus.jsonl")]
                client.upsert_passages({"id": row["_id"], "text": row["text"]} for row in rows)
            register(client, work / "sources", count=VARIANTS)
        names = [name for name in STRAINS if given.only in name]
        with service(work, ROOM_FOR_ONE) as (pid, client), files_for(CONNECTIONS):
            report = measure(pid, client, questions, names, given.turns, given.seconds)
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n")
    if not table(report):
        sys.exit(1)


@contextmanager
def files_for(connections: int) -> Iterator[None]:
    """Raised for this process alone: the service has been started with what it is given."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, connections + 500)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def measure(pid: int, client: AdiabatClient, questions: Path, names: list[str], turns: int, seconds: float) -> Report:
    for number in range(VARIANTS):
        client.search(TEXT, encoder=f"v{number}@1")  # what is made once is made
    polite(client.url, questions, 3)
    report: Report = {"turns": turns, "seconds": seconds, "passages": client.count_passages(), "alone": []}
    report["fresh_mb"] = round(rss_mb(pid), 1)
    report["strains"] = {name: {"turns": [], "statuses": Counter(), "mb": []} for name in names}
    for name in names:
        with strained(client.url, STRAINS[name]):
            time.sleep(1)
    for _ in range(turns):
        report["alone"].append(polite(client.url, questions, seconds))
        for name in names:
            row = report["strains"][name]
            before = rss_mb(pid)
            with watched_mb(pid) as sizes, strained(client.url, STRAINS[name]) as statuses:
                row["turns"].append(polite(client.url, questions, seconds))
            time.sleep(SETTLE_S)
            row["statuses"] += statuses
            mb = {"before": before, "highest": max(sizes), "after": rss_mb(pid)}
            row["mb"].append({when: round(each, 1) for when, each in mb.items()})
            print(f"{name}: {json.dumps(row['turns'][-1])} {dict(statuses)} MB {row['mb'][-1]}", flush=True)
    return report


def polite(url: str, questions: Path, seconds: float) -> Report:
    with TemporaryDirectory() as scratch:
        out = Path(scratch) / "polite.npy"
        subprocess.run(load_command(url, questions, seconds, out, "--rate", str(RATE)), check=True)
        _, took, good = np.load(out).T
    return quantiles(list(took * 1000)) | {"failed": int((good == 0).sum())}


@contextmanager
def strained(url: str, strain: Strain) -> Iterator[Counter[int]]:
    done = threading.Event()
    told = Told(int(url.rpartition(":")[2]), done)
    running = threading.Thread(target=lambda: asyncio.run(strain.run(told)))  # type: ignore[arg-type]
    running.start()
    try:
        yield told.statuses
    finally:
        done.set()
        running.join()


@contextmanager
def watched_mb(pid: int) -> Iterator[list[float]]:
    done, sizes = threading.Event(), [rss_mb(pid)]

    def watch() -> None:
        while not done.wait(0.05):
            sizes.append(rss_mb(pid))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield sizes
    finally:
        done.set()
        watching.join()


def table(report: Report) -> bool:
    """Whether all is met."""
    alone = statistics.median(turn["p99"] for turn in report["alone"])
    p50 = statistics.median(turn["p50"] for turn in report["alone"])
    print(f"alone: p50 {p50:.1f} ms, p99 {alone:.1f} ms")
    met = []
    for name, row in report["strains"].items():
        p99 = statistics.median(turn["p99"] for turn in row["turns"])
        first, last = row["mb"][0], row["mb"][-1]
        most_mb = max(turn["highest"] for turn in row["mb"])
        statuses = row["statuses"].items()
        rows = [
            ("answers that are not clear", sum(n for status, n in statuses if status not in STRAINS[name].clear), 0),
            ("polite searches that failed", sum(turn["failed"] for turn in row["turns"]), 0),
            (f"polite p99 over alone ({p99:.1f} ms)", p99 / alone, TIMES),
            (f"highest memory over {report['fresh_mb']:.0f} MB at first, MB", most_mb - report["fresh_mb"], HIGHEST_MB),
            ("memory after the last turn over after the first, MB", last["after"] - first["after"], GROWN_MB),
        ]
        print(f"{name}: {', '.join(f'{n:,} times {WITHOUT.get(status, status)}' for status, n in sorted(statuses))}")
        for what, found, most in rows:
            print(f"  {what:<54}{found:>10.3g}   asked <= {most:<8.3g}{'met' if found <= most else 'NOT MET'}")
            met.append(found <= most)
    return all(met)


if __name__ == "__main__":
    main()
