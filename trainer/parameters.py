"""Which parameters a tuning moves, and how far they moved."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn import Parameter

from app.errors import InvalidField

# The number of a layer in a parameter's name; the number at the very beginning is that of the chain's module.
LAYER = re.compile(r"\d+\..*?\.(\d+)\.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Movement:
    """The distance between two states, over all tuned weights."""

    weights: int
    moved: int
    max_change: float
    mean_change: float

    @property
    def share(self) -> float:
        return self.moved / self.weights


def choose_parameters(model: SentenceTransformer, freeze: Sequence[str]) -> dict[str, Parameter]:
    """The parameters to tune by name; every other one is frozen here. InvalidField for a useless pattern."""
    named = dict(model.named_parameters())
    for pattern in freeze:
        if not any(fnmatchcase(name, pattern) for name in named):
            alike = ", ".join(f"'{name}'" for name in get_close_matches(pattern, named, n=3, cutoff=0))
            raise InvalidField(
                "recipe.freeze", f"'{pattern}' matches no parameter; the names most like it are {alike}."
            )
    always = _embedding_block(model)
    chosen = {
        name: parameter
        for name, parameter in named.items()
        if not name.startswith(always) and not any(fnmatchcase(name, pattern) for pattern in freeze)
    }
    if not chosen:
        raise InvalidField("recipe.freeze", f"{list(freeze)} and the embedding block leave no parameter to tune.")
    for name, parameter in named.items():
        parameter.requires_grad_(name in chosen)
    return chosen


def copy_parameters(parameters: Mapping[str, Parameter]) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def load_parameters(parameters: Mapping[str, Parameter], values: Mapping[str, Tensor]) -> None:
    """Copies `values` into the parameters of the same names; the others stay as they are."""
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


def rate_scales(names: Iterable[str], layer_decay: float) -> dict[str, float]:
    """What the learning rate of each parameter is multiplied with: layer_decay ** (layers above its own).

    1 for what is in no layer, such as a head. Discriminative rates, Howard and Ruder 2018 (arXiv 1801.06146).
    """
    layers = {name: int(found[1]) if (found := LAYER.match(name)) else None for name in names}
    top = max((layer for layer in layers.values() if layer is not None), default=0)
    return {name: 1.0 if layer is None else layer_decay ** (top - layer) for name, layer in layers.items()}


def movement(start: Mapping[str, Tensor], tuned: Mapping[str, Tensor]) -> Movement:
    """How far `tuned` is from `start`, weight by weight; both have the same names and shapes."""
    changes = [(tuned[name] - start[name]).abs() for name in tuned]
    weights = sum(change.numel() for change in changes)
    return Movement(
        weights=weights,
        moved=sum(int(change.count_nonzero()) for change in changes),
        max_change=max(float(change.max()) for change in changes),
        mean_change=sum(float(change.sum()) for change in changes) / weights,
    )


def _embedding_block(model: SentenceTransformer) -> str:
    """The name prefix of the word embeddings and, where they share a block, positions and norm."""
    table = model[0].model.get_input_embeddings()
    name = next(name for name, module in model.named_modules() if module is table)
    block = name.rpartition(".")[0]
    # Decoders keep their table beside the layers instead of in a block of its own; then it is frozen alone.
    return f"{block}." if block.endswith("embeddings") else f"{name}."
