"""Encoders of this project as models of MTEB, and MTEB's tasks for them; `pip install 'adiabat[mteb]'`.

    mteb.evaluate(AdiabatEncoder("./bees", "./base"), mteb.get_task("NFCorpus"))

Knows folders, as `adiabat export encoder` writes them, and no service.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import datasets
import mteb
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta
from mteb.types import PromptType
from numpy import float32
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from app.encoders.files import EncoderFiles
from app.encoders.spec import read_spec
from app.errors import BadInput

Row = dict[str, Any]


class AdiabatEncoder(AbsEncoder):
    """Passages are embedded by one encoder and everything else by another, each with its own prompt.

    `queries` and `passages` are sentence-transformers folders; `name` is what MTEB's results call the model. Where a
    task has but one kind of text (similarity, classification, clustering), that is embedded as queries are.
    """

    def __init__(self, queries: str | Path, passages: str | Path, name: str = "adiabat/encoder") -> None:
        self.model = SentenceTransformer(str(queries))  # MTEB also asks it how to compare two vectors
        self._passages = SentenceTransformer(str(passages))
        # As the service reads them: encode_document looks for "document" first, which is always there and empty.
        self._query_prompt = read_spec(EncoderFiles(Path(queries))).query_prompt
        self._passage_prompt = read_spec(EncoderFiles(Path(passages))).passage_prompt
        self.mteb_model_meta = ModelMeta.create_empty({"name": name})

    def encode(self, inputs: Any, *, prompt_type: PromptType | None = None, **options: Any) -> NDArray[float32]:
        """(texts, dimension), in the order of `inputs`, which come in batches."""
        texts = [text for batch in inputs for text in batch["text"]]
        for of_the_task in ("task_metadata", "hf_split", "hf_subset"):
            options.pop(of_the_task, None)
        if prompt_type == PromptType.document:
            return self._passages.encode_document(texts, prompt=self._passage_prompt, **options)
        return self.model.encode_query(texts, prompt=self._query_prompt, **options)


def loaded_task(name: str) -> Any:
    """One of MTEB's tasks, or MODULE:CLASS of one's own, with its data. Raises `BadInput` where that cannot be had."""
    datasets.disable_progress_bars()
    task = _own_task(name) if ":" in name else _known_task(name)
    try:
        task.load_data()
    except Exception as error:  # what may go wrong here is the task's own code, the hub and the network
        why = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"The data of the MTEB task {task.metadata.name} cannot be loaded here: {why}") from error
    return task


def _known_task(name: str) -> Any:
    try:
        return mteb.get_task(name)
    except KeyError as error:
        why = str(error.args[0]).removeprefix("KeyError: ")
        raise BadInput(f"MTEB has no such task: {why} One of your own is MODULE:CLASS.") from error


def _own_task(name: str) -> Any:
    module, _, own = name.partition(":")
    try:
        return getattr(import_module(module), own)()
    except (ImportError, AttributeError) as error:
        raise BadInput(
            f"{name!r} is no task: {error}. Give MODULE:CLASS, with the module's folder in PYTHONPATH."
        ) from error


def measured(task: Any, encoders: Mapping[str, AdiabatEncoder]) -> Iterator[tuple[str, Row]]:
    """(encoder, row) for each encoder, split and subset: the row tells these, and all scores of the encoder."""
    for key, encoder in encoders.items():
        (result,) = mteb.evaluate(encoder, task, cache=None, co2_tracker=False, show_progress_bar=False).task_results
        for split, parts in result.scores.items():
            for scores in parts:
                row = {"task": result.task_name, "split": split, "subset": scores["hf_subset"]}
                row |= {"languages": scores["languages"], "measure": task.metadata.main_score}
                yield (
                    key,
                    row | {"scores": {name: float(it) for name, it in scores.items() if isinstance(it, float | int)}},
                )
