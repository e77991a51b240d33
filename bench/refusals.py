"""How soon what is wrong is refused, and what it costs in memory:

    python bench/refusals.py [--rounds 100] [--json FILE]

A real service on `samples/`' passages, behind a key. Every refusal is asked for over a connection of its own, so its
opening counts; the time ends with the answer's last byte. What the service reads before it can know (a body that grows
over its limit) counts from the first byte that is sent. Slow senders are left out: their time is a setting. What is
wrong *inside* an encoder is found by a child process under limits (SECURITY.md): its refusal costs a process's start.

Asked: the 99th percentile of each under 50 ms, but for what a child finds, and no more resident memory afterwards than
32 MiB over before. Exits with 1 where one is not met, or where an answer has another status than it is to have.
"""

import argparse
import io
import json
import os
import random
import socket
import sys
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from residency import Report, quantiles, rss_mb, service

from app.beir import read_jsonl
from app.client import AdiabatClient

ASKED_MS, ASKED_MB = 50, 32 * 2**20 / 1e6
ROOM = 2**30
KEY = "correct horse battery"
PASSAGES = 400
DEEP = 10_000
ROOT = Path(__file__).resolve().parents[1]
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
CHUNK = b"10000\r\n" + b" " * 65_536 + b"\r\n"


class Wrong(NamedTuple):
    """A request, and the status it is to be refused with."""

    status: int
    method: str
    path: str
    body: bytes | str | None = None
    headers: Mapping[str, str] = AUTHORIZED


def body(**fields: object) -> str:
    return json.dumps(fields)


def search(**fields: object) -> Wrong:
    return Wrong(422, "POST", "/search", body(**{"query": "x", **fields}))


def form(archive: bytes) -> bytes:
    head = 'Content-Disposition: form-data; name="%s"'
    name = f"--{BOUNDARY}\r\n{head % 'name'}\r\n\r\nx\r\n"
    file = f'--{BOUNDARY}\r\n{head % "archive"}; filename="x.zip"\r\nContent-Type: application/zip\r\n\r\n'
    return (name + file).encode() + archive + f"\r\n--{BOUNDARY}--\r\n".encode()


