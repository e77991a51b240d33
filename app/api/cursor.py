"""Cursors of a search: where the next page begins, and who answered the first one, by which rule."""

import base64
import hashlib
import json
from typing import Annotated

from pydantic import Field, TypeAdapter

from app.api.queries import MAX_SEQUENCE
from app.errors import InvalidField
from app.passages.fusion import DEPTH
from app.retrieval import Began, Draft, Rule
from app.wire.common import EncoderKey, Name
from app.wire.search import MAX_OFFSET, SearchRequest

# A cursor is nobody's secret: what it says goes into the query log, so it is held to what that takes.
Offset = Annotated[int, Field(ge=1, le=MAX_OFFSET)]
Generation = Annotated[int, Field(ge=1, le=MAX_SEQUENCE)]
AsBegan = tuple[EncoderKey, Generation | None, Rule, Name | None, tuple[EncoderKey, str] | None]
SAID = TypeAdapter(tuple[Offset, str, AsBegan])  # the second is the search's fingerprint


def to_cursor(body: SearchRequest, offset: int, began: Began) -> str:
    said = SAID.dump_json((offset, _fingerprint(body), began))
    return base64.urlsafe_b64encode(said).rstrip(b"=").decode()


def page_of(body: SearchRequest) -> tuple[int, Began | None]:
    """Where the page begins, and by a cursor who answered the first one. Raises `InvalidField`."""
    if body.cursor is None:
        return body.offset, None
    if body.offset or body.encoder or body.route:
        raise InvalidField(
            "cursor", "already says where to go on and with which encoder; leave out offset, encoder and route."
        )
    try:
        padded = body.cursor + "=" * (-len(body.cursor) % 4)
        offset, fingerprint, said = SAID.validate_json(base64.urlsafe_b64decode(padded), strict=True)
    except ValueError as error:
        raise _no_cursor() from error
    if fingerprint != _fingerprint(body):
        raise InvalidField("cursor", "belongs to another search: the same query, filter and options go with it.")
    encoder, generation, rule, route, drafted = said
    if drafted and offset >= DEPTH:  # both encoders are asked for all hits up to there
        raise _no_cursor()
    return offset, Began(encoder, generation, rule, route, Draft(*drafted) if drafted else None)


def _no_cursor() -> InvalidField:
    return InvalidField("cursor", "is not the next_cursor of an answer; begin again without it.")


def _fingerprint(body: SearchRequest) -> str:
    asked = [body.query, body.mode, body.filter, body.score_threshold, body.exact]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
