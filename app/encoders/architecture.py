"""The transformer families that we run, and what of their config.json shapes the computation.

A config written by an old version leaves out what had its default value then; a new one writes all. Both give
one canonical form here.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.errors import EncoderBroken, SourceRefused, TooLarge

_BERT: dict[str, Any] = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}
_MPNET = {key: value for key, value in _BERT.items() if key != "type_vocab_size"}
_FAMILIES: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "roberta": _BERT | {"vocab_size": 50265, "pad_token_id": 1},
    "xlm-roberta": _BERT | {"pad_token_id": 1},
    "mpnet": _MPNET | {"vocab_size": 30527, "relative_attention_num_buckets": 32, "pad_token_id": 1},
    "distilbert": {
        "vocab_size": 30522,
        "dim": 768,
        "n_layers": 6,
        "n_heads": 12,
        "hidden_dim": 3072,
        "activation": "gelu",
        "max_position_embeddings": 512,
        "pad_token_id": 0,
    },
    "modernbert": {
        "vocab_size": 50368,
        "hidden_size": 768,
        "intermediate_size": 1152,
        "num_hidden_layers": 22,
        "num_attention_heads": 12,
        "hidden_activation": "gelu",
        "max_position_embeddings": 8192,
        "norm_eps": 1e-5,
        "norm_bias": False,
        "pad_token_id": 50283,
        "attention_bias": False,
        "local_attention": 128,
        "mlp_bias": False,
    },
}
# Positions are counted from pad_token_id + 1, so that many rows of the table are never reached.
_POSITIONS_AFTER_PAD = ("roberta", "xlm-roberta", "mpnet")
_IMPLEMENTATIONS = (None, "eager", "sdpa")
# Variants of a family that the exported graph does not cover, with the value that is covered.
_ONLY = {
    "position_embedding_type": "absolute",
    "is_decoder": False,
    "add_cross_attention": False,
    "sinusoidal_pos_embds": False,
    "quantization_config": None,
}
# No encoder that is used comes near; what is over is a mistake, or a trap for whoever allocates first and looks later.
_MOST = {
    "vocab_size": 2**21,
    "hidden_size": 2**14,
    "dim": 2**14,
    "num_hidden_layers": 256,
    "n_layers": 256,
    "num_attention_heads": 2**10,
    "n_heads": 2**10,
    "intermediate_size": 2**17,
    "hidden_dim": 2**17,
    "max_position_embeddings": 2**20,
    "type_vocab_size": 2**10,
    "relative_attention_num_buckets": 2**10,
    "local_attention": 2**20,
}
MAX_PARAMETERS = 8 * 10**9


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """`positions` is the most tokens that the transformer takes."""

    model_type: str
    canonical: str
    hidden: int
    positions: int
    pad_token_id: int
    token_types: bool


def architecture(config: Mapping[str, Any]) -> Architecture:
    """Read a transformer's config.json. Raises `SourceRefused` for a family or variant that is not run."""
    model_type = str(config.get("model_type"))
    if config.get("auto_map"):
        raise SourceRefused("config.json has an auto_map: the model runs code of its own, which is never run here.")
    for key, value in config.items():  # a name with a slash in it would be fetched, and run
        if "implementation" in key and value not in _IMPLEMENTATIONS:
            raise SourceRefused(f"config.json sets {key}={value!r}, which is code from elsewhere; leave it out.")
    if model_type not in _FAMILIES:
        raise SourceRefused(f"The transformer is of type {model_type}; supported are {', '.join(_FAMILIES)}.")
    for key, value in _ONLY.items():
        if config.get(key) not in (None, value):
            raise SourceRefused(f"The transformer sets {key}={config[key]!r}; only {value!r} is supported.")
    said = {key: _said(config, key, default) for key, default in _FAMILIES[model_type].items()}
    _check_size(said)
    said |= {"model_type": model_type} | (_modernbert(config, said) if model_type == "modernbert" else {})
    offset = said["pad_token_id"] + 1 if model_type in _POSITIONS_AFTER_PAD else 0
    return Architecture(
        model_type=model_type,
        canonical=json.dumps(said, sort_keys=True),
        hidden=said.get("hidden_size") or said["dim"],
        positions=said["max_position_embeddings"] - offset,
        pad_token_id=said["pad_token_id"],
        token_types=model_type == "bert",
    )


def _check_size(said: Mapping[str, Any]) -> None:
    """Raises `EncoderBroken` or `TooLarge` before anything of that size is made."""
    for key, most in _MOST.items():
        if key in said and said[key] < 1:
            raise EncoderBroken(f"config.json: {key} is {said[key]}; at least 1 is expected.")
        if said.get(key, 0) > most:
            raise TooLarge(f"config.json: {key} is {said[key]}; at most {most} is read here.")
    if not 0 <= said["pad_token_id"] < said["vocab_size"]:
        raise EncoderBroken(f"config.json: pad_token_id is {said['pad_token_id']}, which the vocabulary has not.")
    if (asked := _parameters(said)) > MAX_PARAMETERS:
        raise TooLarge(
            f"config.json asks for about {asked:.1e} parameters; at most {MAX_PARAMETERS:.1e} are read here."
        )


def _parameters(said: Mapping[str, Any]) -> int:
    """About how many; exact enough to refuse by."""
    hidden = said.get("hidden_size") or said["dim"]
    inner = said.get("intermediate_size") or said["hidden_dim"]
    layers = said.get("num_hidden_layers") or said["n_layers"]
    tables = said["vocab_size"] + said["max_position_embeddings"]
    return int(hidden * (tables + layers * (4 * hidden + 2 * inner)))


def _said(config: Mapping[str, Any], key: str, default: Any) -> Any:
    value = config.get(key)
    if value is None:
        return default
    if isinstance(default, float) and isinstance(value, int | float):
        return float(value)
    if type(value) is not type(default):
        raise EncoderBroken(f"config.json: {key} is {str(value)[:80]!r}, expected something like {default!r}.")
    return value


def _modernbert(config: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Which layers look at everything and the rotary base of each kind, from the old keys or the new."""
    every = config.get("global_attn_every_n_layers") or 3
    usual = ["sliding_attention" if i % every else "full_attention" for i in range(said["num_hidden_layers"])]
    rope = config.get("rope_parameters") or {}
    kinds = {
        "full_attention": {
            "rope_type": "default",
            "rope_theta": config.get("global_rope_theta") or 160_000.0,
        },
        "sliding_attention": {
            "rope_type": "default",
            "rope_theta": config.get("local_rope_theta") or 10_000.0,
        },
    }
    rotary = {kind: default | (rope.get(kind) or {}) for kind, default in kinds.items()}
    for kind in rotary:
        rotary[kind]["rope_theta"] = float(rotary[kind]["rope_theta"])
    return {"layer_types": config.get("layer_types") or usual, "rotary": rotary}
