"""Long lists: how many, from where on, and without what reading one alone shows."""

from typing import Annotated, Any

from fastapi import Query

Limit = Annotated[int | None, Query(ge=1, le=1000, description="How many at most; all if not given.")]
Offset = Annotated[int, Query(ge=0, le=10**9, description="Leave out so many of the first.")]
Containing = Annotated[
    str | None,
    Query(
        pattern=r"^[A-Za-z0-9._@-]{1,80}$",
        description="Only those whose `name@version` has this in it; capitals count as small letters.",
    ),
]
Brief = Annotated[
    bool, Query(description="Of what a tuning found only what each set gained or lost, and its drift; no checks.")
]

_OF_SET = ("gain", "change", "held", "drift")


def briefly(figures: dict[str, Any]) -> dict[str, Any]:
    """What a tuning found, in its main figures: a hundred bytes a set instead of some thousand. Whatever else somebody
    registered as an encoder's metrics is left out."""
    dev, guards = figures.get("dev"), figures.get("guards")
    found: dict[str, Any] = {"dev": _of_set(dev)} if isinstance(dev, dict) else {}
    if isinstance(guards, dict):
        found["guards"] = {name: _of_set(each) for name, each in guards.items() if isinstance(each, dict)}
    return found


def _of_set(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: figures[name] for name in _OF_SET if name in figures}
