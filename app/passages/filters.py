"""Qdrant's filter JSON, read strictly: `parse_filter` gives a `qdrant_client.models.Filter` for any adapter.

Keys address the user's metadata ("lang" becomes "metadata.lang"; inside `nested` they stay relative to the
nested key), `has_id` takes external ids. Each condition is read by the model that its own keys name, because
the unions in Qdrant's models would answer one wrong key with a complaint from every member.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from qdrant_client import models

from app.errors import InvalidField, UnsupportedFilter
from app.passages.payload import METADATA, is_path, point_id

Model = TypeVar("Model", bound=BaseModel)

MAX_DEPTH = 32
MAX_CONDITIONS = 4_096

EXAMPLE = '{"must": [{"key": "lang", "match": {"value": "de"}}]}, keys of the metadata'

_CLAUSES = ("must", "should", "must_not")
_MATCHES: dict[str, type[BaseModel]] = {
    "value": models.MatchValue,
    "text": models.MatchText,
    "text_any": models.MatchTextAny,
    "phrase": models.MatchPhrase,
    "prefix": models.MatchPrefix,
    "substring": models.MatchSubstring,
    "any": models.MatchAny,
    "except": models.MatchExcept,
}
_TESTS: dict[str, type[BaseModel]] = {
    "geo_bounding_box": models.GeoBoundingBox,
    "geo_radius": models.GeoRadius,
    "geo_polygon": models.GeoPolygon,
    "values_count": models.ValuesCount,
}


def parse_filter(obj: Mapping[str, Any] | None) -> models.Filter | None:
    """None for no filter. Raises UnsupportedFilter (a condition nobody knows) or InvalidField (a bad value),
    both naming the place, as in `filter.must[0].match`."""
    if obj is None:
        return None
    reader = _Reader()
    return reader.filter(obj, "filter", METADATA + ".")


def has_condition(filter: models.Filter) -> bool:
    """Whether there is anything that a passage could fail; a filter of empty clauses lets all through."""
    clauses: list[Any] = [filter.must, filter.should, filter.must_not]
    if filter.min_should and filter.min_should.min_count:
        clauses.append(filter.min_should.conditions)
    conditions = [one for clause in clauses for one in clause or ()]
    return any(not isinstance(one, models.Filter) or has_condition(one) for one in conditions)


def demanded(filter: models.Filter) -> Iterator[tuple[str, str | int | bool]]:
    """Keys of the metadata with the one value that every hit must have there."""
    clause: Any = filter.must
    for one in clause or ():
        if isinstance(one, models.Filter):
            yield from demanded(one)
        elif isinstance(one, models.FieldCondition) and isinstance(one.match, models.MatchValue):
            yield one.key.removeprefix(METADATA + "."), one.match.value


class _Reader:
    """Reads one filter, counting its conditions so that a hostile one ends early."""

    def __init__(self) -> None:
        self.conditions = 0
        self.kinds: dict[str, Callable[[Mapping[str, Any], str, str], models.Condition]] = {
            "key": self.field,
            "is_empty": self.is_empty,
            "is_null": self.is_null,
            "has_id": self.has_id,
            "has_vector": self.has_vector,
            "nested": self.nested,
        }

    def filter(self, obj: Any, at: str, prefix: str) -> models.Filter:
        if at.count(".") > MAX_DEPTH:
            raise InvalidField(_short(at), f"is nested deeper than {MAX_DEPTH} levels.")
        _require_keys(obj, {*_CLAUSES, "min_should"}, at)
        clauses: dict[str, Any] = {
            name: self.clause(obj[name], f"{at}.{name}", prefix) for name in _CLAUSES if obj.get(name) is not None
        }
        if obj.get("min_should") is not None:
            clauses["min_should"] = self.min_should(obj["min_should"], f"{at}.min_should", prefix)
        return models.Filter(**clauses)

    def clause(self, obj: Any, at: str, prefix: str) -> list[models.Condition]:
        # Qdrant takes one condition in place of a list of one.
        conditions = [obj] if isinstance(obj, Mapping) else obj
        if not isinstance(conditions, list):
            raise InvalidField(at, "must be a list of conditions.")
        return [self.condition(one, f"{at}[{i}]", prefix) for i, one in enumerate(conditions)]

    def condition(self, obj: Any, at: str, prefix: str) -> models.Condition:
        self.conditions += 1
        if self.conditions > MAX_CONDITIONS:
            raise InvalidField("filter", f"has more than {MAX_CONDITIONS} conditions.")
        if not isinstance(obj, Mapping):
            raise InvalidField(at, "must be an object such as {'key': 'lang', 'match': {'value': 'de'}}.")
        for name, read in self.kinds.items():
            if name in obj:
                return read(obj, at, prefix)
        if obj and not set(obj) & {*_CLAUSES, "min_should"}:
            _unsupported(at, set(obj))
        return self.filter(obj, at, prefix)

    def min_should(self, obj: Any, at: str, prefix: str) -> models.MinShould:
        _require_keys(obj, {"conditions", "min_count"}, at)
        count = obj.get("min_count")
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise InvalidField(f"{at}.min_count", "must be a whole number from 0.")
        conditions = self.clause(obj.get("conditions"), f"{at}.conditions", prefix)
        return models.MinShould(conditions=conditions, min_count=count)

    def field(self, obj: Mapping[str, Any], at: str, prefix: str) -> models.FieldCondition:
        _require_keys(obj, set(models.FieldCondition.model_fields), at)
        given = {name: value for name, value in obj.items() if name != "key" and value is not None}
        if not given:
            raise InvalidField(at, "has a key but nothing to compare it with; add match, range or another test.")
        tests = {name: _test(name, value, f"{at}.{name}") for name, value in given.items()}
        return models.FieldCondition(key=_key(obj["key"], f"{at}.key", prefix), **tests)

    def is_empty(self, obj: Mapping[str, Any], at: str, prefix: str) -> models.IsEmptyCondition:
        return models.IsEmptyCondition(is_empty=_payload_field(obj, "is_empty", at, prefix))

    def is_null(self, obj: Mapping[str, Any], at: str, prefix: str) -> models.IsNullCondition:
        return models.IsNullCondition(is_null=_payload_field(obj, "is_null", at, prefix))

    def has_id(self, obj: Mapping[str, Any], at: str, prefix: str) -> models.HasIdCondition:
        _require_keys(obj, {"has_id"}, at)
        if prefix == "":
            _unsupported(at, {"has_id"}, "inside nested, where there are no passages")
        ids = obj["has_id"]
        if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
            raise InvalidField(f"{at}.has_id", "must be a list of passage ids (strings).")
        return models.HasIdCondition(has_id=[str(point_id(one)) for one in ids])

    def has_vector(self, _obj: Mapping[str, Any], at: str, _prefix: str) -> NoReturn:
        _unsupported(at, {"has_vector"}, "because every passage has the same one")

    def nested(self, obj: Mapping[str, Any], at: str, prefix: str) -> models.NestedCondition:
        _require_keys(obj, {"nested"}, at)
        inner = obj["nested"]
        _require_keys(inner, {"key", "filter"}, f"{at}.nested")
        key = _key(inner.get("key"), f"{at}.nested.key", prefix)
        # Inside, keys are relative to the nested key: no prefix.
        nested = models.Nested(key=key, filter=self.filter(inner.get("filter"), f"{at}.nested.filter", ""))
        return models.NestedCondition(nested=nested)


def _test(name: str, value: Any, at: str) -> Any:
    if name == "match":
        return _match(value, at)
    if name == "range":
        return _range(value, at)
    if name in _TESTS:
        return _read(_TESTS[name], value, at)
    if not isinstance(value, bool):  # is_empty, is_null
        raise InvalidField(at, "must be true or false.")
    return value


def _match(value: Any, at: str) -> BaseModel:
    _require_keys(value, set(_MATCHES), at)
    if len(value) != 1:
        raise InvalidField(at, f"must hold exactly one of {', '.join(_MATCHES)}.")
    [kind] = value
    return _read(_MATCHES[kind], value, at)


def _range(value: Any, at: str) -> BaseModel:
    _require_keys(value, set(models.Range.model_fields), at)
    bounds = [bound for bound in value.values() if bound is not None]
    if bounds and all(isinstance(bound, str) for bound in bounds):
        return _read(models.DatetimeRange, value, at)
    if not bounds or any(not isinstance(b, int | float) or isinstance(b, bool) or b != b for b in bounds):
        raise InvalidField(at, "must have bounds that are all numbers or all dates (ISO 8601 strings).")
    return _read(models.Range, value, at)


def _payload_field(obj: Mapping[str, Any], name: str, at: str, prefix: str) -> models.PayloadField:
    _require_keys(obj, {name}, at)
    _require_keys(obj[name], {"key"}, f"{at}.{name}")
    return models.PayloadField(key=_key(obj[name].get("key"), f"{at}.{name}.key", prefix))


def _key(key: Any, at: str, prefix: str) -> str:
    if not isinstance(key, str) or not is_path(key):
        raise InvalidField(at, f'{key!r} is no path into the metadata, such as lang, source.url, tags[] or "a b".')
    return prefix + key


def _read(model: type[Model], value: Any, at: str) -> Model:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems = error.errors()
        place = ".".join([at, *(str(part) for part in problems[0]["loc"] if part in _names(model))])
        said = dict.fromkeys(problem["msg"].removeprefix("Input should be ") for problem in problems)
        raise InvalidField(place, f"must be {', or '.join(said)}.") from None


def _names(model: type[BaseModel]) -> set[Any]:
    return {field.alias or name for name, field in model.model_fields.items()}


def _require_keys(obj: Any, known: set[str], at: str) -> None:
    if not isinstance(obj, Mapping):
        raise InvalidField(at, f"must be an object with {', '.join(sorted(known))}.")
    if unknown := {str(key) for key in obj} - known:
        _unsupported(at, unknown)


def _unsupported(at: str, names: set[Any], why: str = "") -> NoReturn:
    named = ", ".join(sorted(repr(str(name)) for name in names))
    reason = f" {why}" if why else f"; the conditions are those of Qdrant's filters, as {EXAMPLE}"
    raise UnsupportedFilter(f"{_short(at)}: {named} cannot be served{reason}.", at=at)


def _short(at: str) -> str:
    return at if len(at) <= 120 else at[:117] + "..."
