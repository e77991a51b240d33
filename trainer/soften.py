"""Takes back most of a tuning's step: theta = base + a (tuned - base), in fp32."""

from collections.abc import Mapping

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from app.errors import InvalidField

State = Mapping[str, Tensor]


def softened(base: State, tuned: State, a: float) -> dict[str, Tensor]:
    """New tensors, one for each name of `tuned`; shapes and names must agree with `base`. a = 1 keeps all."""
    if not 0 < a <= 1:
        raise InvalidField("soften", f"{a} is not above 0 and at most 1.")
    return {name: torch.lerp(base[name].float(), after.float(), a) for name, after in tuned.items()}


def load_softened(model: SentenceTransformer, base: State, tuned: State, a: float) -> None:
    """Puts the softened parameters into the model, in place; parameters not in `tuned` stay as they are."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in softened(base, tuned, a).items():
            parameters[name].copy_(value)
