"""What a validator found wrong, in words that say what mends it."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from app.plainly import given

SHOWN = 3


def said(item: Mapping[str, Any]) -> str:
    """One finding of a `ValidationError`, without its place."""
    kind = item["type"]
    if kind == "missing":
        return "is missing; this call needs it"
    if kind == "extra_forbidden":
        return "is not known to this call; GET /docs lists what it takes"
    if kind == "json_invalid":
        return f"is not JSON ({item['ctx']['error']})"
    if kind == "value_error":
        return str(item["ctx"]["error"])
    if kind in ("model_attributes_type", "dict_type") and isinstance(item.get("input"), bytes):
        return "was not sent as JSON; add the header Content-Type: application/json"
    return f"{item['msg'][0].lower()}{item['msg'][1:]}, not {given(item.get('input'))}"


def of_line(error: ValidationError) -> str:
    """The first findings in one line of JSON, each with its field where it has one."""
    return "; ".join(
        f"{place}: {said(item)}" if (place := ".".join(map(str, item["loc"]))) else said(item).replace("line 1 ", "")
        for item in error.errors(include_url=False)[:SHOWN]
    )
