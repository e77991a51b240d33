"""A parsed filter in Qdrant Edge's own classes. What Edge cannot serve raises UnsupportedFilter, by name."""

from collections.abc import Callable
from datetime import date
from typing import Any
from uuid import UUID

import qdrant_edge as edge
from qdrant_client import models

from app.errors import InvalidField, UnsupportedFilter
from app.passages import edge_booleans


def to_edge(parsed: models.Filter) -> "edge.Filter":
    """Raises UnsupportedFilter, or InvalidField for a value Edge refuses (a place off the globe)."""
    try:
        return _filter(parsed)
    except ValueError as error:
        raise InvalidField("filter", f"{error}.") from None


def _filter(parsed: models.Filter) -> "edge.Filter":
    return edge.Filter(
        must=_conditions(parsed.must),
        should=_conditions(parsed.should),
        must_not=_conditions(parsed.must_not),
        min_should=_maybe(parsed.min_should, _min_should),
    )


def _min_should(least: models.MinShould) -> "edge.MinShould":
    return edge.MinShould(_conditions(least.conditions) or [], least.min_count)


def _maybe(value: Any, convert: Callable[[Any], Any]) -> Any:
    return None if value is None else convert(value)


def _conditions(conditions: Any) -> list[Any] | None:
    return None if conditions is None else [_condition(one) for one in conditions]


def _condition(one: models.Condition) -> Any:
    match one:
        case models.Filter():
            return _filter(one)
        case models.FieldCondition():
            return _field(one)
        case models.IsEmptyCondition():
            return edge.IsEmptyCondition(one.is_empty.key)
        case models.IsNullCondition():
            return edge.IsNullCondition(one.is_null.key)
        case models.HasIdCondition():
            return edge.HasIdCondition({UUID(str(id)) for id in one.has_id})
        case models.NestedCondition():
            return edge.NestedCondition(one.nested.key, _filter(one.nested.filter))
        case _:
            raise UnsupportedFilter(f"Qdrant Edge cannot serve the condition {type(one).__name__}.")


def _field(one: models.FieldCondition) -> "edge.FieldCondition":
    if isinstance(one.match, models.MatchValue) and isinstance(one.match.value, bool):
        key, path = edge_booleans.condition(one.key, one.match.value)
        return edge.FieldCondition(key, match=edge.MatchValue(path))
    return edge.FieldCondition(
        one.key,
        match=_maybe(one.match, _match),
        range=_maybe(one.range, _range),
        geo_bounding_box=_maybe(one.geo_bounding_box, _box),
        geo_radius=_maybe(one.geo_radius, lambda circle: edge.GeoRadius(_point(circle.center), circle.radius)),
        geo_polygon=_maybe(one.geo_polygon, _polygon),
        values_count=_maybe(one.values_count, lambda counted: edge.ValuesCount(**counted.model_dump())),
        is_empty=one.is_empty,
        is_null=one.is_null,
    )


def _match(one: Any) -> Any:
    match one:
        case models.MatchValue():
            return edge.MatchValue(one.value)
        case models.MatchText():
            return edge.MatchText(one.text)
        case models.MatchTextAny():
            return edge.MatchTextAny(one.text_any)
        case models.MatchPhrase():
            return edge.MatchPhrase(one.phrase)
        case models.MatchPrefix():
            return edge.MatchPrefix(one.prefix)
        case models.MatchSubstring():
            return edge.MatchSubstring(one.substring)
        case models.MatchAny():
            return edge.MatchAny(one.any)
        case models.MatchExcept():
            return edge.MatchExcept(one.except_)
        case _:
            raise UnsupportedFilter(f"Qdrant Edge cannot serve {type(one).__name__}.")


def _range(one: models.RangeInterface) -> Any:
    if isinstance(one, models.DatetimeRange):
        return edge.RangeDateTime(**{name: _iso(bound) for name, bound in one if bound is not None})
    return edge.RangeFloat(**one.model_dump())


def _iso(bound: date) -> str:
    return bound.isoformat()


def _point(point: models.GeoPoint) -> "edge.GeoPoint":
    return edge.GeoPoint(point.lon, point.lat)


def _line(line: models.GeoLineString) -> list[Any]:
    return [_point(point) for point in line.points]


def _box(box: models.GeoBoundingBox) -> "edge.GeoBoundingBox":
    return edge.GeoBoundingBox(_point(box.top_left), _point(box.bottom_right))


def _polygon(polygon: models.GeoPolygon) -> "edge.GeoPolygon":
    holes = [_line(hole) for hole in polygon.interiors or []]
    return edge.GeoPolygon(_line(polygon.exterior), holes)
