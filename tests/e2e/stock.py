"""What the console shows in these tests: pumps and valves, told plainly and told by somebody who means harm."""

import json
from pathlib import Path
from typing import Any

from app.client import AdiabatClient
from tests.conftest import Service
from tests.service import encoders

TOPICS = ("water pump", "heart valve", "oil filter", "night light", "engine repair", "sleep pain")
WORDS = ("cost", "leak", "pressure", "fire", "doctor", "treatment", "symptom", "light", "oil", "sleep")
SPLITS = {"train": range(40), "dev": range(40, 52), "test": range(52, 64), "de": range(64, 76)}
QUERY = "how does my water pump leak"
RECIPE = {"learning_rate": 1e-3, "epochs": 2, "batch_size": 16, "eval_every": 2, "drift_budget": 1.5}
OPEN_GATE = {"min_gain": -1, "max_guard_loss": 1}

HOSTILE = [
    {
        "id": "evil/<b>",
        "title": "<img src=x onerror=alert(1)> & 🐝",
        "text": "<script>alert(1)</script> water pump leak " + "long " * 6_000,
        "metadata": {"lang": "fr", "<i>key</i>": "<u>value</u>", "deep": {"a": [1, {"b": "<s>"}]}},
    },
    {"id": "rtl", "title": "مضخة الماء", "text": "مضخة الماء تسرب water pump leak", "metadata": {"lang": "ar"}},
]


def passages() -> list[dict[str, Any]]:
    return [
        {
            "id": f"p{n}",
            "title": f"The {TOPICS[n % 6]}, {n}",
            "text": f"the {TOPICS[n % 6]} and the {WORDS[n % 10]} {n} {WORDS[(n * 7) % 10]} {WORDS[(n * 3) % 10]}",
            "metadata": {"lang": "de" if n >= 64 else "en", "topic": TOPICS[n % 6]},
        }
        for n in range(76)
    ]


def questions() -> list[dict[str, Any]]:
    return [
        {
            "query": f"how does my {TOPICS[n % 6]} {WORDS[n % 10]} for {n}",
            "split": split,
            "lang": "de" if split == "de" else "en",
            "relevant": [f"p{n}"],
        }
        for split, numbers in SPLITS.items()
        for n in numbers
    ]


def put_pumps(client: AdiabatClient, folder: Path) -> None:
    lines = folder / "pumps.ndjson"
    lines.write_text("".join(json.dumps(line) + "\n" for line in questions()))
    client.put_dataset("pumps", lines)


def fill(service: Service, tiny: Path, sources: Path) -> None:
    client = service.client
    client.upsert_passages([*passages(), *HOSTILE])
    put_pumps(client, sources)
    for name, seed, scale in (("near", 1, 0.03), ("spare", 2, 0.05)):
        encoders.near(tiny, sources / name, seed=seed, scale=scale)
        client.register_encoder(name, path=name, force=True, labels={"kind": "moved"})
