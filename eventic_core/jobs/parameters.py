"""What functions take and give, as their signatures and annotations tell; and whether they can be mapped."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, get_type_hints

from eventic_core.errors import Invalid, InvalidDag
from eventic_core.jobs.fitting import UNSAID

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DEFAULT_LIMIT = 1_000_000
"""Elements of a map; what has more is taken for endless."""
_CONTEXT = "context"


def parameters_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Give a function's parameters, but not its context, with their types; `UNSAID` where there is none."""
    names = [name for name in inspect.signature(function).parameters if name != _CONTEXT]
    hints = _hints(function, names)
    return {name: hints.get(name, UNSAID) for name in names}


def required_of(function: Callable[..., Any]) -> frozenset[str]:
    """Name the parameters of a function without a default, but not its context."""
    found = inspect.signature(function).parameters.values()
    return frozenset(one.name for one in found if one.default is inspect.Parameter.empty and one.name != _CONTEXT)


def result_type_of(function: Callable[..., Any]) -> Any:
    """Give the type of a function's result; `UNSAID` if it says none."""
    return _hints(function, ["return"]).get("return", UNSAID)


def _hints(function: Callable[..., Any], names: Iterable[str]) -> dict[str, Any]:
    """Read some of a function's annotations; those of other names may be of what is only there for type checkers."""
    written = getattr(function, "__annotations__", {})
    chosen = SimpleNamespace(__annotations__={name: written[name] for name in names if name in written})
    try:
        return get_type_hints(chosen, getattr(inspect.unwrap(function), "__globals__", {}), include_extras=True)
    except NameError as error:
        message = (
            f"Job {function.__name__!r}: an annotation says {error.name!r}, which its module does not know when it "
            "runs: import it at the top, not only for type checkers."
        )
        raise InvalidDag(message) from error


def takes_context(function: Callable[..., Any]) -> bool:
    """Tell whether a function is to be given a context."""
    return _CONTEXT in inspect.signature(function).parameters


def check_map(function: Callable[..., Any], parameter: str | None, over: Callable[..., Any] | None, limit: int) -> None:
    """Refuse a map that makes no sense.

    Raises:
        InvalidDag: The function has no such parameter, or there is something to map over but no parameter.
        Invalid: The limit is not positive.
    """
    name = function.__name__
    if over is not None and parameter is None:
        message = f"Job {name!r}: over= gives elements to nothing. Name the parameter that takes one: map=."
        raise InvalidDag(message)
    if parameter is not None and parameter not in parameters_of(function):
        message = f"Job {name!r} has no parameter {parameter!r}, over which it is to be mapped."
        raise InvalidDag(message)
    if limit < 1:
        message = f"job(limit={limit}): no element would ever be done. Say 1 or more."
        raise Invalid(message)
