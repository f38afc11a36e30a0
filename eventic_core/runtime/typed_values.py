"""Values that name their type, as JSON: enums, Pydantic models, dataclasses, named tuples. Part of the codec."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Collection
from collections.abc import Set as AbstractSet
from enum import Enum, Flag
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel, JsonValue, RootModel, Secret, SecretBytes, SecretStr, TypeAdapter
from pydantic_core import to_json

from eventic_core.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from eventic_core.runtime.codec import Encoder

JSONValue = JsonValue
Decode = Callable[[Any], Any]

MALFORMED = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What decoding something that no encoder wrote may raise."""


class Typed(NamedTuple):
    """A kind whose values name their type; `write` gives what stands beside tag and type."""

    tag: str
    accepts: Callable[[type], bool]
    write: Callable[[Encoder, Any], dict[str, JSONValue]]
    read: Callable[[Any, dict[str, Any], Decode], Any]


def write_enum(_: Encoder, value: Enum) -> dict[str, JSONValue]:
    """Write a member by its name; a combination of flags by its value."""
    return {"v": value.name if value.name in type(value).__members__ else value.value}


def read_enum(cls: Any, value: dict[str, Any], _decode: Decode) -> Any:
    """Read a member."""
    member = value["v"]
    return cls(member) if issubclass(cls, Flag) and isinstance(member, int) else cls[member]


def is_model(cls: type) -> bool:
    """Tell whether a class is a Pydantic model that is no record."""
    return issubclass(cls, BaseModel) and not issubclass(cls, Record)


def write_model(encoder: Encoder, value: Any) -> dict[str, JSONValue]:
    """Write what the JSON dump of a model holds, unless that would lose something silently."""
    cls: Any = type(value)
    try:
        dump = _adapter(cls).dump_python(value, mode="json", by_alias=False, round_trip=True, warnings="error")
        ordered = _in_order(value, dump)
    except (NameError, RuntimeError, TypeError, ValueError) as error:
        problem = f"is a {cls.__name__} that Pydantic cannot write as JSON ({error!s:.300})"
        raise encoder.refusal(problem, "Change its values or its fields.") from error
    if lost := _lost(value, dump):
        raise encoder.refusal(f"is a {cls.__name__} that holds {lost}")
    return {"v": encoder.inner(("", None), ordered)}


def read_model(cls: Any, value: dict[str, Any], decode: Decode) -> Any:
    """Read a model or dataclass by validating it."""
    data = to_json(decode(value["v"]), inf_nan_mode="constants")
    return _adapter(cls).validate_json(data, by_alias=False, by_name=True)


def write_dataclass(encoder: Encoder, value: Any) -> dict[str, JSONValue]:
    """Write a dataclass like a model, if its constructor makes it again."""
    written = write_model(encoder, value)
    declared = value.__dataclass_fields__.values()
    if len(dataclasses.fields(value)) == len(declared) and all(field.init for field in declared):
        return written
    # The constructor takes other things than the fields: only trying tells whether it comes back.
    with contextlib.suppress(*MALFORMED):
        if read_model(type(value), written, encoder.decode) == value:
            return written
    raise encoder.refusal(f"is a {type(value).__name__} whose constructor does not make it again from its fields")


@lru_cache(maxsize=512)
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def _in_order(value: Any, dump: Any) -> Any:
    """Sort what a dump holds of sets, so that equal models are equal JSON in every process."""
    if isinstance(value, RootModel):
        return _in_order(value.root, dump)
    if isinstance(dump, dict):
        inner = _by_name(value)
        if inner is None:
            held = zip(value.values(), dump.items(), strict=False) if isinstance(value, dict) else ()
            return {**dump, **{name: _in_order(item, dumped) for item, (name, dumped) in held}}
        return {name: _in_order(inner.get(name), dumped) for name, dumped in dump.items()}
    if not isinstance(dump, list) or not isinstance(value, Collection) or len(value) != len(dump):
        return dump
    items = [_in_order(item, dumped) for item, dumped in zip(value, dump, strict=True)]
    return sorted(items, key=to_json) if isinstance(value, AbstractSet) else items


def _by_name(value: Any) -> dict[str, Any] | None:
    """Give the values of a model or a dataclass."""
    if isinstance(value, BaseModel):
        return {**value.__dict__, **(value.__pydantic_extra__ or {})}
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    return None


def _lost(value: Any, dump: Any) -> str | None:
    """Say what of a model its JSON dump silently loses, and what to do."""
    infinite = 0
    for leaf in _leaves(value):
        if isinstance(leaf, Record):
            return f"the record {type(leaf).__name__}, which would come back as a draft: hold a Ref or its id"
        if isinstance(leaf, (Secret, SecretStr, SecretBytes)):
            return "a secret, which is written masked: hold its name in a secret store"
        infinite += isinstance(leaf, float) and not math.isfinite(leaf)
    if infinite > sum(isinstance(leaf, float) and not math.isfinite(leaf) for leaf in _leaves(dump)):
        return "nan or infinity where its class declares no float: declare one"
    return None


def _leaves(value: Any) -> Iterator[Any]:
    items: Iterable[Any]
    if isinstance(value, BaseModel) and not isinstance(value, Record):
        items = [value.__dict__[name] for name, info in type(value).__pydantic_fields__.items() if not info.exclude]
        items += (value.__pydantic_extra__ or {}).values()
    elif dataclasses.is_dataclass(value):
        items = [getattr(value, field.name) for field in dataclasses.fields(value)]
    elif isinstance(value, dict):
        items = value.values()
    elif isinstance(value, (list, tuple, set, frozenset)):
        items = value
    else:
        yield value
        return
    for item in items:
        yield from _leaves(item)


def is_named_tuple(cls: type) -> bool:
    """Tell whether a class is a named tuple."""
    return issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple)


def write_named_tuple(encoder: Encoder, value: Any) -> dict[str, JSONValue]:
    """Write a named tuple by its names, so that one that has grown defaults can read it."""
    names = type(value)._fields
    return {"v": {n: encoder.inner(("field", n), item, levels=2) for n, item in zip(names, value, strict=True)}}


def read_named_tuple(cls: Any, value: dict[str, Any], decode: Decode) -> Any:
    """Read a named tuple; names it does not have are refused."""
    given = {name: decode(item) for name, item in value["v"].items()}
    if unknown := given.keys() - set(cls._fields):
        message = f"{cls.__name__} has no field {', '.join(sorted(unknown))}"
        raise ValueError(message)
    return cls._make({**cls._field_defaults, **given}[name] for name in cls._fields)
