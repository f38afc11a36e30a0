"""Exceptions as JSON, rebuilt as their own class without calling its `__init__`. Part of the codec."""

from __future__ import annotations

import contextlib
import inspect
from types import GetSetDescriptorType, MemberDescriptorType
from typing import TYPE_CHECKING, Any

from eventic_core.errors import Invalid, NotFound, RemoteError
from eventic_core.runtime.type_names import find_type
from eventic_core.runtime.typed_values import MALFORMED

if TYPE_CHECKING:
    from eventic_core.runtime.codec import Encoder
    from eventic_core.runtime.typed_values import Decode, JSONValue

_SLOTS = (MemberDescriptorType, GetSetDescriptorType)
_NOT_KEPT = ("obj", "exceptions")
"""Of an exception: the object an AttributeError was about, and what a group has in its args already."""
_HEAP_TYPE = 1 << 9
"""The flag of a class that is not built into Python (`Py_TPFLAGS_HEAPTYPE`)."""


def is_error(cls: type) -> bool:
    """Tell whether a class is one of exceptions."""
    return issubclass(cls, BaseException)


def write_error(encoder: Encoder, error: BaseException) -> dict[str, JSONValue]:
    """Write text, args, attributes and cause; of args that JSON cannot hold their `repr`, of attributes none."""
    encoder.enter(error)
    args: list[JSONValue] = []
    for index, item in enumerate(error.args):
        held = encoder.attempt(("argument", index), item)
        args.append(held[0] if held else clean(f"{item!r:.200}"))
    attributes = {name: encoder.attempt(("attribute", name), item) for name, item in _attributes(error).items()}
    members: dict[str, JSONValue] = {
        "m": encoder.text(text_of(error) or ""),
        "v": {"args": args, "state": {encoder.text(name): held[0] for name, held in attributes.items() if held}},
    }
    cause = encoder.attempt(("cause", ""), error.__cause__) if error.__cause__ else None
    encoder.leave()
    return {**members, "cause": cause[0]} if cause else members


def _attributes(error: BaseException) -> dict[str, Any]:
    """Give what an exception is made of beside its args: `__dict__` with its notes, slots, and what C code keeps."""
    slots = {
        name: getattr(error, name, None)
        for cls in type(error).__mro__
        if cls is not BaseException
        for name, member in vars(cls).items()
        if isinstance(member, _SLOTS) and not name.startswith("__") and name not in _NOT_KEPT
    }
    return {name: value for name, value in slots.items() if value is not None} | error.__dict__


def read_error(_cls: Any, value: dict[str, Any], decode: Decode) -> Exception:
    """Read an exception; one that cannot be rebuilt here becomes a `RemoteError` with its text."""
    name, text = str(value["t"]), str(value["m"])
    try:
        args, held = (decode(value["v"][part]) for part in ("args", "state"))
        error: BaseException | None = _rebuilt(find_type(name, is_error, "error"), args, held)
    except (NotFound, Invalid, *MALFORMED):
        error = None
    if not isinstance(error, Exception) or text_of(error) is None:
        error = RemoteError(text, name)
    if "cause" in value:
        BaseException.__setattr__(error, "__cause__", decode(value["cause"]))
    return error


def _rebuilt(cls: Any, args: list[Any], attributes: dict[str, Any]) -> BaseException:
    native = cls
    while native.__flags__ & _HEAP_TYPE:  # up to the class that C code defines, whose constructor only keeps its args
        native = native.__base__
    error: BaseException = native.__new__(cls, *args)
    BaseException.__setattr__(error, "args", tuple(args))
    for name, value in attributes.items():
        member = inspect.getattr_static(cls, name, None)
        if isinstance(member, _SLOTS):
            with contextlib.suppress(AttributeError, TypeError):  # it cannot be set, and so came with the args
                member.__set__(error, value)
        else:
            error.__dict__[name] = value
    return error


def text_of(error: BaseException) -> str | None:
    """Give an exception's text; `None` if its `__str__` fails."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - anybody's __str__
        return None


def clean(text: str) -> str:
    """Escape what Postgres cannot store: NUL characters and half surrogate pairs."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
