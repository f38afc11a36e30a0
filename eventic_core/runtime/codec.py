"""Values of workflows as JSON: arguments, results, step outputs and errors; never pickle.

Owns the form. Plain JSON stays as it is; all else is a tagged object `{"$": kind, "v": ...}`, and a value comes back
with its type, equal to what it was. Knows records by reference and the store through its port; nothing of dbos.
"""

from __future__ import annotations

import dataclasses
import math
from base64 import b64decode, b64encode
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import JsonValue
from pydantic_core import from_json, to_json

from eventic_core.errors import EventicError, Invalid, NotRegistered, NotSerialisable
from eventic_core.records import Properties, Record, current_store, documents, query, state
from eventic_core.records.containers import GuardedDict, GuardedList, GuardedSet
from eventic_core.records.record_class import find_class
from eventic_core.runtime.error_values import clean, is_error, read_error, text_of, write_error
from eventic_core.runtime.type_names import find_type, type_name, unfindable
from eventic_core.runtime.typed_values import (
    MALFORMED,
    Typed,
    is_model,
    is_named_tuple,
    read_enum,
    read_model,
    read_named_tuple,
    write_dataclass,
    write_enum,
    write_model,
    write_named_tuple,
)

if TYPE_CHECKING:
    from collections.abc import Callable

JSONValue: TypeAlias = JsonValue

_REMEDY = "Pass an id, plain data or a Pydantic model."
_MAX_LEVELS = 190
"""Of JSON; its reader ends at 201, and what the runtime puts around a value needs a few."""
_MAX_BITS = 14_000
"""Of an integer written in digits; the reader ends at 4300 of them."""
_SHOWN_STEPS = 8


def encode(value: Any, what: str) -> JSONValue:
    """Give a value as plain JSON, for `decode` to give back.

    A record goes by reference, as the version it is. Of a model goes what its JSON dump holds: private attributes
    and excluded fields do not. Of an exception goes what JSON can hold.

    Args:
        value: None, bool, int, float, str, bytes, list, dict, tuple, named tuple, set, frozenset, Decimal, UUID, path,
            Enum member, date, time, datetime, timedelta, record, Pydantic model, dataclass or exception.
        what: The value's name in messages: `argument 'story' of draft()`.

    Raises:
        NotSerialisable: JSON cannot hold it, it is a subclass that would come back as its base, or no other process
            finds its type; names the place inside the value.
    """
    encoder = Encoder(what)
    try:
        return encoder.encode(value)
    except RecursionError as error:
        message = f"{what} is nested too deeply, or contains itself. {_REMEDY}"
        raise NotSerialisable(message) from error


def decode(value: JSONValue) -> Any:
    """Give the value that `encode` wrote. Imports nothing; reads the records it refers to, each at its version.

    Raises:
        NotRegistered: A type is not loaded in this process.
        NotSerialisable: No encoder wrote this, or its type does not accept it any more.
        RecordNotFound: A record's version is not stored.
    """
    try:
        return _decode(value)
    except RecursionError as error:
        message = "The stored value is nested too deeply to be read."
        raise NotSerialisable(message) from error


def dumps(value: Any, what: str) -> str:
    """Give a value as JSON text; see `encode`."""
    return to_json(encode(value, what)).decode()


def loads(text: str | bytes) -> Any:
    """Give the value that `dumps` wrote; see `decode`."""
    try:
        value = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        message = f"The stored value is not JSON: {error}. It was not written by this codec."
        raise NotSerialisable(message) from error
    return decode(value)


def encode_error(error: BaseException) -> JSONValue:
    """Give an exception as plain JSON: class, text, args, attributes, notes and cause. Never raises.

    Attributes that JSON cannot hold are dropped, such args become their `repr`.
    """
    try:
        return Encoder("an error").encode(error)
    except Exception:  # noqa: BLE001 - the run's own error must be reported, whatever its attributes do
        text = clean(text_of(error) or "")
        return {"$": "error", "t": type_name(type(error)), "m": text, "v": {"args": [text], "state": {}}}


