"""Values in the form they are stored in: what is read again equals what was in memory.

Changes the core schema that Pydantic makes of a record: sets are stored in one order, and a value of a field that does
not say what it holds (`Any`, `object`, a bare `list` or `dict`) becomes its JSON form, or is refused by its path.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import (
    InitErrorDetails,
    PydanticCustomError,
    PydanticSerializationError,
    core_schema,
    to_json,
    to_jsonable_python,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Problem = tuple[tuple[str | int, ...], str]
"""Where in a value something is wrong, and what."""

_NO_SCHEMAS = frozenset({"default", "expected", "metadata"})
_SCALARS = (str, bool, int, type(None))


def json_form(value: Any) -> tuple[Any, list[Problem]]:
    """Give the JSON form of a value, and what JSON cannot hold of it or would give back as something else.

    Moments, UUIDs, decimals, tuples and models have one; bytes, sets and keys that are no text have not.
    """
    try:
        problems = list(_problems(value, ()))
        return None if problems else to_jsonable_python(value), problems
    except (PydanticSerializationError, ValueError) as error:
        return None, [((), f"JSON cannot hold it: {error}")]
    except RecursionError:
        return None, [((), "it is nested too deeply, or contains itself")]


def _problems(value: Any, loc: tuple[str | int, ...]) -> Iterator[Problem]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                yield loc, f"the key {key!r:.80} is not text"
            elif inner is not None and not isinstance(inner, (str, int)):
                yield from _problems(inner, (*loc, key))
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _problems(inner, (*loc, index))
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield loc, f"JSON cannot hold {value!r}"
    elif isinstance(value, (bytes, bytearray, memoryview, set, frozenset, complex)):
        yield loc, f"JSON cannot hold a value of type {type(value).__name__}"


def as_stored(schema: Any) -> Any:
    """Change a core schema, in place, so that every value of it is stored as what it is."""
    if isinstance(schema, list):
        for inner in schema:
            as_stored(inner)
    elif isinstance(schema, dict) and not _is_free(schema):
        kind = schema.get("type")
        if kind in ("list", "set", "frozenset", "dict"):
            _complete(schema, kind)
        for name, inner in schema.items():
            if name not in _NO_SCHEMAS:
                as_stored(inner)
        if kind == "any":
            _free(schema)
    return schema


def _complete(schema: dict[str, Any], kind: str) -> None:
    """Say of a container what it leaves open: an order of sets, what is in it, and that keys are text."""
    if kind in ("set", "frozenset") and "serialization" not in schema:
        schema["serialization"] = core_schema.wrap_serializer_function_ser_schema(_sort, when_used="json")
    schema.setdefault("values_schema" if kind == "dict" else "items_schema", core_schema.any_schema())
    if kind == "dict" and schema.get("keys_schema", {"type": "any"})["type"] == "any":
        schema["keys_schema"] = core_schema.str_schema(strict=True)


def _free(schema: dict[str, Any]) -> None:
    """Have any value of Python's made JSON; what comes as JSON is that already."""
    anything = core_schema.any_schema()
    made = core_schema.no_info_after_validator_function(_made_json, anything)
    schema |= core_schema.json_or_python_schema(anything, made)


def _is_free(schema: dict[str, Any]) -> bool:
    if schema.get("type") != "json-or-python":
        return False
    function = schema["python_schema"].get("function")
    return isinstance(function, dict) and function.get("function") is _made_json


def _made_json(value: Any) -> Any:
    if type(value) in _SCALARS:
        return value
    form, problems = json_form(value)
    if problems:
        details: list[InitErrorDetails] = [
            {"type": PydanticCustomError("json_form", "{what}", {"what": what}), "loc": loc, "input": value}
            for loc, what in problems
        ]
        raise ValidationError.from_exception_data("JSON", details)
    return form


def _sort(value: Any, handler: Callable[[Any], Any]) -> Any:
    return sorted(handler(value), key=to_json)
