"""Load on `/search`, from a process of its own: as fast as it goes, or at a fixed rate whatever the answers take.

    python bench/load.py URL QUESTIONS SECONDS OUT --clients 16     # closed: each client asks when it was answered
    python bench/load.py URL QUESTIONS SECONDS OUT --rate 200       # open: requests come as they come (Poisson)

QUESTIONS has one to a line. OUT gets an array (requests, 3): when a request was due (the system's monotonic clock), the
seconds from then to the end of its answer, and 1 where that was a 200. In the open form a request that is held up holds
up no other, and the time that it was late in being sent counts: nothing is left out when the service is slow.
"""

import argparse
import asyncio
import itertools
import json
import random
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

GIVE_UP_S = 30
IDLE_S = 2  # the service closes connections that are idle for 5
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
Row = tuple[float, float, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("questions", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("out", type=Path)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--clients", type=int)
    how.add_argument("--rate", type=float)
    given = parser.parse_args()
    service = Service(given.url, given.questions.read_text().splitlines())
    rate, clients = given.rate, given.clients
    load = open_loop(service, rate, given.seconds) if clients is None else closed(service, clients, given.seconds)
    np.save(given.out, np.array(asyncio.run(load), dtype=np.float64).reshape(-1, 3))


class Service:
    """Connections that are kept; each request takes one that is free, or a new one."""

    def __init__(self, url: str, questions: list[str]) -> None:
        at = urlsplit(url)
        self._host, self._port = at.hostname or "127.0.0.1", at.port or 80
        self._requests = itertools.cycle([self._request(each) for each in questions])
        self._free: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []

    def _request(self, question: str) -> bytes:
        body = json.dumps({"query": question}).encode()
        head = f"POST /search HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def ask(self, due: float) -> Row:
        try:
            good = await asyncio.wait_for(self._answered(next(self._requests)), GIVE_UP_S)
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            good = False
        return due, time.monotonic() - due, float(good)

    async def _answered(self, request: bytes) -> bool:
        reader, writer = await self._connection()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        answer = await reader.readexactly(int(length[1])) if length else b""
        self._free.append((time.monotonic(), reader, writer))
        if not head.startswith(b"HTTP/1.1 200"):
            print(answer.decode(errors="replace")[:300], file=sys.stderr)
            return False
        return True

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._free:
            since, reader, writer = self._free.pop()
            if time.monotonic() - since < IDLE_S and not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, self._port)


async def closed(service: Service, clients: int, seconds: float) -> list[Row]:
    until = time.monotonic() + seconds

    async def client() -> list[Row]:
        rows = []
        while (now := time.monotonic()) < until:
            rows.append(await service.ask(now))
        return rows

    return list(itertools.chain(*await asyncio.gather(*(client() for _ in range(clients)))))


async def open_loop(service: Service, rate: float, seconds: float) -> list[Row]:
    running = []
    for due in _arrivals(rate, seconds):
        if (early := due - time.monotonic()) > 0:
            await asyncio.sleep(early)
        running.append(asyncio.create_task(service.ask(due)))
    return list(await asyncio.gather(*running))


def _arrivals(rate: float, seconds: float) -> Iterator[float]:
    chance = random.Random(0)
    due = time.monotonic()
    until = due + seconds
    while (due := due + chance.expovariate(rate)) < until:
        yield due


if __name__ == "__main__":
    main()