def decode_error(value: JSONValue) -> Exception:
    """Give the exception that `encode_error` wrote, of its own class, without calling that class's `__init__`.

    Returns:
        A `RemoteError` with the same text if the class is not loaded here, cannot be rebuilt from JSON, or is no
        `Exception`.

    Raises:
        NotSerialisable: No `encode_error` wrote this.
    """
    error = decode(value)
    if isinstance(error, Exception):
        return error
    message = f"{value!r:.80} is no stored error."
    raise NotSerialisable(message)


class Encoder:
    """One call of `encode`: the way from the value to the place it is at."""

    __slots__ = ("_errors", "_levels", "_path", "_what")

    @staticmethod
    def decode(value: JSONValue) -> Any:
        """Decode what was encoded, to see whether it comes back."""
        return _decode(value)

    def __init__(self, what: str) -> None:
        self._what = what
        self._path: list[tuple[str, Any]] = []
        self._levels = 0
        self._errors: list[BaseException] = []

    def encode(self, value: Any) -> JSONValue:
        """Encode the value at the present place."""
        return (_EXACT.get(type(value)) or _by_family)(self, value)

    def inner(self, step: tuple[str, Any], value: Any, *, levels: int = 1) -> JSONValue:
        """Encode a value one step, and some levels of JSON, further in."""
        self._path.append(step)
        self._levels += levels
        if self._levels > _MAX_LEVELS:
            raise self.refusal(f"is nested deeper than {_MAX_LEVELS} levels of JSON, or contains itself")
        encoded = self.encode(value)
        self._levels -= levels
        self._path.pop()
        return encoded

    def attempt(self, step: tuple[str, Any], value: Any) -> tuple[JSONValue] | None:
        """Encode a value of an exception; `None` if JSON cannot hold it."""
        path, levels, errors = len(self._path), self._levels, len(self._errors)
        try:
            return (self.inner(step, value, levels=3),)
        except NotSerialisable:
            del self._path[path:], self._errors[errors:]
            self._levels = levels
            return None

    def text(self, value: str) -> str:
        """Check a text; one of an exception is cleaned instead."""
        cleaned = value if value.isascii() and "\x00" not in value else clean(value)
        if cleaned != value and not self._errors:
            raise self.refusal(
                "holds a NUL character or half a surrogate pair, which Postgres cannot store", "Remove it."
            )
        return cleaned

    def enter(self, error: BaseException) -> None:
        """Note an exception whose parts are encoded next."""
        if any(known is error for known in self._errors):
            raise self.refusal("is an exception that contains itself")
        self._errors.append(error)

    def leave(self) -> None:
        """Note that the exception entered last is done."""
        self._errors.pop()

    def refusal(self, problem: str, remedy: str = _REMEDY) -> NotSerialisable:
        """Make the error for the value at the present place."""
        steps = [f"{kind} {label!r:.40}" for kind, label in self._path if kind]
        where = ", ".join(steps[:_SHOWN_STEPS]) + (", ..." if len(steps) > _SHOWN_STEPS else "")
        return NotSerialisable(f"{self._what}{': ' if where else ''}{where} {problem}. {remedy}")


# -- plain JSON and containers


def _same(_: Encoder, value: Any) -> JSONValue:
    return cast("JSONValue", value)


def _int(_: Encoder, value: int) -> JSONValue:
    return value if value.bit_length() <= _MAX_BITS else {"$": "int", "v": hex(value)}


def _float(_: Encoder, value: float) -> JSONValue:
    return value if math.isfinite(value) else {"$": "float", "v": str(value)}


def _str(encoder: Encoder, value: str) -> JSONValue:
    return encoder.text(value)


def _list(encoder: Encoder, value: list[Any]) -> JSONValue:
    return [encoder.inner(("item", index), item) for index, item in enumerate(value)]


