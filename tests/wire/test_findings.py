"""What a validator found, in the words of JSON and not in its own."""

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from app.plainly import TOLD
from app.wire.findings import said
from app.wire.search import SearchRequest


class Inner(BaseModel):
    name: str = ""


class Body(BaseModel):
    count: Annotated[int, Field(ge=1)] = 1
    names: Annotated[list[str], Field(min_length=1, max_length=2)] = ["a"]
    inner: Inner = Inner()
    text: Annotated[str, Field(min_length=1)] = "a"
    said: bool = False


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ([], "must be a JSON object, not []"),
        ({"inner": "x"}, "must be a JSON object, not 'x'"),
        ({"count": "many"}, "must be a whole number, not 'many'"),
        ({"count": 1.5}, "must be a whole number, not 1.5"),
        ({"count": 0}, "must be greater than or equal to 1, not 0"),
        ({"names": []}, "must have at least 1 item, not 0"),
        ({"names": ["a", "b", "c"]}, "must have at most 2 items, not 3"),
        ({"text": ""}, "must have at least 1 character, not ''"),
        ({"text": 5}, "must be a valid string, not 5"),
        ({"said": "maybe"}, "must be true or false, not 'maybe'"),
    ],
)
def test_what_was_expected_and_given_is_said_plainly(body: Any, sentence: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Body.model_validate(body)
    assert [said(item) for item in refused.value.errors()] == [sentence]


def test_of_a_million_unknown_fields_a_few_are_told() -> None:
    with pytest.raises(ValidationError) as refused:
        SearchRequest.model_validate(dict.fromkeys(map(str, range(10**6)), 1) | {"query": "x"})
    assert len(refused.value.errors()) == TOLD
    with pytest.raises(ValidationError) as refused:
        SearchRequest.model_validate({"query": "x", "lmit" * 10**5: 1})
    assert len(said(refused.value.errors()[0])) < 300
