"""Cursors of a search: where the next page begins, and which encoder and generation the first one had."""

import base64
import hashlib
import json
from dataclasses import dataclass

import orjson

from app.errors import InvalidField
from app.passages.fusion import DEPTH
from app.retrieval import Draft
from app.wire.search import MAX_OFFSET, SearchRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    encoder: str | None
    generation: int | None
    offset: int
    drafted: Draft | None = None  # with whose hits the first page's were interleaved


def to_cursor(
    body: SearchRequest, encoder: str, generation: int | None, offset: int, drafted: Draft | None = None
) -> str:
    said = orjson.dumps([encoder, generation, offset, _fingerprint(body), *(drafted or ())])
    return base64.urlsafe_b64encode(said).rstrip(b"=").decode()


def page_of(body: SearchRequest) -> Page:
    """What the request's cursor says, or its own offset and encoder. Raises `InvalidField`."""
    if body.cursor is None:
        return Page(encoder=body.encoder, generation=None, offset=body.offset)
    if body.offset or body.encoder:
        raise InvalidField(
            "cursor", "already says where to go on and with which encoder; leave out offset and encoder."
        )
    try:
        padded = body.cursor + "=" * (-len(body.cursor) % 4)
        encoder, generation, offset, fingerprint, *drafted = orjson.loads(base64.urlsafe_b64decode(padded))
    except (ValueError, TypeError) as error:
        raise InvalidField("cursor", "is not the next_cursor of an answer; begin again without it.") from error
    if fingerprint != _fingerprint(body):
        raise InvalidField("cursor", "belongs to another search: the same query, filter and options go with it.")
    texts = [encoder, *drafted]
    far = DEPTH - 1 if drafted else MAX_OFFSET  # both encoders are asked for all hits up to there
    places = isinstance(offset, int) and 0 <= offset <= far and len(drafted) in (0, 2)
    if not (places and all(isinstance(each, str) for each in texts)):
        raise InvalidField("cursor", "is not the next_cursor of an answer; begin again without it.")
    return Page(
        encoder=encoder,
        generation=generation if isinstance(generation, int) else None,
        offset=offset,
        drafted=Draft(*drafted) if drafted else None,
    )


def _fingerprint(body: SearchRequest) -> str:
    asked = [body.query, body.mode, body.filter, body.score_threshold, body.exact]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
