"""Refusals in words: one sentence under the name that the field has."""

from typing import Any

from pydantic import ValidationError, ValidatorFunctionWrapHandler, WrapValidator

GIVEN_CHARS = 60


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
