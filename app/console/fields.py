"""The fields of recipe and gate as a form shows them: made from the models, so that both say the same."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel

from app.recipe import Gate, Recipe

# What most tunings would change; the rest is folded away.
FIRST = ("learning_rate", "epochs", "soften", "eval_every", "drift_budget", "patience")
AUTO = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class FormField:
    name: str
    label: str
    about: str
    kind: str  # "number", "choice", "lines"
    default: str  # empty: none
    choices: tuple[str, ...] = ()
    whole: bool = False
    auto: bool = False  # whether "auto" is a value
    first: bool = False


@cache
def recipe_fields() -> tuple[FormField, ...]:
    return tuple(_fields(Recipe))


@cache
def gate_fields() -> tuple[FormField, ...]:
    return tuple(_fields(Gate))


def _fields(model: type[BaseModel]) -> Iterator[FormField]:
    for name, schema in model.model_json_schema()["properties"].items():
        kinds = schema.get("anyOf", [schema])
        default = schema.get("default")
        yield FormField(
            name=name,
            label=name.replace("_", " "),
            about=re.sub(r"'(\w+)'", r"\1", schema["description"]),
            kind=_kind(schema),
            default="" if default in (None, []) else _written(default),
            choices=tuple(schema.get("enum", ())),
            whole=any(each.get("type") == "integer" for each in kinds),
            auto=any(each.get("const") == AUTO for each in kinds),
            first=name in FIRST,
        )


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return "choice"
    return "lines" if schema.get("type") == "array" else "number"


def _written(default: Any) -> str:
    return f"{default:g}" if isinstance(default, float) else str(default)
