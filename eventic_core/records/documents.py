"""Record values as JSON documents: dumping, limits, and when two documents are the same.

Pure functions. What is stored is what `dump` returns; what JSON or `jsonb` cannot hold is refused here, by name.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticSerializationError, from_json

from eventic_core.errors import InvalidRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

_MAX_DEPTH = 100
_REMEDY = "Change the value; nothing was stored."


def dump(model: BaseModel, *, max_bytes: int) -> bytes:
    """Give the JSON document of a record's fields, by field name and without computed fields.

    Raises:
        InvalidRecord: A value JSON or `jsonb` cannot hold (NaN, infinity, a NUL character, nesting beyond 200
            levels, an object without a JSON form), or more than `max_bytes`.
    """
    name = type(model).__name__
    try:
        data = model.__pydantic_serializer__.to_json(model, by_alias=False, exclude_computed_fields=True)
        if data.count(b"[") + data.count(b"{") > _MAX_DEPTH:  # may be nested too deeply: the decoder knows
            from_json(data, allow_inf_nan=True)
    except (PydanticSerializationError, ValueError) as error:
        message = f"{name} cannot be stored as JSON: {error}. {_REMEDY}"
        raise InvalidRecord(message) from error
    if len(data) > max_bytes:
        message = (
            f"{name} is {len(data)} bytes as JSON, the limit is {max_bytes}. Keep large content elsewhere and store "
            "a reference, or raise EVENTIC_MAX_RECORD_BYTES. Nothing was stored."
        )
        raise InvalidRecord(message)
    if b"NaN" in data or b"Infinity" in data or b"\\u0000" in data:
        _refuse_unstorable(name, from_json(data, allow_inf_nan=True))
    return data


def _refuse_unstorable(name: str, values: Any) -> None:
    for path, leaf in leaves(values):
        if isinstance(leaf, float) and not math.isfinite(leaf):
            message = f"{name}.{path} is {leaf!r}, which JSON cannot hold. {_REMEDY}"
            raise InvalidRecord(message)
        if isinstance(leaf, str) and "\x00" in leaf:
            message = f"{name}.{path} holds a NUL character, which Postgres cannot store. {_REMEDY}"
            raise InvalidRecord(message)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Walk the scalars of a JSON value with their dotted paths; the keys of objects are scalars too."""
    if isinstance(value, dict):
        for key, inner in value.items():
            here = f"{path}.{key}" if path else key
            yield here, key
            yield from leaves(inner, here)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{index}]")
    else:
        yield path, value


def load(data: str | bytes) -> dict[str, Any]:
    """Decode a stored document; integers stay exact whatever their size."""
    values: dict[str, Any] = from_json(data)
    return values


def changed_fields(before: dict[str, Any], after: dict[str, Any]) -> tuple[str, ...]:
    """Name the fields that differ between two decoded documents, properties one by one, sorted."""
    changed = [name for name in before.keys() | after.keys() if name != "properties" and _differ(before, after, name)]
    bags = (before.get("properties") or {}, after.get("properties") or {})
    changed += [f"properties.{name}" for name in bags[0].keys() | bags[1].keys() if _differ(*bags, name)]
    return tuple(sorted(changed))


def _differ(before: dict[str, Any], after: dict[str, Any], name: str) -> bool:
    return (name in before) != (name in after) or not same_value(before.get(name), after.get(name))


def same_value(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are equal as Postgres sees them: `1` is `1.0`, but not `true`."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_value(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_value, one, other))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
