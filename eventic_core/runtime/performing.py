"""Kinds of work that packages above the runtime define: a worker claims them like any other and hands them over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from eventic_core.store import PostgresStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A claimed piece of work, and what the worker lends to do it.

    Attributes:
        run_id: The run's id.
        owner: The token of the claim: nobody else may complete the run while it stands.
        deaths: How often a worker died over it; 0 while that may be chance.
        is_chance: Whether the last one was, so that nothing in it is to blame: others ran beside it.
        values: The payload.
        store: Where everything is.
        invoke: Calls a function, awaiting it on the worker's event loop if it is async.
        event_loop: Gives that loop.
        is_stopping: Tells whether the worker drains: what has not begun is to be given back.
        finish: Stores the outcome, JSON text; for work that does not store its own.
    """

    run_id: str
    owner: str
    deaths: int
    is_chance: bool
    values: dict[str, Any]
    store: PostgresStore
    invoke: Callable[..., Any]
    event_loop: Callable[[], asyncio.AbstractEventLoop]
    is_stopping: Callable[[], bool]
    finish: Callable[[str], object]


Perform = Callable[[Assignment], None]

_performers: dict[str, Perform] = {}


def define(name: str, perform: Perform) -> None:
    """Say what does the work of a name; it stores the outcome itself, or calls `finish`, or gives the work back.

    It may raise `OwnershipLost`, `Interrupted` or `StoreUnavailable` (it is called again), and `NotRegistered` (the
    work is put back for a worker that knows more).
    """
    _performers[name] = perform


def find(name: str) -> Perform | None:
    """Give what does the work of a name, if this process has it."""
    return _performers.get(name)


def names() -> tuple[str, ...]:
    """Name the kinds of work there are."""
    return tuple(_performers)