def _tuple(encoder: Encoder, value: tuple[Any, ...]) -> JSONValue:
    return {"$": "tuple", "v": [encoder.inner(("item", index), item, levels=2) for index, item in enumerate(value)]}


def _set(encoder: Encoder, value: set[Any] | frozenset[Any]) -> JSONValue:
    # Sorted, so that equal sets are equal JSON in every process.
    items = sorted((encoder.inner(("element", item), item, levels=2) for item in value), key=to_json)
    return {"$": "frozenset" if isinstance(value, frozenset) else "set", "v": items}


def _dict(encoder: Encoder, value: dict[Any, Any]) -> JSONValue:
    if "$" not in value and all(type(key) is str for key in value):
        return {encoder.text(key): encoder.inner(("key", key), item) for key, item in value.items()}
    pairs: list[JSONValue] = []
    for key, item in value.items():
        step = ("key", key)
        pairs.append([encoder.inner(step, key, levels=3), encoder.inner(step, item, levels=3)])
    return {"$": "dict", "v": pairs}


# -- single values


class _Text(NamedTuple):
    """A kind whose values are one text each."""

    tag: str
    write: Callable[[Any], str]
    read: Callable[[str], Any]


_TEXTS: dict[type, _Text] = {
    bytes: _Text("bytes", lambda value: b64encode(value).decode(), lambda text: b64decode(text, validate=True)),
    date: _Text("date", date.isoformat, date.fromisoformat),
    Decimal: _Text("decimal", str, Decimal),
    float: _Text("float", str, float),
    int: _Text("int", hex, lambda text: int(text, 16)),
    type(Path()): _Text("path", str, Path),
    PurePosixPath: _Text("pure_posix_path", str, PurePosixPath),
    PureWindowsPath: _Text("pure_windows_path", str, PureWindowsPath),
    UUID: _Text("uuid", str, UUID),
}


def _text(encoder: Encoder, value: Any) -> JSONValue:
    kind = _TEXTS[type(value)]
    return {"$": kind.tag, "v": encoder.text(kind.write(value))}


def _read_text(kind: _Text) -> Callable[[dict[str, Any]], Any]:
    return lambda value: kind.read(value["v"])


def _timedelta(_: Encoder, value: timedelta) -> JSONValue:
    return {"$": "timedelta", "v": [value.days, value.seconds, value.microseconds]}


def _moment(encoder: Encoder, value: datetime | time) -> JSONValue:
    encoded: dict[str, JSONValue] = {"$": type(value).__name__, "v": value.isoformat()}
    zone = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
    if zone is not None:
        encoded["zone"] = zone
    elif value.tzinfo is not None and value.utcoffset() is None:
        raise encoder.refusal(
            f"has a time zone without an offset, {value.tzinfo!r:.40}", "Use a ZoneInfo or timezone.utc."
        )
    return {**encoded, "fold": 1} if value.fold else encoded


def _read_moment(kind: type[datetime | time], value: dict[str, Any]) -> datetime | time:
    moment = kind.fromisoformat(value["v"])
    if "zone" in value:
        moment = moment.replace(tzinfo=ZoneInfo(value["zone"]))
    return moment.replace(fold=value.get("fold", 0))


def _record(encoder: Encoder, value: Record) -> JSONValue:
    stored = state.stored_of(value)
    if stored is None:
        raise encoder.refusal(f"is a draft of {type(value).__name__}, and records go by reference", "save() it first.")
    if type(value).__pydantic_generic_metadata__["origin"] is not None:
        raise encoder.refusal(f"is a {type(value).__name__}, a parametrised generic, stored under no name of its own")
    try:
        changed = state.is_changed(value, documents.dump(value, max_bytes=1 << 62))
    except Invalid:
        changed = True
    if changed:
        problem = f"is a {type(value).__name__} with changes that are not stored, and records go by reference"
        raise encoder.refusal(problem, "save() it, or leave its edit block first.")
    return {"$": "record", "t": value.__eventic__.class_type, "v": [str(value.id), stored.version]}


