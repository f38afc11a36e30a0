"""Jobs declared in code: `@job`, what it takes, and how its function is called.

Knows no DAG; what depends on what is `declared_dag`'s.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from pydantic import TypeAdapter, ValidationError

from eventic_core.automation.retries import Retried, Retries
from eventic_core.errors import ChildRunFailed, Invalid
from eventic_core.graph import TriggerRule
from eventic_core.jobs.entities import DEFAULT_PRIORITY
from eventic_core.jobs.fitting import UNSAID, type_name
from eventic_core.jobs.limits import Limits, limits_of
from eventic_core.jobs.parameters import (
    DEFAULT_LIMIT,
    check_map,
    parameters_of,
    required_of,
    result_type_of,
    takes_context,
)
from eventic_core.jobs.references import answer, reading
from eventic_core.records.blocking import in_thread
from eventic_core.runtime import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from eventic_core.runtime.queues import Queue

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class DeclaredJob(Retried, Generic[P, R]):
    """A job in code; calling it calls its function.

    Attributes:
        name: What it is called in its DAG.
        function: What it does.
        inputs: The parameters that take another job's result, by that job's name.
        depends_on: The jobs it waits for without taking their results.
        concurrency, rate, queue: What holds for it over all workers together; see `Limits`.
        map: The parameter it is done for each element of.
        over: What gives the elements, if no other job does.
        limit: Elements; what has more is taken for endless.
        tolerated_failures: How many elements may fail.
    """

    name: str
    function: Callable[P, R]
    rule: TriggerRule = TriggerRule.ALL_SUCCESS
    inputs: Mapping[str, str] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()
    retry: Retries = field(default_factory=Retry)
    timeout_seconds: float | None = None
    priority: int = DEFAULT_PRIORITY
    is_branch: bool = False
    concurrency: int | None = None
    rate: tuple[int, float] | None = None
    queue: Queue | None = None
    map: str | None = None
    over: Callable[..., Iterable[Any]] | None = None
    limit: int = DEFAULT_LIMIT
    tolerated_failures: int | str | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function."""
        return self.function(*args, **kwargs)

    @functools.cached_property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.function)

    @functools.cached_property
    def limits(self) -> Limits | None:
        """What holds for it over all workers together; `None` if nothing does, and it shares groups with other jobs."""
        return limits_of(concurrency=self.concurrency, rate=self.rate, queue=self.queue)

    @functools.cached_property
    def parameters(self) -> dict[str, Any]:
        """What it takes, with types, `UNSAID` where there is none; of a mapped job what `over` takes too."""
        taken = parameters_of(self.function)
        if self.over is not None:
            taken = {name: kind for name, kind in taken.items() if name != self.map}
            taken = {**parameters_of(self.over), **taken}
        return taken

    @functools.cached_property
    def required(self) -> frozenset[str]:
        """The parameters without a default."""
        if self.over is None:
            return required_of(self.function)
        return (required_of(self.function) - {self.map}) | required_of(self.over)

    @functools.cached_property
    def result_type(self) -> Any:
        """The type of its result, of a mapped job of the list of them; `UNSAID` where there is none."""
        kind = result_type_of(self.function)
        return kind if self.map is None or kind is UNSAID else list[kind]  # type: ignore[valid-type]

    @functools.cached_property
    def given(self) -> Callable[[dict[str, Any], Any], Any]:
        """The function as it is, with its arguments and a context, if it takes one."""
        function: Any = self.function
        if not takes_context(function):
            return lambda arguments, _context: function(**arguments)
        return lambda arguments, context: function(**arguments, context=context)

    @functools.cached_property
    def call(self) -> Callable[[dict[str, Any], Any], Any]:
        """The function with its arguments and a context; gives what a job answers, within the time of an async one."""
        given = self.given
        if not self.is_async:
            return lambda arguments, context: answer(given(arguments, context))

        async def call(arguments: dict[str, Any], context: Any) -> Any:
            import asyncio

            async with asyncio.timeout(self.timeout_seconds):
                return await in_thread(answer, await given(arguments, context))

        return call

    def retry_for(self, error: BaseException) -> Retry:
        """Give how an error is retried; of a mapped job's elements each has been already."""
        return Retry() if self.map and isinstance(error, ChildRunFailed) else super().retry_for(error)

    def result_of(self, value: Any) -> Any:
        """Make of a stored result what the function gave, as far as its annotation tells."""
        if self.result_type in (UNSAID, Any, None):
            return value
        return TypeAdapter(reading(self.result_type)).validate_python(value)

    def item_of(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Make the arguments of JSON data.

        Raises:
            Invalid: An argument does not fit its type.
        """
        return {name: self._argument(name, value) for name, value in payload.items()}

    def _argument(self, name: str, value: Any) -> Any:
        adapter = self._adapters.get(name)
        if adapter is None:
            return value
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            kind = type_name(self.parameters[name])
            kind = f"list[{kind}]" if name == self.map else kind
            message = f"Job {self.name!r}: argument {name!r} does not fit {kind}: {error}"
            raise Invalid(message) from error

    @functools.cached_property
    def element_of(self) -> Callable[[Any], Any]:
        """Makes an element of JSON data; of a mapped job."""
        kind = parameters_of(self.function)[self.map or ""]
        return TypeAdapter(Any if kind is UNSAID else reading(kind)).validate_python

    @functools.cached_property
    def _adapters(self) -> dict[str, TypeAdapter[Any]]:
        kinds = {name: kind for name, kind in self.parameters.items() if kind not in (UNSAID, Any)}
        adapters: dict[str, TypeAdapter[Any]] = {name: TypeAdapter(reading(kind)) for name, kind in kinds.items()}
        if self.map is not None and self.over is None:
            adapters[self.map] = TypeAdapter(list[Any])  # each element is looked at when it is its turn
        return adapters


@overload
def job(function: Callable[P, R], /) -> DeclaredJob[P, R]: ...


@overload
def job(
    *,
    name: str | None = None,
    depends_on: Iterable[DeclaredJob[Any, Any] | str] = (),
    inputs: Mapping[str, DeclaredJob[Any, Any] | str] | None = None,
    rule: TriggerRule | str = TriggerRule.ALL_SUCCESS,
    retry: Retries | None = None,
    timeout_seconds: float | None = None,
    priority: int = DEFAULT_PRIORITY,
    branch: bool = False,
    concurrency: int | None = None,
    rate: tuple[int, float] | None = None,
    queue: Queue | None = None,
    map: str | None = None,
    over: Callable[..., Iterable[Any]] | None = None,
    limit: int = DEFAULT_LIMIT,
    tolerated_failures: int | str | None = None,
) -> Callable[[Callable[P, R]], DeclaredJob[P, R]]: ...


def job(
    function: Callable[P, R] | None = None,
    /,
    *,
    name: str | None = None,
    depends_on: Iterable[DeclaredJob[Any, Any] | str] = (),
    inputs: Mapping[str, DeclaredJob[Any, Any] | str] | None = None,
    rule: TriggerRule | str = TriggerRule.ALL_SUCCESS,
    retry: Retries | None = None,
    timeout_seconds: float | None = None,
    priority: int = DEFAULT_PRIORITY,
    branch: bool = False,
    concurrency: int | None = None,
    rate: tuple[int, float] | None = None,
    queue: Queue | None = None,
    map: str | None = None,
    over: Callable[..., Iterable[Any]] | None = None,
    limit: int = DEFAULT_LIMIT,
    tolerated_failures: int | str | None = None,
) -> Any:
    """Declare a job: a function, sync or async, that a DAG runs once its upstream has ended.

    A parameter that is called like another job of the DAG, or is named in `inputs`, takes that job's result. Others are
    parameters of the run, or have defaults; one called `context` is given a `JobContext`. Records that the job writes
    and work it enqueues are stored once, with its result; calls to the outside happen at least once.

    Args:
        function: What it does, where the decorator has no arguments.
        name: What it is called; default the function's name.
        depends_on: Jobs it waits for without taking their results.
        inputs: Parameters that take the result of a job of another name.
        rule: When it runs, told from how those before it ended.
        retry: When it is tried again after an error, or that for each class of error; default never.
        timeout_seconds: Of one attempt. An async function is cancelled; a sync one is left to itself, its writes lost.
        priority: Of jobs that are ready at the same time, those with a lower one begin first.
        branch: Its result names the jobs directly after it that are followed; the others are skipped.
        concurrency: How many of its runs all workers together do at a time.
        rate: `(runs, seconds)`: how many all workers together begin at most, attempts at another time included.
        queue: In place of these two, a queue of `Eventic.queue` whose limits it shares with what else lies there.
        map: A parameter: the job is done for each element of what it is given, and its result is the list of results
            of the elements that completed, in their order. The other parameters are the same for all. The elements are
            the items of a run of the automation `<dag>.<job>`, and have what items have; `retry`, `timeout_seconds`,
            `concurrency` (of one worker then) and `rate` are the elements'.
        over: Gives what it is mapped over, instead of another job or a parameter of the run: a function whose own
            parameters are the job's, and which returns an iterable, a generator or a query; read once, in windows.
        limit: How many elements there may be; what has more is taken for endless, and nothing of it is stored.
        tolerated_failures: How many elements may fail, as a count or as `"5%"`; default none.

    Raises:
        UnknownRule: No rule has the name.
        Invalid: A limit that makes no sense.
    """
    _check_numbers(priority, timeout_seconds)
    limits_of(concurrency=concurrency, rate=rate, queue=queue)  # which refuses them, if they make no sense

    def decorate(function: Callable[P, R]) -> DeclaredJob[P, R]:
        check_map(function, map, over, limit)
        made = DeclaredJob(
            name=name or function.__name__,
            function=function,
            rule=TriggerRule(rule),
            inputs={parameter: _name(source) for parameter, source in (inputs or {}).items()},
            depends_on=tuple(_name(source) for source in depends_on),
            retry=retry or Retry(),
            timeout_seconds=timeout_seconds,
            priority=priority,
            is_branch=branch,
            concurrency=concurrency,
            rate=rate,
            queue=queue,
            map=map,
            over=over,
            limit=limit,
            tolerated_failures=tolerated_failures,
        )
        _note(made)
        return made

    return decorate if function is None else decorate(function)


def _check_numbers(priority: int, timeout_seconds: float | None) -> None:
    if priority < 0:
        message = f"job(priority={priority}): 0 is the first to begin; say 0 or more."
        raise Invalid(message)
    if timeout_seconds is not None and timeout_seconds <= 0:
        message = f"job(timeout_seconds={timeout_seconds}): no attempt would ever succeed. Say more than 0."
        raise Invalid(message)


def _note(made: DeclaredJob[Any, Any]) -> None:
    from eventic_core.jobs.registry import note
    from eventic_core.jobs.running import let_workers_do

    note(made)
    let_workers_do(made)


def _name(source: DeclaredJob[Any, Any] | str) -> str:
    return source if isinstance(source, str) else source.name
