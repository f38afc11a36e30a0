"""The input of a run: which function or method, with what, on whose behalf; as JSON text until the run starts."""

from __future__ import annotations

import functools
import inspect
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import from_json, to_json

from eventic_core.errors import Invalid, Nondeterminism
from eventic_core.records.stamp import current_origin
from eventic_core.runtime import codec
from eventic_core.store.handlers import call_payload

if TYPE_CHECKING:
    from collections.abc import Callable

RUN: Final = "eventic.run"
LATER: Final = "eventic.later"


class Call:
    """The input of a run, undecoded: its arguments may be of types that only some processes know."""

    PREFIX: Final = '{"$":"call",'

    def __init__(self, payload: str) -> None:
        self.payload = payload

    @cached_property
    def values(self) -> dict[str, Any]:
        """What the payload holds, the arguments still encoded."""
        values: dict[str, Any] = from_json(self.payload)["v"]
        return values

    def is_readable(self) -> bool:
        """Tell whether the payload is the input of a run at all; others may write into the table."""
        try:
            return isinstance(self.values, dict)
        except (ValueError, KeyError, TypeError):
            return False

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Decode the arguments.

        Raises:
            NotRegistered: One is of a type, or a record of a class, that this process does not know.
        """
        args, kwargs = codec.decode(self.values["args"]), codec.decode(self.values["kwargs"])
        return tuple(args), kwargs

    @classmethod
    def of(
        cls,
        function: Callable[..., Any] | None,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        /,
        **more: Any,
    ) -> Call:
        """Make the input of a call, with who acts now.

        Args:
            function: Its signature is checked against the arguments, if given.
            name: Names the call in errors.
            args: The arguments.
            kwargs: The keyword arguments.
            more: Further plain values, for whoever runs it.

        Raises:
            Invalid: The arguments do not fit the signature.
            NotSerialisable: JSON cannot hold one of them.
        """
        if function is not None:
            check_arguments(function, name, args, kwargs)
        origin = current_origin()
        values = {
            **more,
            "args": [codec.encode(value, f"argument {number} of {name}()") for number, value in enumerate(args, 1)],
            "kwargs": {key: codec.encode(value, f"argument {key!r} of {name}()") for key, value in kwargs.items()},
            "actor": origin.actor,
            "correlation_id": origin.correlation_id,
        }
        return cls(call_payload(values))


@functools.lru_cache(maxsize=1024)
def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Give a function's signature, looked up once."""
    return inspect.signature(function)


def error_text(error: BaseException) -> str:
    """Give an error as JSON text, without what JSON cannot hold."""
    return to_json(codec.encode_error(error)).decode()


def check_arguments(function: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse arguments that the function would refuse later, when nobody sees it.

    Raises:
        Invalid: They do not fit its signature.
    """
    try:
        signature_of(function).bind(*args, **kwargs)
    except TypeError as error:
        message = f"{name}() cannot be called like that: {error}. Nothing was enqueued."
        raise Invalid(message) from None


def nondeterminism(run_id: str, step: int, before: str, now: str) -> Nondeterminism:
    """Make the error for a repeated run that takes another path."""
    return Nondeterminism(
        f"Run {run_id} is repeated, and its step {step} {before} the first time but {now} now. What a workflow's body "
        "does must depend only on its arguments and on what its steps return: move the clock, random numbers and calls "
        "to the outside into steps. After a change of the code, let old runs end first or give it a new app_version."
    )
