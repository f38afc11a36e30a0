"""Containers that refuse in-place changes which nobody would store.

The list, dict and set values of a stored record are these. Inside an edit scope a change first enlists the record,
outside it is refused. A copy of one is a plain list, dict or set. They know of their owner only how to ask.
"""

from __future__ import annotations

import functools
import weakref
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from eventic_core.errors import ChangedOutsideScope

if TYPE_CHECKING:
    from collections.abc import Callable


class Owner(Protocol):
    """A record, as its containers see it."""

    def _before_change(self) -> None:
        """Enlist the record in the current scope, or raise `ChangedOutsideScope`."""


class _Guarded:
    __slots__ = ()
    _owner: weakref.ref[Any]

    def _ask(self) -> None:
        reference = getattr(self, "_owner", None)
        if reference is None:
            return
        owner = reference()
        if owner is None:
            message = (
                f"This {type(self).__bases__[-1].__name__} belonged to a record that is gone, so the change would be "
                "lost. Keep the record in a variable and change it inside `with record.edit():`."
            )
            raise ChangedOutsideScope(message)
        owner._before_change()


def _asking(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._ask()
        return method(self, *args, **kwargs)

    return call


_Class = TypeVar("_Class", bound=type)


def _guards(*names: str) -> Callable[[_Class], _Class]:
    def decorate(cls: _Class) -> _Class:
        for name in names:
            setattr(cls, name, _asking(getattr(cls.__mro__[2], name)))
        return cls

    return decorate


@_guards(
    "__delitem__",
    "__iadd__",
    "__imul__",
    "__setitem__",
    "append",
    "clear",
    "extend",
    "insert",
    "pop",
    "remove",
    "reverse",
    "sort",
)
class GuardedList(_Guarded, list[Any]):
    """A record's list."""

    __slots__ = ("_owner",)

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        return list, (list(self),)


@_guards("__delitem__", "__ior__", "__setitem__", "clear", "pop", "popitem", "setdefault", "update")
class GuardedDict(_Guarded, dict[Any, Any]):
    """A record's dict."""

    __slots__ = ("_owner",)

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        return dict, (dict(self),)


@_guards(
    "__iand__",
    "__ior__",
    "__isub__",
    "__ixor__",
    "add",
    "clear",
    "difference_update",
    "discard",
    "intersection_update",
    "pop",
    "remove",
    "symmetric_difference_update",
    "update",
)
class GuardedSet(_Guarded, set[Any]):
    """A record's set."""

    __slots__ = ("_owner",)

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        return set, (set(self),)

    def __repr__(self) -> str:
        return repr(set(self))


def guard(value: Any, owner: Owner) -> Any:
    """Give `value` with every list, dict and set in it (also nested) replaced by a guarded copy owned by `owner`."""
    return _guard(value, weakref.ref(owner))


def _guard(value: Any, owner: weakref.ref[Any]) -> Any:
    guarded: Any
    if not value and isinstance(value, GuardedDict) and not hasattr(value, "_owner"):
        value._owner = owner  # an empty bag, new from validation: nothing to copy
        return value
    if isinstance(value, list):
        guarded = GuardedList(_guard(item, owner) for item in value)
    elif isinstance(value, dict):
        kind = type(value) if isinstance(value, GuardedDict) else GuardedDict
        guarded = kind((key, _guard(item, owner)) for key, item in value.items())
    elif isinstance(value, set):
        guarded = GuardedSet(value)
    elif isinstance(value, tuple) and type(value) is tuple:
        return tuple(_guard(item, owner) for item in value)
    else:
        return value
    guarded._owner = owner
    return guarded


def plain(value: Any) -> Any:
    """Give a copy with ordinary lists, dicts and sets, also nested; a bag stays one, other values are shared."""
    if isinstance(value, GuardedDict) and type(value) is not GuardedDict:
        return type(value)((key, plain(item)) for key, item in value.items())
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, set):
        return set(value)
    if type(value) is tuple:
        return tuple(plain(item) for item in value)
    return value