def _read_record(value: dict[str, Any]) -> Record:
    class_type, (record_id, version) = value["t"], value["v"]
    cls = find_class(class_type)
    if cls is None:
        message = f"No record class is stored as {class_type!r} in this process. Import its module in the worker."
        raise NotRegistered(message)
    key, number = UUID(record_id), int(version)
    row = current_store().version(key, number, query.transaction())
    if row is None:
        raise query.no_version(cls.__name__, key, number)
    record = query.to_object(cls, row)
    if record is None:
        raise query.not_found(cls.__name__, key, f" version {number}")
    return cast("Record", record)


# -- the tables


_TYPED = (
    Typed("enum", lambda cls: issubclass(cls, Enum), write_enum, read_enum),
    Typed("error", is_error, write_error, read_error),
    Typed("model", is_model, write_model, read_model),
    Typed("dataclass", dataclasses.is_dataclass, write_dataclass, read_model),
    Typed("namedtuple", is_named_tuple, write_named_tuple, read_named_tuple),
)

_EXACT: dict[type, Callable[[Encoder, Any], JSONValue]] = {
    **dict.fromkeys(_TEXTS, _text),
    **dict.fromkeys((NoneType, bool), _same),
    **dict.fromkeys((dict, GuardedDict, Properties), _dict),
    **dict.fromkeys((list, GuardedList), _list),
    **dict.fromkeys((set, frozenset, GuardedSet), _set),
    **dict.fromkeys((datetime, time), _moment),
    float: _float,
    int: _int,
    str: _str,
    timedelta: _timedelta,
    tuple: _tuple,
}


def _by_family(encoder: Encoder, value: Any) -> JSONValue:
    cls = type(value)
    if isinstance(value, Record):
        return _record(encoder, value)
    for kind in _TYPED:
        if kind.accepts(cls):
            if kind.tag != "error" and (reason := unfindable(cls)):
                raise encoder.refusal(*reason)
            return {"$": kind.tag, "t": type_name(cls), **kind.write(encoder, value)}
    base = next((base for base in cls.__mro__ if base in _EXACT), None)
    problem = "which JSON cannot hold" if base is None else f"a subclass of {base.__name__} that would come back as one"
    raise encoder.refusal(f"is a {cls.__name__}, {problem}")


def _read_typed(kind: Typed) -> Callable[[dict[str, Any]], Any]:
    return lambda value: kind.read(find_type(value["t"], kind.accepts, kind.tag), value, _decode)


_READERS: dict[object, Callable[[dict[str, Any]], Any]] = {
    **{kind.tag: _read_text(kind) for kind in _TEXTS.values()},
    **{kind.tag: _read_typed(kind) for kind in _TYPED},
    "error": lambda value: read_error(None, value, _decode),
    "datetime": lambda value: _read_moment(datetime, value),
    "dict": lambda value: {_decode(key): _decode(item) for key, item in value["v"]},
    "frozenset": lambda value: frozenset(_decode(value["v"])),
    "record": _read_record,
    "set": lambda value: set(_decode(value["v"])),
    "time": lambda value: _read_moment(time, value),
    "timedelta": lambda value: timedelta(*value["v"]),
    "tuple": lambda value: tuple(_decode(value["v"])),
}


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$" not in value:
        return {key: _decode(item) for key, item in value.items()}
    tag = value["$"]
    if not isinstance(tag, str) or tag not in _READERS:
        message = f"{tag!r} is no kind of stored value. It was not written by this version of eventic_core."
        raise NotSerialisable(message)
    try:
        return _READERS[tag](value)
    except EventicError:
        raise
    except MALFORMED as error:
        message = f"A stored {tag} cannot be read: {error!r:.500}. Its type may have changed since it was written."
        raise NotSerialisable(message) from error
