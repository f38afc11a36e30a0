"""Automations declared in code: a function for an item, with how it is tried, timed and limited.

Owns the decorator and the registry of names. The stored Automation of the name is made when it is first needed.
"""

from __future__ import annotations

import functools
import inspect
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar

from pydantic import BaseModel

from eventic_core.automation.retries import Retried, Retries
from eventic_core.errors import DuplicateRegistration, Invalid, NotRegistered
from eventic_core.records.blocking import in_thread, refuse_in_loop
from eventic_core.runtime import Retry
from eventic_core.settings import slug

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from eventic_core.automation.definitions import Automation, Batch
    from eventic_core.automation.loading import LoadedBatch
    from eventic_core.automation.run import Run
    from eventic_core.automation.steering import ItemContext

P = ParamSpec("P")
R = TypeVar("R")

GROUP_SIZE = 500
GROUP_SECONDS = 0.5
_ASYNC_GROUPS = 4
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""What Pydantic's schemas are written in, which they do not say."""
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")

_declared: dict[str, DeclaredAutomation[Any, Any]] = {}


@dataclass(frozen=True, kw_only=True)
class DeclaredAutomation(Retried, Generic[P, R]):
    """An automation in code; calling it calls its function.

    Attributes:
        name: What it is stored as.
        function: Done for each item: with the item, and an `ItemContext` if it takes two arguments.
        item_model: What an item's payload becomes for the function; `None` leaves it as it is.
        concurrency: Items that one worker does at a time.
        rate: `(items, seconds)` that all workers together begin at most.
        checkpoint: Whether a group of items shares a transaction, or each has its own.
    """

    name: str
    function: Callable[P, R]
    description: str | None = None
    batch_schema: dict[str, Any] | None = None
    item_schema: dict[str, Any] | None = None
    item_model: type[BaseModel] | None = None
    retry: Retries = field(default_factory=Retry)
    tolerated_failures: int | str | None = None
    tolerated_by_class: Mapping[str, int | str] = field(default_factory=dict)
    concurrency: int = 16
    rate: tuple[int, float] | None = None
    timeout_seconds: float | None = None
    checkpoint: Literal["group", "item"] = "group"
    group_size: int = GROUP_SIZE
    group_seconds: float = GROUP_SECONDS

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function."""
        return self.function(*args, **kwargs)

    # -- what a worker asks

    @functools.cached_property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.function)

    @functools.cached_property
    def _takes_context(self) -> bool:
        return len(inspect.signature(self.function).parameters) > 1

    @functools.cached_property
    def call(self) -> Callable[[Any, ItemContext], Any]:
        """The function with an item and a context, whichever it takes; an async one within its time."""
        function: Any = self.function
        given = function if self._takes_context else lambda item, _context: function(item)
        if not self.is_async:
            return given

        async def call(item: Any, context: ItemContext) -> Any:
            import asyncio

            async with asyncio.timeout(self.timeout_seconds):
                return await given(item, context)

        return call

    def item_of(self, payload: Any) -> Any:
        """Make of an item's payload what the function takes."""
        return payload if self.item_model is None else self.item_model.model_validate(payload)

    @property
    def queue_name(self) -> str:
        """The queue of its groups."""
        return f"automation_{slug(self.name).replace('-', '_')}"

    @property
    def groups_at_a_time(self) -> int:
        """Groups that one worker does at a time; an async function's items overlap within a group too."""
        return min(self.concurrency, _ASYNC_GROUPS) if self.is_async else self.concurrency

    @property
    def window(self) -> int:
        """Items of a group at a time."""
        return -(-self.concurrency // self.groups_at_a_time) if self.is_async else 1

    # -- what users ask

    def stored(self) -> Automation:
        """Give the stored Automation of the name, made or brought up to date if need be."""
        from eventic_core.automation.definitions import Automation

        refuse_in_loop("stored()", "asyncio.to_thread(automation.stored)")
        found = Automation.where(Automation.fields.name == self.name).limit(1).all()
        if not found:
            return Automation(
                name=self.name,
                description=self.description,
                batch_schema=self.batch_schema,
                item_schema=self.item_schema,
            )
        known = found[0]
        declared = {
            "description": self.description,
            "batch_schema": self.batch_schema,
            "item_schema": self.item_schema,
        }
        changed = {name: value for name, value in declared.items() if value != _plain(getattr(known, name))}
        if changed:
            known.update(**changed)
        return known

    def batch(
        self,
        name: str,
        rows: Iterable[Any],
        *,
        payload: dict[str, Any] | None = None,
        bad_rows: Literal["refuse", "set aside"] = "refuse",
        progress: bool | Callable[[int], None] = False,
    ) -> Batch:
        """Load a batch of items, all or none; see `load_batch`, which also tells what was set aside."""
        return self.load(name, rows, payload=payload, bad_rows=bad_rows, progress=progress).batch

    def load(self, name: str, rows: Iterable[Any], **options: Any) -> LoadedBatch:
        """Load a batch of items and tell how many, and which rows were bad; see `load_batch`."""
        from eventic_core.automation.loading import load_batch

        return load_batch(self.stored(), name, rows, item_model=self.item_model, **options)

    def start(
        self,
        batch: Batch | Iterable[Batch],
        *,
        correlation_id: str | None = None,
        tolerated_failures: int | str | None = None,
    ) -> Run:
        """Start a run over one batch or several: a workflow whose id is the run's; in a scope, when that commits.

        Args:
            batch: What to run over.
            correlation_id: Stamped on everything the run writes.
            tolerated_failures: As of `automation`, for this run.

        Raises:
            Invalid: There is no batch, one is another automation's, or there is no item.
        """
        from eventic_core.automation.definitions import Batch
        from eventic_core.automation.starting import start

        refuse_in_loop("start()", "start_async()")
        batches = [batch] if isinstance(batch, Batch) else list(batch)
        tolerated = self.tolerated_failures if tolerated_failures is None else tolerated_failures
        return start(self, batches, correlation_id=correlation_id, tolerated_failures=tolerated)

    async def start_async(self, batch: Batch | Iterable[Batch], **options: Any) -> Run:
        """Start a run without blocking the event loop; see `start`."""
        return await in_thread(self.start, batch, **options)


def _plain(value: Any) -> Any:
    from eventic_core.records.containers import plain

    return plain(value) if isinstance(value, dict | list) else value


def automation(
    name: str,
    *,
    description: str | None = None,
    batch_schema: type[BaseModel] | dict[str, Any] | None = None,
    item_schema: type[BaseModel] | dict[str, Any] | None = None,
    retry: Retries | None = None,
    tolerated_failures: int | str | None = None,
    tolerated_by_class: Mapping[str, int | str] | None = None,
    concurrency: int = 16,
    rate: tuple[int, float] | None = None,
    timeout_seconds: float | None = None,
    checkpoint: Literal["group", "item"] = "group",
    group_size: int = GROUP_SIZE,
    group_seconds: float = GROUP_SECONDS,
) -> Callable[[Callable[P, R]], DeclaredAutomation[P, R]]:
    """Declare what is done to each item of a batch: a function, sync or async, of the item and an `ItemContext`.

    What the function returns is the item's result. Records it writes and work it enqueues are stored once, with the
    item's status; calls to the outside happen at least once, with `ItemContext.idempotency_key`. Items are done in
    groups that share a transaction: after a crash, those of the open transaction are done again, and no others.

    Args:
        name: What the automation is stored as, one for each name.
        description: For people.
        batch_schema: A Pydantic model or JSON Schema that a batch's payload must fit.
        item_schema: The same for items; a model is also what the function is given.
        retry: When a failed item is tried again, or that for each class of error; default never.
        tolerated_failures: How many items may fail, as a count or as `"5%"` of all: one more stops the run, which
            begins no more items and fails. `None` does them all; the run fails if one did.
        tolerated_by_class: The same for errors of some classes, by name.
        concurrency: Items that one worker does at a time.
        rate: `(items, seconds)` that all workers together begin at most.
        timeout_seconds: Of one attempt. An async function is cancelled; a sync one is left to itself, its writes lost.
        checkpoint: `"item"` gives each item transactions of its own: at most one is done again after a crash.
        group_size: Items that share a transaction at most.
        group_seconds: How long a transaction's items may take together, apart from the last one.

    Raises:
        DuplicateRegistration: Another function has the name.
        Invalid: A limit that makes no sense.
    """
    item_model, batch_model = _model(item_schema), _model(batch_schema)
    for what, value in (("concurrency", concurrency), ("rate", rate and min(rate)), ("group_size", group_size)):
        if value is not None and value <= 0:
            message = f"automation({name!r}, {what}={value}): no item would ever be done. Say more than 0."
            raise Invalid(message)
    for tolerated in (tolerated_failures, *(tolerated_by_class or {}).values()):
        tolerated_count(tolerated, 0)
    if checkpoint not in ("group", "item"):
        message = f'automation({name!r}, checkpoint={checkpoint!r}): say "group" or "item".'
        raise Invalid(message)

    def decorate(function: Callable[P, R]) -> DeclaredAutomation[P, R]:
        made = DeclaredAutomation(
            name=name,
            function=function,
            description=description or inspect.getdoc(function),
            batch_schema=_schema(batch_model, batch_schema),
            item_schema=_schema(item_model, item_schema),
            item_model=item_model,
            retry=retry or Retry(),
            tolerated_failures=tolerated_failures,
            tolerated_by_class=dict(tolerated_by_class or {}),
            concurrency=concurrency,
            rate=rate,
            timeout_seconds=timeout_seconds,
            checkpoint=checkpoint,
            group_size=group_size,
            group_seconds=group_seconds,
        )
        register(made)
        return made

    return decorate


def _model(schema: Any) -> type[BaseModel] | None:
    return schema if isinstance(schema, type) and issubclass(schema, BaseModel) else None


def _schema(model: type[BaseModel] | None, schema: Any) -> dict[str, Any] | None:
    return schema if model is None else {"$schema": _DIALECT, **model.model_json_schema()}


def register(made: DeclaredAutomation[Any, Any]) -> None:
    """Let workers of this process run a declared automation.

    Raises:
        DuplicateRegistration: Another function has the name.
    """
    from eventic_core.runtime import performing
    from eventic_core.runtime.functions import place, same_place
    from eventic_core.runtime.process import process
    from eventic_core.runtime.queues import Queue
    from eventic_core.store.executions import RUNS_QUEUE

    known = _declared.get(made.name)
    if known is not None and not same_place(known.function, made.function):
        message = (
            f"Two automations are called {made.name!r}: {place(known.function)} and {place(made.function)}. "
            "Give one of them another name."
        )
        raise DuplicateRegistration(message)
    _declared[made.name] = made
    performing.define(ITEMS, _do_group)
    performing.define(AUTOMATION_RUN, _do_run)
    process().queue(Queue(made.queue_name, concurrency=made.groups_at_a_time))
    process().queue(Queue(RUNS_QUEUE))


ITEMS = "eventic.items"
AUTOMATION_RUN = "eventic.automation_run"


def _do_group(assignment: Any) -> None:
    from eventic_core.automation.group import Group

    Group(assignment).run()


def _do_run(assignment: Any) -> None:
    from eventic_core.automation.run_workflow import RunWorkflow

    RunWorkflow(assignment).run()


def find(name: str) -> DeclaredAutomation[Any, Any]:
    """Give the automation declared under a name.

    Raises:
        NotRegistered: This process has not declared it.
    """
    found = _declared.get(name)
    if found is None:
        message = f"No automation {name!r} is declared in this process: import its module in the worker."
        raise NotRegistered(message)
    return found


def declared() -> list[DeclaredAutomation[Any, Any]]:
    """List the automations declared so far."""
    return list(_declared.values())


def tolerated_count(tolerated: int | str | None, total: int) -> int | None:
    """Give how many of `total` items may fail; `None` is any number.

    Raises:
        Invalid: It is neither a count nor a percentage.
    """
    if tolerated is None:
        return None
    if isinstance(tolerated, int) and not isinstance(tolerated, bool) and tolerated >= 0:
        return tolerated
    if isinstance(tolerated, str) and (match := _PERCENT.fullmatch(tolerated.strip())) and float(match[1]) <= 100:  # noqa: PLR2004
        return int(total * float(match[1]) / 100)
    if isinstance(tolerated, str) and tolerated.strip().isdigit():
        return int(tolerated)
    message = f'tolerated_failures={tolerated!r}: say how many items may fail, as a count (20) or a percentage ("5%").'
    raise Invalid(message)
