"""What a validator found wrong, in words that say what mends it."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from app.plainly import given

SHOWN = 3
OBJECT = ("model_attributes_type", "model_type", "dict_type")
WHOLE = ("int_parsing", "int_from_float", "int_type")
SIZED = {"too_short": ("at least", "min_length"), "too_long": ("at most", "max_length")}


def said(item: Mapping[str, Any]) -> str:
    """One finding of a `ValidationError`, without its place."""
    kind = item["type"]
    if kind == "missing":
        return "is missing; this call needs it"
    if kind == "unknown_field":
        return str(item["msg"])
    if kind == "json_invalid":
        place = item["loc"][-1] if item["loc"] else None
        at = f" at character {place + 1}" if isinstance(place, int) else ""  # else it is told with its line and column
        return f"is not JSON ({item['ctx']['error']}{at})"
    if kind == "value_error":
        return told(item)
    if kind in OBJECT and isinstance(item.get("input"), bytes):
        return "was not sent as JSON; add the header Content-Type: application/json (for lines: application/x-ndjson)"
    if kind in SIZED:
        bound, limit = SIZED[kind]
        wanted = item["ctx"][limit]
        return f"must have {bound} {wanted} item{'s' * (wanted != 1)}, not {item['ctx']['actual_length']}"
    return f"{told(item)}, not {given(item.get('input'))}"


def told(item: Mapping[str, Any]) -> str:
    """What a validator expected, as it is called in JSON, and nothing of what was given."""
    if item["type"] in OBJECT:
        return "must be a JSON object"
    if item["type"] in WHOLE:
        return "must be a whole number"
    if item["type"] == "bool_parsing":
        return "must be true or false"
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    expected = item["msg"].replace("Input should", "must").replace("String should", "must")
    return f"{expected[0].lower()}{expected[1:]}"


def of_line(error: ValidationError) -> str:
    """The first findings in one line of JSON, each with its field where it has one."""
    return "; ".join(
        f"{place}: {said(item)}" if (place := ".".join(map(str, item["loc"]))) else said(item).replace("line 1 ", "")
        for item in error.errors(include_url=False)[:SHOWN]
    )
