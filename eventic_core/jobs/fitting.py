"""Whether a job's result fits another's parameter, as far as their annotations tell: what is not surely wrong fits."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, Union, get_args, get_origin

UNSAID: Any = inspect.Parameter.empty
"""In place of a type that an annotation does not say."""
_UNSAID = (UNSAID, Any, object)
_WIDER: dict[type, tuple[type, ...]] = {int: (float, complex), bool: (int, float), float: (complex,)}


def fits(given: Any, taken: Any) -> bool:
    """Tell whether a value of one type may be given where another is taken; true where that cannot be known."""
    if given in _UNSAID or taken in _UNSAID or given == taken or isinstance(taken, TypeVar):
        return True
    if _is_union(given):
        return all(fits(one, taken) for one in get_args(given))
    if _is_union(taken):
        return any(fits(given, one) for one in get_args(taken))
    given = type(None) if given is None else given
    taken = type(None) if taken is None else taken
    plain_given, plain_taken = get_origin(given) or given, get_origin(taken) or taken
    if not (isinstance(plain_given, type) and isinstance(plain_taken, type)):
        return True  # literals, annotated types and the like: the run will see
    if not (issubclass(plain_given, plain_taken) or plain_taken in _WIDER.get(plain_given, ())):
        return False
    inner_given, inner_taken = get_args(given), get_args(taken)
    if len(inner_given) != len(inner_taken):
        return True
    return all(fits(one, other) for one, other in zip(inner_given, inner_taken, strict=True))


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def element_type(kind: Any) -> Any:
    """Give the type of the elements of a list or the like; of what has none, one that fits nothing but itself."""
    if kind in _UNSAID:
        return kind
    plain = get_origin(kind) or kind
    if not isinstance(plain, type) or _is_union(kind):
        return UNSAID
    if issubclass(plain, str | bytes | Mapping) or not issubclass(plain, Iterable):
        return NotMappable
    inner = get_args(kind)
    return inner[0] if inner and (plain is not tuple or inner[1:] == (...,)) else UNSAID


class NotMappable:
    """The type of the elements of what has none."""


def type_name(kind: Any) -> str:
    """Name a type as it is written."""
    if kind in _UNSAID:
        return "anything"
    if isinstance(kind, type) and not get_args(kind):
        return kind.__name__
    return str(kind).replace("typing.", "")
