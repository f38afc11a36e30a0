"""What the steps gave that an item of a batch called: noted with the item, so that a replay need not call them.

Owns the form of the notes. A step of a workflow is kept by DBOS; one that an item calls is part of the item's attempt.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from eventic_core.records.setting import Setting
from eventic_core.runtime import codec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


class Steps(Protocol):
    """What does the steps that are called in an attempt."""

    @property
    def entries(self) -> list[dict[str, Any]]:
        """What those gave that have ended, in the order of their calls."""
        ...

    def call(self, name: str, function: Callable[[], Any]) -> Any:
        """Do a step."""
        ...

    async def call_async(self, name: str, function: Callable[[], Awaitable[Any]]) -> Any:
        """Do an async step."""
        ...


_steps: ContextVar[Steps | None] = ContextVar("eventic_steps", default=None)


def current_steps() -> Steps | None:
    """Give what does the steps called here; `None` where they are called as everywhere."""
    return _steps.get()


def doing_steps(steps: Steps | None) -> Setting[Steps | None]:
    """Have the steps that are called inside a `with` block done by `steps`."""
    return Setting(_steps, steps)


class StepLog:
    """Calls steps and notes `{"name", "result"}` or `{"name", "error"}` of each, as the codec writes values."""

    def __init__(self) -> None:
        self._entries: list[dict[str, Any] | None] = []

    @property
    def entries(self) -> list[dict[str, Any]]:
        """Give what was noted so far."""
        return [entry for entry in self._entries.copy() if entry is not None]

    def call(self, name: str, function: Callable[[], Any]) -> Any:
        """Call a step.

        Raises:
            NotSerialisable: JSON cannot hold its result.
        """
        with self._noting(name) as note:
            return note(function())

    async def call_async(self, name: str, function: Callable[[], Awaitable[Any]]) -> Any:
        """Call an async step; see `call`."""
        with self._noting(name) as note:
            return note(await function())

    @contextmanager
    def _noting(self, name: str) -> Iterator[Callable[[Any], Any]]:
        place = len(self._entries)
        self._entries.append(None)  # steps that overlap are in the order in which they were called

        def note(result: Any) -> Any:
            self._entries[place] = {"name": name, "result": codec.encode(result, f"the result of {name}()")}
            return result

        try:
            with doing_steps(None):  # a step that a step calls is part of it
                yield note
        except Exception as error:
            self._entries[place] = {"name": name, "error": codec.encode_error(error)}
            raise


def outcome_of(entry: dict[str, Any]) -> tuple[Any, Exception | None]:
    """Give the result and the error that were noted, with their types where this process knows them.

    Raises:
        NotRegistered: The result is of a type or record class that this process does not know.
        RecordNotFound: It is a version of a record that is not stored.
        NotSerialisable: No log wrote it.
    """
    if "error" in entry:
        return None, codec.decode_error(entry["error"])
    return codec.decode(entry["result"]), None