def zipped(name: str, content: bytes | int) -> bytes:
    """One file; a number is so many zeros."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w", force_zip64=True) as file:
        if isinstance(content, bytes):
            file.write(content)
        else:
            for _ in range(content // 2**20):
                file.write(bytes(2**20))
    return made.getvalue()


FOUND_BY_A_CHILD = "an encoder of pickles"
BOUNDARY = "refused"
MULTIPART = AUTHORIZED | {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
NDJSON = AUTHORIZED | {"Content-Type": "application/x-ndjson"}
NESTED = "[" * DEEP + "]" * DEEP
FILTERS = '{"must":[' * DEEP + "]}" * DEEP
WRONG = {
    "no key": Wrong(401, "POST", "/search", body(query="x"), {}),
    "a wrong key": Wrong(401, "POST", "/search", body(query="x"), {"Authorization": "Bearer " + "w" * len(KEY)}),
    "a key of 30,000 characters": Wrong(401, "GET", "/encoders", None, {"Authorization": "Bearer " + "w" * 30_000}),
    "no such path": Wrong(404, "GET", "/nowhere"),
    "no such method": Wrong(405, "DELETE", "/search"),
    "no JSON": Wrong(422, "POST", "/search", "{query"),
    "JSON 10,000 deep": Wrong(400, "POST", "/search", NESTED),
    "a filter 10,000 deep": Wrong(400, "POST", "/search", f'{{"query":"x","filter":{FILTERS}}}'),
    "metadata 10,000 deep": Wrong(
        400, "POST", "/passages", f'{{"passages":[{{"id":"a","text":"x","metadata":{{"m":{NESTED}}}}}]}}'
    ),
    "NaN": Wrong(422, "POST", "/search", '{"query":"x","score_threshold":NaN}'),
    "an empty query": search(query=" "),
    "a query of 100,000 characters": search(query="x" * 100_000),
    "limit 1001": search(limit=1001),
    "a field that is none": search(limmit=3),
    "a malformed filter": search(filter={"must": [{"key": "a"}]}),
    "257 queries": Wrong(422, "POST", "/search/batch", body(queries=["x"] * 257)),
    "an unknown encoder": Wrong(404, "POST", "/search", body(query="x", encoder="nobody@1")),
    "activation of an unknown encoder": Wrong(404, "PUT", "/active-encoder", body(name="nobody")),
    "a generation that is past": Wrong(
        412, "PUT", "/active-encoder", body(name="base"), AUTHORIZED | {"If-Match": '"9"'}
    ),
    "percent 101": Wrong(422, "PUT", "/active-encoder", body(canary={"name": "base@1", "percent": 101})),
    "feedback on no search": Wrong(
        409, "POST", "/feedback", body(search_id="0" * 32, clicks=[{"passage_id": "a", "position": 1}])
    ),
    "a passage without text": Wrong(422, "POST", "/passages", body(passages=[{"id": "a"}])),
    "an id twice": Wrong(422, "POST", "/passages", body(passages=[{"id": "a", "text": "x"}] * 2)),
    "a path outside": Wrong(422, "POST", "/encoders", body(name="x", source={"path": "../../etc"})),
    "an unknown dataset": Wrong(404, "POST", "/tuning-jobs", body(name="x", dataset="nobody")),
    "an unknown key of a recipe": Wrong(
        422, "POST", "/tuning-jobs", body(name="x", dataset="samples", recipe={"rate": 1})
    ),
    "an encoder that is no archive": Wrong(422, "POST", "/encoders", form(b"x" * 1_000), MULTIPART),
    FOUND_BY_A_CHILD: Wrong(422, "POST", "/encoders", form(zipped("model/pytorch_model.bin", b"\x80")), MULTIPART),
    "a name outside in an archive": Wrong(422, "POST", "/encoders", form(zipped("../config.json", b"{}")), MULTIPART),
    "an archive of 1 GB of zeros": Wrong(413, "POST", "/encoders", form(zipped("model.safetensors", 2**30)), MULTIPART),
    "a dataset of broken lines": Wrong(422, "PUT", "/datasets/x", "{}\n" * 1_000, NDJSON),
    "a body announced with 1 TB": Wrong(413, "POST", "/search", None, AUTHORIZED | {"Content-Length": str(10**12)}),
    "a header of 100 KB": Wrong(431, "GET", "/version", None, {"X-Long": "x" * 100_000}),
    "3,000 headers": Wrong(431, "GET", "/version", None, {f"X-{n}": "y" * 20 for n in range(3_000)}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    os.environ["ADIABAT_API_KEY"] = KEY
    with TemporaryDirectory() as work, service(Path(work), ROOM) as (pid, client):
        report = measure(pid, client, given.rounds)
    print(f"{'refused':<36}{'status':>7}{'p50':>8}{'p99':>8}{'max':>8}  ms")
    for name, row in report["refusals"].items():
        met = "" if is_met(name, row) else f"   NOT MET {row['others'] or ''}"
        print(f"{name:<36}{row['status']:>7}{row['p50']:>8}{row['p99']:>8}{row['max']:>8}{met}")
    print(f"resident memory: {report['before_mb']:.0f} MB before, {report['after_mb']:.0f} MB afterwards")
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n")
    grown = report["after_mb"] - report["before_mb"]
    if grown > ASKED_MB or not all(is_met(name, row) for name, row in report["refusals"].items()):
        sys.exit(1)


def is_met(name: str, row: Report) -> bool:
    return not row["others"] and (row["p99"] < ASKED_MS or name == FOUND_BY_A_CHILD)


def measure(pid: int, client: AdiabatClient, rounds: int) -> Report:
    passages = [row for _, row in read_jsonl(ROOT / "samples" / "corpus.jsonl")][:PASSAGES]
    with AdiabatClient(client.url, KEY) as writing:
        writing.upsert_passages({"id": row["_id"], "text": row["text"]} for row in passages)
    port = int(client.url.rpartition(":")[2])
    took: dict[str, list[float]] = {name: [] for name in [*WRONG, ENDLESS]}
    others: dict[str, list[int]] = {name: [] for name in took}
    order = [name for name in took for _ in range(rounds)]
    random.Random(0).shuffle(order)
    for name in WRONG:
        refused(port, name)  # what is made once is made
    before = rss_mb(pid)
    for name in order:
        began = time.perf_counter()
        status = refused(port, name)
        took[name].append((time.perf_counter() - began) * 1000)
        if status != wanted(name):
            others[name].append(status)
    return {
        "rounds": rounds,
        "before_mb": round(before, 1),
        "after_mb": round(rss_mb(pid), 1),
        "refusals": {
            name: {"status": wanted(name), **quantiles(each), "others": others[name][:5]} for name, each in took.items()
        },
    }


ENDLESS = "a body that never ends"


def wanted(name: str) -> int:
    return 413 if name == ENDLESS else WRONG[name].status


def refused(port: int, name: str) -> int:
    """The status of the answer; 0 where the connection ended without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if name == ENDLESS:
                connection.sendall(head("POST", "/search", AUTHORIZED | {"Transfer-Encoding": "chunked"}))
                while True:
                    connection.sendall(CHUNK)
            connection.sendall(request(WRONG[name]))
        except OSError:
            pass  # refused before all was sent
        return answered(connection)


def request(wrong: Wrong) -> bytes:
    content = wrong.body.encode() if isinstance(wrong.body, str) else wrong.body
    if content is None:
        return head(wrong.method, wrong.path, wrong.headers)
    own = {"Content-Type": "application/json", "Content-Length": str(len(content)), **wrong.headers}
    return head(wrong.method, wrong.path, own) + content


def head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", *(f"{k}: {v}" for k, v in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answered(connection: socket.socket) -> int:
    received = b""
    try:
        while chunk := connection.recv(65_536):
            received += chunk
            told, blank, content = received.partition(b"\r\n\r\n")
            length = [line for line in told.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if blank and length and len(content) >= int(length[0].partition(b":")[2]):
                break
    except OSError:
        pass  # it was closed while we sent
    return int(received.split()[1]) if received else 0


if __name__ == "__main__":
    main()
