"""Handlers: the user's functions that run later, once for each version of records they subscribe to.

Owns the decorators `on.create`, `on.update`, `on.delete` and `on.call`, and this process's registry. The
subscriptions themselves are rows, which every writer goes by.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from eventic_core.errors import DuplicateRegistration, Invalid, NotRegistered
from eventic_core.records.record_class import RecordMeta, registered
from eventic_core.runtime.functions import Retry, name_of, place
from eventic_core.store.handlers import Subscription

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventic_core.store.handlers import Kind

_Function = TypeVar("_Function", bound="Callable[..., Any]")

RETRY = Retry(max_attempts=5, delay_seconds=1.0, backoff=2.0, max_delay_seconds=300.0)


@dataclass(slots=True, kw_only=True)
class Handler:
    """A registered handler.

    Attributes:
        backfill: Whether it wants the versions that were there before it was first launched.
    """

    name: str
    function: Callable[[Any], Any]
    retry: Retry
    backfill: bool
    subscriptions: list[Subscription] = field(default_factory=list)


_handlers: dict[str, Handler] = {}


def find(name: str) -> Handler:
    """Give the handler registered under a name.

    Raises:
        NotRegistered: This process has not defined it.
    """
    known = _handlers.get(name)
    if known is None:
        message = f"No handler {name!r} is registered in this process: import its module in the worker."
        raise NotRegistered(message)
    return known


def defined() -> Iterator[Handler]:
    """Give the handlers this process has defined."""
    yield from list(_handlers.values())


class On:
    """The decorators that subscribe a function to versions of records; `eventic_core.on`.

    The function is called with one argument: the record, as the version it is called for. It runs on a worker, after
    the commit, in a transaction of its own: what it writes and enqueues is stored once for each version, whatever is
    killed. Versions of a record come one at a time and in order; those of different records in parallel. If it fails
    it is tried again by `retry`; then the version is set aside as a dead letter and the next one comes.

    Subclasses are included. Decorators can be stacked.
    """

    def create(
        self, cls: type[Any], *, name: str | None = None, retry: Retry = RETRY, backfill: bool = False
    ) -> Callable[[_Function], _Function]:
        """Call the function for each new record of a class.

        Args:
            cls: The record class.
            name: What it is known by in every process; default its qualified name, without the module.
            retry: When a failed call is tried again.
            backfill: Whether versions written before it was first launched are handled too.

        Raises:
            DuplicateRegistration: Another function has the name.
            Invalid: `cls` is no record class.
        """
        return _subscribe([(cls, "create", "")], name, retry, backfill=backfill)

    def update(
        self, cls: type[Any], *, name: str | None = None, retry: Retry = RETRY, backfill: bool = False
    ) -> Callable[[_Function], _Function]:
        """Call the function for each version that changes a record or restores a deleted one; see `create`."""
        return _subscribe([(cls, "update", "")], name, retry, backfill=backfill)

    def delete(
        self, cls: type[Any], *, name: str | None = None, retry: Retry = RETRY, backfill: bool = False
    ) -> Callable[[_Function], _Function]:
        """Call the function for each deletion, with the tombstone; see `create`."""
        return _subscribe([(cls, "delete", "")], name, retry, backfill=backfill)

    def call(
        self, method: Callable[..., Any], *, name: str | None = None, retry: Retry = RETRY, backfill: bool = False
    ) -> Callable[[_Function], _Function]:
        """Call the function for each version that a call of an evented method made, as `on.call(Story.publish)`."""
        owners = [cls for cls in registered() if method in vars(cls).values()]
        if not owners:
            message = f"on.call({method!r}): name an evented method of a record class, such as Story.publish."
            raise Invalid(message)
        return _subscribe([(cls, "call", method.__name__) for cls in owners], name, retry, backfill=backfill)


def _subscribe(
    wanted: list[tuple[type[Any], Kind, str]], name: str | None, retry: Retry, *, backfill: bool
) -> Callable[[_Function], _Function]:
    for cls, kind, _method in wanted:
        if not isinstance(cls, RecordMeta) or not cls.__eventic__.class_type:
            message = f"on.{kind}({cls!r}): that is no record class. Name a class that inherits from Record."
            raise Invalid(message)

    def decorate(function: _Function) -> _Function:
        found = name_of(function, name)
        known = _handlers.get(found)
        if known is not None and known.function is not function:
            if "<locals>" not in function.__qualname__ and known.function.__qualname__ != function.__qualname__:
                places = f"{place(known.function)} and {place(function)}"
                message = f'Two handlers are registered as {found!r}: {places}. Give one of them name="...".'
                raise DuplicateRegistration(message)
            known = None
        if known is None:
            known = _handlers[found] = Handler(name=found, function=function, retry=retry, backfill=backfill)
        known.subscriptions += [
            Subscription(found, cls.__eventic__.class_type, kind, method) for cls, kind, method in wanted
        ]
        return function

    return decorate


on = On()
