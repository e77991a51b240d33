"""A guard's own corpus as a matrix on disk, embedded once by the passage encoder and searched exactly.

The folder's name is a key over everything the vectors depend on, so a matrix is never stale, only unused.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from app.errors import BadDataset
from trainer.embed import OnProgress, dimension, embed, ignore_progress
from trainer.stopping import ShouldStop, never
from trainer.training_set import Matrix, read_matrix

FORMAT = "1"


def corpus_matrix(
    model: SentenceTransformer,
    corpus: Path,
    cache: Path,
    *,
    encoder_digest: str,
    passage_prompt: str = "",
    on_progress: OnProgress = ignore_progress,
    should_stop: ShouldStop = never,
) -> Matrix:
    """The matrix of `corpus` (a corpus.jsonl), cached or embedded now with the passage encoder."""
    folder = cache / _key(corpus, encoder_digest, passage_prompt)
    if not (folder / "meta.json").is_file():
        ids, texts = read_corpus(corpus)
        _publish(model, ids, texts, folder, passage_prompt, on_progress, should_stop)
    return read_matrix(folder)


def read_corpus(path: Path) -> tuple[list[str], list[str]]:
    """Ids and the texts as they are embedded: after the title and a newline where there is one."""
    records: dict[str, str] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                passage_id, text = _parse_passage(line, number)
                records[passage_id] = text
    if not records:
        raise BadDataset(f"The corpus of '{path.parent.name}' has no passages.")
    return list(records), list(records.values())


def _parse_passage(line: str, number: int) -> tuple[str, str]:
    try:
        record = json.loads(line)
        passage_id, text, title = record["_id"], record["text"], record.get("title") or ""
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadDataset(f"corpus.jsonl, line {number}: expected a JSON object with '_id' and 'text'.") from None
    if not isinstance(text, str) or not isinstance(title, str) or not text.strip():
        raise BadDataset(f"corpus.jsonl, line {number}: the text of passage '{passage_id}' is empty.")
    return str(passage_id), f"{title}\n{text}" if title else text


def _key(corpus: Path, encoder_digest: str, passage_prompt: str) -> str:
    with corpus.open("rb") as content:
        corpus_digest = hashlib.file_digest(content, "sha256").hexdigest()
    parts = json.dumps([FORMAT, corpus_digest, encoder_digest, passage_prompt])
    return hashlib.sha256(parts.encode()).hexdigest()[:32]


def _publish(
    model: SentenceTransformer,
    ids: Sequence[str],
    texts: Sequence[str],
    folder: Path,
    prompt: str,
    on_progress: OnProgress,
    should_stop: ShouldStop,
) -> None:
    """Builds beside the folder and renames: a matrix is there whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        shape = (len(texts), dimension(model))
        out = np.lib.format.open_memmap(building / "vectors.npy", mode="w+", dtype=np.float32, shape=shape)
        embed(model, texts, prompt=prompt, out=out, on_progress=on_progress, should_stop=should_stop)
        out.flush()
        np.save(building / "groups.npy", group_texts(texts))
        _write(building / "ids.json", ids)
        _write(building / "meta.json", {"count": shape[0], "dim": shape[1]})
        _rename(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def group_texts(texts: Sequence[str]) -> NDArray[np.int32]:
    """A number per text, the same for the same text: (n,) int32."""
    number: dict[str, int] = {}
    return np.array([number.setdefault(text, len(number)) for text in texts], dtype=np.int32)


def _write(path: Path, content: object) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())


def _rename(building: Path, folder: Path) -> None:
    try:
        building.rename(folder)
    except OSError:
        # Another trainer was faster; its matrix is the same. Anything else that stands there is in the way.
        if not (folder / "meta.json").is_file():
            raise
