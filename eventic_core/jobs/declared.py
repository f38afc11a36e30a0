"""Jobs declared in code and the DAGs they make: what depends on what is told from arguments and `depends_on`.

Owns the decorator, `dag` and the registry of DAGs. What a run does with them is in `run_workflow` and `group`.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, get_type_hints, overload

from pydantic import TypeAdapter, ValidationError

from eventic_core.automation.retries import Retried, Retries
from eventic_core.errors import DuplicateRegistration, Invalid, InvalidDag, NotRegistered
from eventic_core.graph import TriggerRule, to_mermaid, to_svg
from eventic_core.jobs.entities import DEFAULT_PRIORITY
from eventic_core.jobs.fitting import fits, type_name
from eventic_core.jobs.plan import Plan
from eventic_core.jobs.references import answer, reading
from eventic_core.records.blocking import in_thread
from eventic_core.runtime import Retry
from eventic_core.settings import slug

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from eventic_core.jobs.dag_run import DagRun

P = ParamSpec("P")
R = TypeVar("R")

_ANY: Any = inspect.Parameter.empty
_dags: dict[str, DeclaredDag] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobContext:
    """Where a job runs; given to a parameter called `context`.

    Attributes:
        dag: The DAG's name.
        job: The job's name.
        run_id: The run's id.
        attempt: Which attempt this is, from 1.
        correlation_id: The run's.
        idempotency_key: For calls to the outside: the same in all attempts of the job in this run.
    """

    dag: str
    job: str
    run_id: Any
    number: int
    attempt: int
    correlation_id: str | None
    idempotency_key: str


@dataclass(frozen=True, kw_only=True)
class DeclaredJob(Retried, Generic[P, R]):
    """A job in code; calling it calls its function.

    Attributes:
        name: What it is called in its DAG.
        function: What it does.
        inputs: The parameters that take another job's result, by that job's name.
        depends_on: The jobs it waits for without taking their results.
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

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function."""
        return self.function(*args, **kwargs)

    @functools.cached_property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function."""
        return inspect.iscoroutinefunction(self.function)

    @functools.cached_property
    def parameters(self) -> dict[str, Any]:
        """The function's parameters with their types; `Parameter.empty` where none is said."""
        hints = get_type_hints(self.function)
        names = inspect.signature(self.function).parameters
        return {name: hints.get(name, _ANY) for name in names if name != "context"}

    @functools.cached_property
    def required(self) -> frozenset[str]:
        """The parameters without a default."""
        found = inspect.signature(self.function).parameters.values()
        return frozenset(one.name for one in found if one.default is _ANY and one.name != "context")

    @functools.cached_property
    def result_type(self) -> Any:
        """The type of its result; `Parameter.empty` where none is said."""
        return get_type_hints(self.function).get("return", _ANY)

    @functools.cached_property
    def call(self) -> Callable[[dict[str, Any], Any], Any]:
        """The function with its arguments and a context, if it takes one."""
        takes_context = "context" in inspect.signature(self.function).parameters
        function: Any = self.function

        def given(arguments: dict[str, Any], context: Any) -> Any:
            return function(**arguments, **({"context": context} if takes_context else {}))

        if not self.is_async:
            return lambda arguments, context: answer(given(arguments, context))

        async def call(arguments: dict[str, Any], context: Any) -> Any:
            import asyncio

            async with asyncio.timeout(self.timeout_seconds):
                return await in_thread(answer, await given(arguments, context))

        return call

    def result_of(self, value: Any) -> Any:
        """Make of a stored result what the function gave, as far as its annotation tells."""
        if self.result_type in (_ANY, Any, None):
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
            message = f"Job {self.name!r}: argument {name!r} does not fit {type_name(self.parameters[name])}: {error}"
            raise Invalid(message) from error

    @functools.cached_property
    def _adapters(self) -> dict[str, TypeAdapter[Any]]:
        return {name: TypeAdapter(reading(kind)) for name, kind in self.parameters.items() if kind not in (_ANY, Any)}


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

    Raises:
        UnknownRule: No rule has the name.
        Invalid: A limit that makes no sense.
    """
    if priority < 0:
        message = f"job(priority={priority}): 0 is the first to begin; say 0 or more."
        raise Invalid(message)
    if timeout_seconds is not None and timeout_seconds <= 0:
        message = f"job(timeout_seconds={timeout_seconds}): no attempt would ever succeed. Say more than 0."
        raise Invalid(message)

    def decorate(function: Callable[P, R]) -> DeclaredJob[P, R]:
        return DeclaredJob(
            name=name or function.__name__,
            function=function,
            rule=TriggerRule(rule),
            inputs={parameter: _name(source) for parameter, source in (inputs or {}).items()},
            depends_on=tuple(_name(source) for source in depends_on),
            retry=retry or Retry(),
            timeout_seconds=timeout_seconds,
            priority=priority,
            is_branch=branch,
        )

    return decorate if function is None else decorate(function)


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
        """The queue its jobs are done on."""
        return f"dag_{slug(self.name).replace('-', '_')}"

    def start(self, *, correlation_id: str | None = None, **parameters: Any) -> DagRun:
        """Start a run: a workflow whose id is the run's; in a scope, when that commits.

        Args:
            correlation_id: Stamped on everything the run writes.
            parameters: For parameters of jobs that take no result.

        Raises:
            Invalid: A parameter is unknown, missing, or does not fit.
        """
        from eventic_core.jobs.starting import start

        return start(self, parameters, correlation_id=correlation_id)

    async def start_async(self, *, correlation_id: str | None = None, **parameters: Any) -> DagRun:
        """Start a run without blocking the event loop; see `start`."""
        return await in_thread(self.start, correlation_id=correlation_id, **parameters)

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
        _check_types(name, one, found, arguments[one.name])
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


def _check_types(
    dag_name: str,
    one: DeclaredJob[Any, Any],
    jobs: Mapping[str, DeclaredJob[Any, Any]],
    arguments: Mapping[str, str],
) -> None:
    for parameter, source in arguments.items():
        given, taken = jobs[source].result_type, one.parameters[parameter]
        if not fits(given, taken):
            message = (
                f"DAG {dag_name!r}: {source} -> {one.name}: {source} gives {type_name(given)}, which does not fit "
                f"parameter {parameter!r} of {one.name}, {type_name(taken)}."
            )
            raise InvalidDag(message)


def _register(made: DeclaredDag) -> None:
    from eventic_core.jobs.running import let_workers_run

    known = _dags.get(made.name)
    if known is not None and not _is_again(known, made):
        message = f"Two DAGs are called {made.name!r}. Give one of them another name."
        raise DuplicateRegistration(message)
    _dags[made.name] = made
    let_workers_run(made)


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
