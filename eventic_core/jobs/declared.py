"""Jobs declared in code and the DAGs they make: what depends on what is told from arguments and `depends_on`.

Owns the decorator, `dag` and the registry of DAGs. What a run does with them is in `run_workflow` and `group`.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from pydantic import TypeAdapter, ValidationError

from eventic_core.automation.retries import Retried, Retries
from eventic_core.errors import ChildRunFailed, DuplicateRegistration, Invalid, InvalidDag, NotRegistered
from eventic_core.graph import TriggerRule, to_mermaid, to_svg
from eventic_core.jobs.entities import DEFAULT_PRIORITY
from eventic_core.jobs.fitting import UNSAID, element_type, fits, type_name
from eventic_core.jobs.limits import Limits, limits_of
from eventic_core.jobs.parameters import (
    DEFAULT_LIMIT,
    check_map,
    parameters_of,
    required_of,
    result_type_of,
    takes_context,
)
from eventic_core.jobs.plan import Plan
from eventic_core.jobs.references import answer, reading
from eventic_core.jobs.timetable import Overlap
from eventic_core.records.blocking import in_thread
from eventic_core.runtime import Retry
from eventic_core.settings import slug

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime, timedelta

    from eventic_core.jobs.dag_run import DagRun
    from eventic_core.jobs.schedule import Schedule
    from eventic_core.jobs.stored import StoredDag
    from eventic_core.runtime.queues import Queue

P = ParamSpec("P")
R = TypeVar("R")

_dags: dict[str, DeclaredDag] = {}


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


@dataclass(frozen=True, kw_only=True)
class DeclaredDag:
    """Jobs that make a DAG, under a name.

    Attributes:
        jobs: By name, in the order they were given.
        arguments: For each job, its parameters that take a result, with the job that gives it.
        plan: What comes after what.
        concurrency: Groups of jobs that one worker does at a time.
    """

    name: str
    jobs: Mapping[str, DeclaredJob[Any, Any]]
    arguments: Mapping[str, Mapping[str, str]]
    plan: Plan
    concurrency: int = 16

    @property
    def queue_name(self) -> str:
        """The queue its jobs are done on, but those with limits."""
        return f"dag_{slug(self.name).replace('-', '_')}"

    @functools.cached_property
    def limited(self) -> Mapping[str, Queue]:
        """The jobs with limits, each with the queue that keeps them."""
        return {
            one.name: one.limits.queue_called(self.own_queue_of(one))
            for one in self.jobs.values()
            if one.limits and not one.map
        }

    def own_queue_of(self, one: DeclaredJob[Any, Any]) -> str:
        """Name the queue that keeps a job's limits, if none is chosen."""
        return f"{self.queue_name}__{slug(one.name).replace('-', '_')}"

    def start(self, *, correlation_id: str | None = None, client_id: str | None = None, **parameters: Any) -> DagRun:
        """Start a run: a workflow whose id is the run's; in a scope, when that commits.

        Args:
            correlation_id: Stamped on everything the run writes.
            client_id: The tenant whose run it is; `None` is none.
            parameters: For parameters of jobs that take no result.

        Raises:
            Invalid: A parameter is unknown, missing, or does not fit.
        """
        from eventic_core.jobs.starting import start

        return start(self, parameters, correlation_id=correlation_id, client_id=client_id)

    async def start_async(
        self, *, correlation_id: str | None = None, client_id: str | None = None, **parameters: Any
    ) -> DagRun:
        """Start a run without blocking the event loop; see `start`."""
        return await in_thread(self.start, correlation_id=correlation_id, client_id=client_id, **parameters)

    def stored(self, client_id: str | None = None) -> StoredDag:
        """Store its jobs and what they wait for as records of a tenant, or bring those up to date, and give them.

        Raises:
            Invalid: A job takes one result as two arguments.
            CycleFound: What others have added does not fit together with it any more.
        """
        from eventic_core.jobs.storing import store

        return store(self, client_id)

    def schedule(
        self,
        schedule: str | timedelta | float,
        *,
        name: str | None = None,
        zone: str | None = None,
        anchor: datetime | None = None,
        overlap: Overlap | str = Overlap.SKIP,
        catch_up: timedelta | None = None,
        starts_at: datetime | None = None,
        ends_at: datetime | None = None,
        parameters: Mapping[str, Any] | None = None,
        client_id: str | None = None,
    ) -> Schedule:
        """Have it run whenever it is due: store a schedule, or bring the one of that name up to date.

        Called again with the same values, as whenever an application starts, it changes nothing; a pause stays.

        Args:
            schedule: A cron or an interval; see `Timetable.of`.
            name: Its own among all schedules; default the DAG's name.
            zone: Whose clocks a cron goes by, an IANA name; default UTC.
            anchor: One of an interval's due times.
            overlap: What is done about a due time while an earlier run of the schedule goes on.
            catch_up: How old a due time may be that no worker came to, and still be run for; zero: none is made up
                for; `None`: the latest one alone is.
            starts_at: The first moment at which it may be due; what was due before it was made is a backfill's.
            ends_at: The first moment at which it is due no more.
            parameters: Of each run. A job's parameter `due_at` is given the due time, unless it is among them.
            client_id: The tenant of its runs.

        Raises:
            InvalidSchedule: It is no cron and no interval, never comes, the zone is unknown, or it ends too early.
            Invalid: A parameter is unknown, missing, or does not fit; or a moment has no time zone.
            InvalidRecord: There is no such overlap policy, or the catch-up window is negative.
            DuplicateRegistration: The name is that of another DAG's or tenant's schedule.
        """
        from eventic_core.jobs.schedule import scheduled

        return scheduled(
            self,
            schedule,
            name=name,
            zone=zone,
            anchor=anchor,
            overlap=overlap,
            catch_up=catch_up,
            starts_at=starts_at,
            ends_at=ends_at,
            parameters=parameters,
            client_id=client_id,
        )

    async def schedule_async(self, schedule: str | timedelta | float, **options: Any) -> Schedule:
        """Have it run whenever it is due, without blocking the event loop; takes and raises what `schedule` does."""
        return await in_thread(self.schedule, schedule, **options)

    def document(self) -> dict[str, Any]:
        """Give what a run keeps of it, as JSON data."""
        return self.plan.document()

    def mermaid(self) -> str:
        """Draw it as the text of a Mermaid flowchart."""
        return to_mermaid(self.plan.dag, branches=self.plan.branches)

    def svg(self) -> str:
        """Draw it as an SVG that stands by itself."""
        return to_svg(self.plan.dag, branches=self.plan.branches)

    def parameters_of(self, job: DeclaredJob[Any, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Give those of a run's parameters that a job takes."""
        results = self.arguments[job.name]
        return {name: given[name] for name in job.parameters if name in given and name not in results}


def dag(name: str, *jobs: DeclaredJob[Any, Any], concurrency: int = 16) -> DeclaredDag:
    """Make a DAG of jobs, and let workers of this process run it.

    Raises:
        CycleFound: A job would wait for itself; names the whole path.
        UnknownJob: One depends on a job that is not given.
        InvalidDag: Two jobs have one name, a parameter has no source, or a result does not fit a parameter.
        DuplicateRegistration: Another DAG has the name.
    """
    found: dict[str, DeclaredJob[Any, Any]] = {}
    for one in jobs:
        if one.name in found:
            message = f"DAG {name!r}: two jobs are called {one.name!r}. Give one of them another name."
            raise InvalidDag(message)
        found[one.name] = one
    arguments = {one.name: _arguments(one, found) for one in jobs}
    upstream = {one.name: list(dict.fromkeys([*arguments[one.name].values(), *one.depends_on])) for one in jobs}
    rules = {one.name: one.rule for one in jobs if one.rule is not TriggerRule.ALL_SUCCESS}
    plan = Plan(upstream, rules, [one.name for one in jobs if one.is_branch])
    for one in jobs:
        check_types(name, one, found, arguments[one.name])
    made = DeclaredDag(name=name, jobs=found, arguments=arguments, plan=plan, concurrency=concurrency)
    _register(made)
    return made


def _arguments(one: DeclaredJob[Any, Any], jobs: Mapping[str, DeclaredJob[Any, Any]]) -> dict[str, str]:
    unknown = sorted(one.inputs.keys() - one.parameters.keys())
    if unknown:
        message = f"Job {one.name!r} has no parameter {unknown[0]!r}, which its inputs name."
        raise InvalidDag(message)
    same = {name: name for name in one.parameters if name in jobs and name != one.name and name not in one.inputs}
    return {**same, **one.inputs}


def check_types(
    dag_name: str,
    one: DeclaredJob[Any, Any],
    jobs: Mapping[str, DeclaredJob[Any, Any]],
    arguments: Mapping[str, str],
) -> None:
    """Refuse results that do not fit the parameters they go to.

    Raises:
        InvalidDag: One does not.
    """
    for parameter, source in arguments.items():
        given, taken = jobs[source].result_type, one.parameters[parameter]
        if one.map == parameter:
            given = element_type(given)
        if not fits(given, taken):
            message = (
                f"DAG {dag_name!r}: {source} -> {one.name}: {source} gives {type_name(given)}, which does not fit "
                f"parameter {parameter!r} of {one.name}, {type_name(taken)}."
            )
            raise InvalidDag(message)


def _register(made: DeclaredDag) -> None:
    from eventic_core.jobs import mapping
    from eventic_core.jobs.running import let_workers_run

    known = _dags.get(made.name)
    if known is not None and not _is_again(known, made):
        message = f"Two DAGs are called {made.name!r}. Give one of them another name."
        raise DuplicateRegistration(message)
    _dags[made.name] = made
    let_workers_run(made)
    for one in made.jobs.values():
        if one.map is not None:
            mapping.declare(made.name, one)


def _is_again(known: DeclaredDag, made: DeclaredDag) -> bool:
    """Tell whether one definition replaces the other: a module that is imported again."""
    from eventic_core.runtime.functions import same_place

    both = known.jobs.keys() & made.jobs.keys()
    return bool(both) and all(same_place(known.jobs[name].function, made.jobs[name].function) for name in both)


def find(name: str) -> DeclaredDag:
    """Give the DAG declared under a name.

    Raises:
        NotRegistered: This process has not declared it.
    """
    found = _dags.get(name)
    if found is None:
        message = f"No DAG {name!r} is declared in this process: import its module in the worker."
        raise NotRegistered(message)
    return found
