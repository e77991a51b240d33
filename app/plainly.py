"""Refusals in words: one sentence under the name that the field has."""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice
from typing import Any

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

GIVEN_CHARS = 60
TOLD = 10  # unknown fields of one object: a body may have a million


class StrictModel(BaseModel):
    """Unknown fields are refused, and told what they may have meant: a misspelt option must not pass in silence."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        known = cls.model_fields
        if isinstance(value, dict) and (unknown := [name for name in value if name not in known]):
            aliases = [each.validation_alias for each in known.values()]
            choices = {name for each in aliases if isinstance(each, AliasChoices) for name in each.choices}
            if unknown := [name for name in unknown if name not in choices]:
                found = [_unknown(name, value[name], known) for name in unknown[:TOLD]]
                raise ValidationError.from_exception_data(cls.__name__, found)
        return value


def _unknown(name: Any, value: Any, known: Iterable[str]) -> InitErrorDetails:
    name = str(name)[:GIVEN_CHARS]
    kind = PydanticCustomError("unknown_field", "{said}", {"said": f"is not known here; {likely(name, known)}"})
    return InitErrorDetails(type=kind, loc=(name,), input=value)


def likely(name: str, known: Iterable[str]) -> str:
    """What to write in place of a name that is none of these."""
    names = sorted(known)
    begun = (each for each in names if each.startswith(name) or name.startswith(each))  # as q and query
    if near := get_close_matches(name, names, n=1) or list(islice(begun, 1)):
        return f"did you mean {near[0]!r}?"
    return f"what is taken: {', '.join(names)}"


def plainly(expected: str) -> WrapValidator:
    """One sentence for a value that does not fit, where the validator would tell a pattern, or a finding for each kind
    of a union. It goes on from the field's name, as in "must be a text"."""

    def validate(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            raise ValueError(f"{expected}, not {given(value)}") from error

    return WrapValidator(validate)


def given(value: Any) -> str:
    """What was sent, cut to a length that fits into a sentence; of a list the item that is not as the first."""
    if isinstance(value, list):
        odd = (number for number, item in enumerate(value) if type(item) is not type(value[0]))
        if (number := next(odd, None)) is not None:
            return f"{given(value[number])} as item {number}"
    said = repr(value)
    return said if len(said) <= GIVEN_CHARS else said[: GIVEN_CHARS - 1] + "…"
