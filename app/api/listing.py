"""Long lists: how many, from where on, and without what reading one alone shows."""

from typing import Annotated, Any

from fastapi import Query

Limit = Annotated[int | None, Query(ge=1, le=1000, description="How many at most; all if not given.")]
Offset = Annotated[int, Query(ge=0, le=10**9, description="Leave out so many of the first.")]
Brief = Annotated[bool, Query(description="Of each set only means and differences; no checks, no other measures.")]

_BY_SET = ("languages", "metrics")
_KEPT = ("dev", "guards", "gate", "chosen", "job")


def briefly(figures: dict[str, Any]) -> dict[str, Any]:
    """What a tuning found, in its main figures: some hundred bytes a set instead of some thousand."""
    kept = {name: figures[name] for name in _KEPT if name in figures}
    if isinstance(dev := kept.get("dev"), dict):
        kept["dev"] = _of_set(dev)
    if isinstance(guards := kept.get("guards"), dict):
        kept["guards"] = {name: _of_set(each) if isinstance(each, dict) else each for name, each in guards.items()}
    return kept


def _of_set(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: figure for name, figure in figures.items() if name not in _BY_SET}
