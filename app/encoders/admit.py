"""The child that looks at a foreign encoder: `python -m app.encoders.admit` reads a request, writes an answer.

It runs apart from the service because it parses files that strangers made. It reads the source, refuses
what is unsafe, embeds the probe texts, and writes a staged artifact (delta where it can, full otherwise).
It decides nothing about admission: it reports figures.
"""

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from app.encoders.artifacts import MANIFEST, PROBES, Manifest
from app.encoders.child import confine, ran_out_of_memory
from app.encoders.digest import digest_encoder
from app.encoders.engine import chosen, load_engine
from app.encoders.export import graph_key
from app.encoders.files import check_finite, write_delta, write_full
from app.encoders.overlay import EncoderFiles
from app.encoders.probes import PROBE_TEXTS, check_unit
from app.encoders.spec import EncoderSpec, read_spec
from app.encoders.tokenize import make_tokenizer, tokenizer_json
from app.encoders.tokenizer_rules import check_hard_texts, check_ids, check_tokenizer
from app.errors import AdiabatError, EncoderBroken, EncoderRefused

LIBRARIES = ("torch", "transformers", "sentence-transformers", "safetensors", "tokenizers", "onnxruntime")
MAX_DETAIL_CHARS = 1_000
MAX_TYPES = 2**31  # where the encoder does not look at token types


@dataclass(frozen=True, kw_only=True, slots=True)
class AdmitRequest:
    source: str
    source_base: str | None  # where `source` itself is a delta: the base it lies over
    base: str | None  # the collection's base artifact; None while the base itself is made
    staging: str
    graphs: str
    weights: str
    engine: str
    threads: int
    query_prompt: str | None = None
    passage_prompt: str | None = None


def admit(request: AdmitRequest) -> dict[str, Any]:
    """Stage the artifact and return what was found. Raises whatever refuses it."""
    source = EncoderFiles(Path(request.source), _files(request.source_base))
    staging = Path(request.staging)
    base = _files(request.base)
    spec = read_stranger(source, base)
    report: dict[str, Any] = {}
    if base is not None and graph_key(base, read_spec(base)) == graph_key(source, spec):
        report = asdict(write_delta(base, source, staging))
        staged = EncoderFiles(staging, base)
    else:
        if chosen(request.engine) == "torch":  # the export of a graph does so too
            from app.encoders.export_torch import check_parameters

            check_parameters(source, spec)
        write_full(source, staging)
        _override_prompts(staging, query=request.query_prompt, passage=request.passage_prompt)
        staged = EncoderFiles(staging, None)
    spec = read_spec(staged)
    digest = digest_encoder(staged, spec)
    vectors = _probe(staged, request)
    np.save(staging / PROBES, vectors)
    claimed = _claimed_lineage(source, digest)
    manifest = Manifest(
        digest=digest,
        base_digest=claimed.base_digest if claimed else None,
        parent_digest=claimed.parent_digest if claimed else None,
        form="delta" if staged.base is not None else "full",
        dimension=spec.dimension,
        max_length=spec.max_length,
        query_prompt=spec.query_prompt,
        passage_prompt=spec.passage_prompt,
        recipe=claimed.recipe if claimed else None,
        metrics=claimed.metrics if claimed else {},
        weights=report,
        libraries={name: version(name) for name in LIBRARIES},
    )
    manifest.write(staging)
    return {"manifest": asdict(manifest)}


def read_stranger(source: EncoderFiles, base: EncoderFiles | None) -> EncoderSpec:
    """Look at everything there is, before anything is made of it. Raises whatever refuses the encoder."""
    spec = read_spec(source)
    if base is not None and (expected := read_spec(base).dimension) != spec.dimension:
        raise EncoderRefused(
            f"The encoder gives {spec.dimension} dimensions, the collection stores {expected}: "
            "this can never be searched with it, force or not."
        )
    if base is not None and tokenizer_json(source) != tokenizer_json(base):
        _check_tokenizer(source, spec)  # the base's own is the operator's choice, which needs no permission
    check_finite(source)
    return spec


def _check_tokenizer(source: EncoderFiles, spec: EncoderSpec) -> None:
    content = tokenizer_json(source)
    check_tokenizer(content)
    tokenizer = make_tokenizer(content, lower_case=spec.lower_case)
    shape = json.loads(spec.architecture)
    check_ids(
        tokenizer,
        vocabulary=shape["vocab_size"],
        token_types=shape.get("type_vocab_size", 1) if spec.token_types else MAX_TYPES,
        pad_token_id=spec.pad_token_id,
    )
    check_hard_texts(tokenizer)


def _files(folder: str | None) -> EncoderFiles | None:
    return None if folder is None else EncoderFiles(Path(folder), None)


def _override_prompts(folder: Path, *, query: str | None, passage: str | None) -> None:
    """Write the operator's prompts into the artifact: from then on they are the encoder's own."""
    if query is None and passage is None:
        return
    path = folder / "config_sentence_transformers.json"
    config = json.loads(path.read_text()) if path.exists() else {}
    prompts = dict(config.get("prompts") or {})
    prompts |= {name: text for name, text in (("query", query), ("passage", passage)) if text is not None}
    path.write_text(json.dumps(config | {"prompts": prompts}, indent=2, ensure_ascii=False))


def _probe(files: EncoderFiles, request: AdmitRequest) -> np.ndarray[Any, np.dtype[np.float32]]:
    spec = read_spec(files)
    engine = load_engine(
        files,
        spec,
        kind=request.engine,
        threads=request.threads,
        graphs_dir=Path(request.graphs),
        weights_dir=Path(request.weights),
    )
    vectors = engine.embed(list(PROBE_TEXTS), spec.query_prompt)
    engine.close()
    check_unit(vectors, spec.dimension)
    return vectors


def _claimed_lineage(source: EncoderFiles, digest: str) -> Manifest | None:
    """The lineage a folder claims counts only if its weights are still the ones it was written for."""
    if not (source.own / MANIFEST).exists():
        return None
    try:
        claimed = Manifest.read(source.own)
    except EncoderBroken:
        return None
    return claimed if claimed.digest == digest else None


def main() -> None:
    """Answer on standard output: `{"ok": …}` or `{"refused": {"class", "detail"}}`; a crash says neither."""
    request = AdmitRequest(**json.loads(confine()))
    try:
        answer: dict[str, Any] = {"ok": admit(request)}
    except OSError as error:
        answer = _refused("Unavailable", f"The encoder could not be read or staged ({error}).")
    except AdiabatError as error:
        answer = _refused(type(error).__name__, error.detail)
    except MemoryError:
        raise
    except Exception as error:  # whatever a stranger's files make their readers raise
        if ran_out_of_memory(said := str(error)):
            raise
        answer = _refused(
            "EncoderBroken", f"The encoder's files are not what they should be ({type(error).__name__}: {said})."
        )
    print(json.dumps(answer))


def _refused(kind: str, detail: str) -> dict[str, Any]:
    return {"refused": {"class": kind, "detail": detail[:MAX_DETAIL_CHARS]}}


if __name__ == "__main__":
    main()
