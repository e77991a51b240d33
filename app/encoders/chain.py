"""The modules of a sentence-transformers folder: which ones, where, and whether they are ones that we run."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import EncoderBroken, SourceRefused, TooLarge

KINDS = ("Transformer", "Pooling", "Dense", "Normalize")
MAX_JSON_BYTES = 64 * 2**20
MAX_MODULES = 16
MAX_PATH_CHARS = 60
CHAINS = "Transformer + Pooling [+ Dense …] [+ Normalize]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Module:
    """`path` is the module's folder inside the encoder's; "" for the top."""

    kind: str
    path: str


def read_modules(find: Callable[[str], Path]) -> tuple[Module, ...]:
    """The chain in order. Raises `SourceRefused` for a folder or a module that cannot be run safely."""
    if not find("modules.json").exists():
        raise SourceRefused(
            "The folder has no modules.json, so it is not in sentence-transformers form. "
            "Load it with SentenceTransformer, choose the pooling, and save it with model.save(folder)."
        )
    listed = read_json(find("modules.json"))
    if not isinstance(listed, list) or len(listed) > MAX_MODULES:
        raise EncoderBroken(f"modules.json is not a list of at most {MAX_MODULES} modules.")
    modules = tuple(_module(said) for said in listed)
    kinds = [module.kind for module in modules]
    ends = kinds[2:]
    if kinds[:2] != ["Transformer", "Pooling"] or "Normalize" in ends[:-1] or set(ends) - {"Dense", "Normalize"}:
        raise SourceRefused(f"The chain {' + '.join(kinds) or 'of no modules'} is not supported; {CHAINS} is.")
    return modules


def _module(said: Any) -> Module:
    try:
        kind, path = str(said["type"]), str(said["path"])
    except (TypeError, KeyError) as error:
        raise EncoderBroken("modules.json is not a list of modules with 'type' and 'path'.") from error
    package, _, name = kind.rpartition(".")
    if package.split(".")[0] != "sentence_transformers":
        raise SourceRefused(
            f"Module {kind} is code that comes with the model; such code is never run. Supported: {CHAINS}."
        )
    if name not in KINDS:
        raise SourceRefused(f"Module {kind} is not supported; {CHAINS} is.")
    if path.startswith("/") or ".." in Path(path).parts or not path.isprintable() or len(path) > MAX_PATH_CHARS:
        raise SourceRefused(f"Module {kind} lies at {path[:80]!r}, outside the encoder's folder or no name of one.")
    return Module(kind=name, path=path)


def read_json(path: Path) -> Any:
    """Parsed JSON. Raises `EncoderBroken` where the file is missing or is not JSON."""
    try:
        if (size := path.stat().st_size) > MAX_JSON_BYTES:
            raise TooLarge(f"{path.name} has {size} bytes; at most {MAX_JSON_BYTES} are read.")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EncoderBroken(f"{path.name} is missing or is not JSON ({error}).") from error
