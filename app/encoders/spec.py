"""What an encoder is, apart from its weights: read from its folder, whichever version wrote it.

Sentence-transformers keeps one fact in different files from version to version; `read_spec` gives equal
records for equal encoders. What changes no vector (library versions, dropout, where it came from) is left out.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from app.encoders.architecture import architecture
from app.encoders.chain import Module
from app.encoders.overlay import EncoderFiles
from app.errors import EncoderBroken, SourceRefused

PoolingMode = Literal["mean", "cls", "max", "lasttoken"]
_POOLING_MODES: tuple[PoolingMode, ...] = ("mean", "cls", "max", "lasttoken")
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ACTIVATIONS = {"Tanh": "tanh", "Identity": "identity", "ReLU": "relu", "GELU": "gelu", "Sigmoid": "sigmoid"}
_TRANSFORMER_CONFIGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_xlm-roberta_config.json",
)
# Keys of the transformer module that say nothing or only the usual.
_USUAL: dict[str, tuple[Any, ...]] = {
    "transformer_task": ("feature-extraction",),
    "modality_config": ({"text": {"method": "forward", "method_output_name": "last_hidden_state"}},),
    "module_output_name": ("token_embeddings",),
}
# By content: parsing a large vocabulary stops every other thread.
_LOWERCASES: dict[str, bool] = {}
MAX_DENSE = 2**14
_PASSAGE_NAMES = ("passage", "document", "corpus")


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseLayer:
    in_features: int
    out_features: int
    bias: bool
    activation: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderSpec:
    """`dimension` is that of the vectors; `max_length` counts tokens, special ones included."""

    model_type: str
    architecture: str  # canonical JSON of what shapes the transformer's computation
    dimension: int
    max_length: int
    lower_case: bool
    pooling: PoolingMode
    dense: tuple[DenseLayer, ...]
    normalize: bool
    query_prompt: str
    passage_prompt: str
    pad_token_id: int
    padding_side: Literal["left", "right"]
    truncation_side: Literal["left", "right"]
    token_types: bool

    def graph_json(self) -> str:
        """Canonical JSON of all that shapes the computation from tokens to vectors."""
        dense = [asdict(layer) for layer in self.dense]
        said = {
            "architecture": self.architecture,
            "pooling": self.pooling,
            "dense": dense,
            "normalize": self.normalize,
        }
        return json.dumps(said | {"token_types": self.token_types}, sort_keys=True)

    def canonical_json(self) -> str:
        """Canonical JSON of all that shapes a query's vector: the passage prompt is not in it."""
        said = asdict(self)
        del said["passage_prompt"]
        return json.dumps(said, sort_keys=True, ensure_ascii=False)


def read_spec(files: EncoderFiles) -> EncoderSpec:
    """Read the encoder's spec.

    Raises `SourceRefused` (unsafe or unsupported), `EncoderBroken` (damaged) or `TooLarge` (sizes that no encoder has).
    """
    try:
        return _read_spec(files)
    except (TypeError, ValueError, AttributeError, KeyError, OverflowError, RecursionError) as error:
        raise EncoderBroken(f"The encoder's configuration holds a value of a kind it cannot have ({error}).") from error


def _read_spec(files: EncoderFiles) -> EncoderSpec:
    config = _mapping(files, str(files.transformer / "config.json"))
    shape = architecture(config)
    said = _transformer_config(files)
    tokenizer = _optional(files, str(files.transformer / "tokenizer_config.json"))
    pooling = _pooling(_mapping(files, f"{files.modules[1].path}/config.json"))
    dense = tuple(_dense(files, module) for module in files.modules if module.kind == "Dense")
    _check_normalize(files)
    prompts = _optional(files, "config_sentence_transformers.json")
    if tokenizer.get("auto_map"):
        raise SourceRefused("tokenizer_config.json has an auto_map: code that comes with the model is never run here.")
    return EncoderSpec(
        model_type=shape.model_type,
        architecture=shape.canonical,
        dimension=dense[-1].out_features if dense else shape.hidden,
        max_length=_max_length(said, tokenizer, shape.positions),
        lower_case=bool(said.get("do_lower_case")) or _lowercases(files),
        pooling=pooling,
        dense=dense,
        normalize=files.modules[-1].kind == "Normalize",
        query_prompt=_prompt(prompts, ("query",)),
        passage_prompt=_prompt(prompts, _PASSAGE_NAMES),
        pad_token_id=shape.pad_token_id,
        padding_side=_side(tokenizer, "padding_side"),
        truncation_side=_side(tokenizer, "truncation_side"),
        token_types=shape.token_types,
    )


