"""What `/v1/embeddings` and `/v1/models` take and answer: the shapes of OpenAI's API."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from app.plainly import plainly
from app.wire.common import EncoderUsed, PublicModel, RequestModel

MAX_INPUTS = 2_048


class EmbeddingsRequest(RequestModel):
    model: Annotated[str, Field(min_length=1, max_length=140, description="`active`, or an encoder's name or version.")]
    input: Annotated[
        str | list[str] | list[int] | list[list[int]],
        Field(
            description="A text or up to 2,048. Each may come in the token numbers of `cl100k_base`, where the service "
            "has that vocabulary (ADIABAT_OPENAI_VOCABULARY)."
        ),
        plainly("must be a text, a list of texts, or the token numbers of one or several"),
    ]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int | None, Field(description="Only the encoder's own dimension.")] = None
    user: str | None = None

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "active", "input": ["what is a brood box", "when do bees swarm"]}]}
    )


class Embedding(PublicModel):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: Annotated[list[float] | str, Field(description="Numbers, or little-endian fp32 in base64.")]


class Usage(PublicModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(PublicModel):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: Annotated[str, Field(description="`name@version` of the encoder that was used.")]
    usage: Usage
    encoder: EncoderUsed


class ModelPublic(PublicModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["adiabat"] = "adiabat"


class ModelList(PublicModel):
    object: Literal["list"] = "list"
    data: list[ModelPublic]
