"""`/v1/embeddings` and `/v1/models` in OpenAI's shape, so that its clients embed queries with the active encoder."""

import asyncio
import base64
from collections.abc import Sequence

import numpy as np
import orjson
from fastapi import APIRouter, Response
from numpy.typing import NDArray

from app.api.deps import Parts, PartsDep
from app.api.queries import check_query
from app.api.scopes import Scoped
from app.errors import InvalidField
from app.observe.logs import note
from app.openai_tokens import Vocabulary
from app.registry import EncoderRecord, EncoderState
from app.wire.openai import MAX_INPUTS, EmbeddingsRequest, EmbeddingsResponse, ModelList, ModelPublic

router = APIRouter(prefix="/v1", tags=["openai"], route_class=Scoped)

ACTIVE = "active"


@router.post("/embeddings", response_model=EmbeddingsResponse)
async def create_embeddings(body: EmbeddingsRequest, parts: PartsDep) -> Response:
    """Query vectors: the query prompt is applied. Passages are embedded by POST /passages alone."""
    texts = _texts(body, parts)
    encoder, generation, *_ = await parts.retrieval.encoder(None if body.model == ACTIVE else body.model)
    _check_dimensions(body.dimensions, encoder.spec.dimension)
    vectors = await encoder.embed_queries(texts)
    tokens = sum(await asyncio.to_thread(encoder.count_tokens, texts))
    record = encoder.record
    note(encoder=record.key, generation=generation)
    answer = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": number, "embedding": each}
            for number, each in enumerate(_written(vectors, body.encoding_format))
        ],
        "model": record.key,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "encoder": {
            "name": record.name,
            "version": record.version,
            "digest": record.digest,
            "generation": generation,
        },
    }
    return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


@router.get("/models", response_model=ModelList)
def list_models(parts: PartsDep) -> ModelList:
    """`active` first, then every version that can be named."""
    ready = [each for each in parts.registry.encoders.all() if each.state is EncoderState.READY]
    return ModelList(data=[_active(parts), *(_model(each.key, each) for each in ready)])


@router.get("/models/{model}", response_model=ModelPublic)
def read_model(model: str, parts: PartsDep) -> ModelPublic:
    return _active(parts) if model == ACTIVE else _model(model, parts.registry.encoders.find(model))


def _active(parts: PartsDep) -> ModelPublic:
    return _model(ACTIVE, parts.slot.current.encoder.record)


def _model(name: str, record: EncoderRecord) -> ModelPublic:
    return ModelPublic(id=name, created=int(record.created_at))


def _texts(body: EmbeddingsRequest, parts: Parts) -> list[str]:
    given = _inputs(body)
    if not 0 < len(given) <= MAX_INPUTS:
        raise InvalidField("input", f"has {len(given)} texts; 1 to {MAX_INPUTS} may be sent at once.")
    texts = []
    for number, each in enumerate(given):
        text = each if isinstance(each, str) else _read_back(number, each, parts.vocabulary)
        check_query(f"input[{number}]", text, parts.settings)
        texts.append(text)
    return texts


def _inputs(body: EmbeddingsRequest) -> Sequence[str | list[int]]:
    """A list of numbers is one text in tokens."""
    if isinstance(body.input, str):
        return [body.input]
    numbers = [each for each in body.input if isinstance(each, int)]
    return [numbers] if numbers else [each for each in body.input if not isinstance(each, int)]


def _read_back(number: int, tokens: list[int], vocabulary: Vocabulary | None) -> str:
    if vocabulary is None:
        raise InvalidField(
            "input",
            "holds token numbers, which this service was given no vocabulary for; send text (LangChain: "
            "OpenAIEmbeddings(check_embedding_ctx_length=False)), or set ADIABAT_OPENAI_VOCABULARY where it runs.",
        )
    try:
        return vocabulary.text(tokens)
    except ValueError as error:
        raise InvalidField(f"input[{number}]", f"cannot be read back: {error}; send text.") from error


def _check_dimensions(asked: int | None, dimension: int) -> None:
    if asked not in (None, dimension):
        raise InvalidField(
            "dimensions", f"is {asked}; this encoder has {dimension}, and cutting it would leave the index."
        )


def _written(vectors: NDArray[np.float32], encoding: str) -> list[NDArray[np.float32]] | list[str]:
    if encoding == "float":
        return list(vectors)
    return [base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors]