def with_prompts(spec: EncoderSpec, *, query: str | None = None, passage: str | None = None) -> EncoderSpec:
    """`spec` with the prompts that are not None put in place of its own."""
    return replace(
        spec,
        query_prompt=spec.query_prompt if query is None else query,
        passage_prompt=spec.passage_prompt if passage is None else passage,
    )


def _transformer_config(files: EncoderFiles) -> Mapping[str, Any]:
    names = [str(files.transformer / name) for name in _TRANSFORMER_CONFIGS]
    said = next((_mapping(files, name) for name in names if files.path(name).exists()), {})
    for key, value in said.items():
        if key in ("max_seq_length", "do_lower_case") or not value or value in _USUAL.get(key, ()):
            continue
        raise SourceRefused(f"The Transformer module sets {key}={value!r}, which is not supported.")
    return said


def _pooling(config: Mapping[str, Any]) -> PoolingMode:
    flags = [mode for flag, mode in _POOLING_FLAGS.items() if config.get(flag)]
    said = config.get("pooling_mode", flags or ["mean"])
    modes = [said] if isinstance(said, str) else list(said)
    if len(modes) != 1 or modes[0] not in _POOLING_MODES:
        raise SourceRefused(f"Pooling {'+'.join(modes)} is not supported; one of {', '.join(_POOLING_MODES)} is.")
    if not config.get("include_prompt", True):
        raise SourceRefused("Pooling with include_prompt=false is not supported; only pooling over all tokens is.")
    return modes[0]


def _dense(files: EncoderFiles, module: Module) -> DenseLayer:
    config = _mapping(files, f"{module.path}/config.json")
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    package, _, name = activation.rpartition(".")
    if not package.startswith("torch.nn") or name not in _ACTIVATIONS:
        raise SourceRefused(f"Dense with activation {activation} is not supported; {', '.join(_ACTIVATIONS)} are.")
    names = {str(config.get(key, "sentence_embedding")) for key in ("module_input_name", "module_output_name")}
    if config.get("use_residual") or names != {"sentence_embedding"}:
        raise SourceRefused("Dense is only supported on the sentence embedding and without a residual.")
    try:
        shape = int(config["in_features"]), int(config["out_features"])
    except (KeyError, TypeError, ValueError) as error:
        raise EncoderBroken(f"{module.path}/config.json lacks in_features or out_features.") from error
    if not all(1 <= features <= MAX_DENSE for features in shape):
        raise EncoderBroken(f"{module.path}/config.json: Dense takes {shape[0]} and gives {shape[1]} features.")
    return DenseLayer(
        in_features=shape[0],
        out_features=shape[1],
        bias=bool(config.get("bias", True)),
        activation=_ACTIVATIONS[name],
    )


def _check_normalize(files: EncoderFiles) -> None:
    for module in files.modules:
        config = _optional(files, f"{module.path}/config.json") if module.kind == "Normalize" else {}
        if {str(v) for k, v in config.items() if k.startswith("module_")} - {"sentence_embedding"}:
            raise SourceRefused("Normalize is only supported on the sentence embedding.")


def _max_length(said: Mapping[str, Any], tokenizer: Mapping[str, Any], positions: int) -> int:
    """As sentence-transformers: its own limit, else the tokenizer's; never more than the model has positions."""
    limits = [said.get("max_seq_length") or tokenizer.get("model_max_length") or positions, positions]
    length = int(min(limits))
    if length < 3:
        raise EncoderBroken(f"The maximum length is {length} tokens; it must leave room for text.")
    return length


def _lowercases(files: EncoderFiles) -> bool:
    """Whether the tokenizer lower-cases as a step of its own, which is how newer versions keep the flag."""
    name = str(files.transformer / "tokenizer.json")
    path = files.path(name)
    key = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
    if key not in _LOWERCASES:
        normalizer = _optional(files, name).get("normalizer") or {}
        steps = normalizer.get("normalizers", [normalizer])
        _LOWERCASES[key] = any(step.get("type") == "Lowercase" for step in steps)
    return _LOWERCASES[key]


def _prompt(config: Mapping[str, Any], names: tuple[str, ...]) -> str:
    prompts = config.get("prompts") or {}
    found = [prompts[name] for name in (*names, config.get("default_prompt_name")) if prompts.get(name)]
    prompt = str(found[0]) if found else ""
    prompt.encode()  # half a character is no text: ValueError
    return prompt


def _side(tokenizer: Mapping[str, Any], key: str) -> Literal["left", "right"]:
    return "left" if tokenizer.get(key) == "left" else "right"


def _mapping(files: EncoderFiles, name: str) -> Mapping[str, Any]:
    found = files.json(name)
    if not isinstance(found, dict):
        raise EncoderBroken(f"{name} is not a JSON object.")
    return found


def _optional(files: EncoderFiles, name: str) -> Mapping[str, Any]:
    return _mapping(files, name) if files.path(name).exists() else {}
