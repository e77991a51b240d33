"""Loaded encoders over engines that a test made, without artifact store or registry."""

from app.encoders.digest import digest_encoder
from app.encoders.dispatch import Dispatcher
from app.encoders.engine import Engine
from app.encoders.files import EncoderFiles
from app.encoders.loaded import LoadedEncoder
from app.encoders.query_cache import QueryCache
from app.encoders.spec import EncoderSpec, read_spec
from app.registry import Admission, EncoderRecord, EncoderState


def record(number: int, digest: str = "") -> EncoderRecord:
    return EncoderRecord(
        id=number,
        name=f"e{number}",
        version=1,
        digest=digest,
        base_digest=None,
        parent_digest=None,
        admission=Admission.FORCED,
        state=EncoderState.READY,
        size_bytes=0,
        description="",
        labels={},
        metrics={},
        checks=[],
        created_at=0.0,
    )


def loaded(
    engine: Engine, files: EncoderFiles, cache: QueryCache, *, number: int = 1, spec: EncoderSpec | None = None
) -> LoadedEncoder:
    """Whoever made it closes its dispatcher."""
    spec = spec or read_spec(files)
    return LoadedEncoder(
        record=record(number, digest_encoder(files, spec)),
        spec=spec,
        dispatcher=Dispatcher(engine, max_waiting=1_000),
        cache=cache,
        load_ms=0,
        warmup_ms=0,
        weights_bytes=engine.weights_bytes,
        shared_bytes=engine.shared_bytes,
    )
