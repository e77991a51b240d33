"""What the tests of evaluations measure on: passages, questions in two languages, an encoder near the base."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.client import AdiabatClient
from app.settings import Settings
from tests.conftest import Service
from tests.service import encoders
from trainer.worker import Worker

TOPICS = ("water pump", "heart valve", "oil filter", "night light", "engine repair", "sleep pain")
LANGS = ("en", "de", "")
QUESTIONS = 30


def passages() -> list[dict[str, Any]]:
    return [{"id": f"p{n}", "text": f"the {TOPICS[n % 6]} and {n} {TOPICS[(n * 5 + 1) % 6]}"} for n in range(QUESTIONS)]


def questions(split: str = "test") -> list[dict[str, Any]]:
    return [
        {
            "id": f"{split}-{n}",
            "query": f"how does my {TOPICS[n % 6]} {n}",
            "lang": LANGS[n % 3],
            "split": split,
            "relevant": [f"p{n}"] + ([f"p{n + 1}"] if n % 4 == 0 else []),
        }
        for n in range(QUESTIONS)
    ]


def put(client: AdiabatClient, folder: Path, name: str, lines: list[dict[str, Any]]) -> None:
    path = folder / f"{name}.ndjson"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    client.put_dataset(name, path)


def stock(service: Service, tiny: Path, sources: Path, scratch: Path) -> Service:
    """Passages, an encoder `near@1`, the dataset `pumps` over the store and `own` with the same corpus of its own."""
    client = service.client
    client.upsert_passages(passages())
    encoders.near(tiny, sources / "near", scale=0.1)
    client.register_encoder("near", path="near", force=True)
    put(client, scratch, "pumps", [*questions(), {"query": "why", "split": "gone", "relevant": ["no-such"]}])
    own = [{"passage": each["text"], "id": each["id"]} for each in passages()]
    put(client, scratch, "own", own + questions())
    return service


@contextmanager
def working(settings: Settings) -> Iterator[Worker]:
    """The trainer's own worker, in a thread of the test: idle it would keep the interpreter from all others."""
    worker = Worker(settings, "test")
    thread = threading.Thread(target=worker.run)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("trainer.worker.be_idle", lambda: None)
        thread.start()
        try:
            yield worker
        finally:
            worker.stop()
            thread.join()
