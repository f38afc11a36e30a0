"""A job that is mapped: done for each element of a list, a generator or a query, as a run of an automation of its own.

So elements have what items have: exactly-once records, retries, limits, progress, undo. The job ends with that run.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic_core import from_json, to_jsonable_python

from eventic_core.automation import declared as automations
from eventic_core.automation.declared import DeclaredAutomation
from eventic_core.automation.definitions import Batch
from eventic_core.automation.executions import BatchExecution
from eventic_core.automation.status import ExecutionStatus
from eventic_core.errors import DuplicateKey, DuplicateRegistration, EndlessMap, Invalid
from eventic_core.jobs.context import JobContext
from eventic_core.jobs.parameters import parameters_of
from eventic_core.jobs.references import answer, referring
from eventic_core.records.blocking import in_thread
from eventic_core.runtime.process import process
from eventic_core.store.reports import Reports

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from eventic_core.automation.run import Run
    from eventic_core.automation.steering import ItemContext
    from eventic_core.jobs.declared_dag import DeclaredDag
    from eventic_core.jobs.declared_job import DeclaredJob

_CONCURRENCY = 16
"""Elements that one worker does at a time, where the job does not say."""


def automation_name(dag: str, job: str) -> str:
    """Give the name of the automation that does the elements of a job."""
    return f"{dag}.{job}"


def declare(dag_name: str, job: DeclaredJob[Any, Any]) -> None:
    """Let workers of this process do the elements of a mapped job.

    Raises:
        DuplicateRegistration: Another automation has the name, as of job `b.c` of DAG `a` and `c` of `a.b`.
    """
    name, description = automation_name(dag_name, job.name), f"The elements of job {job.name!r} of DAG {dag_name!r}."
    known = next((one for one in automations.declared() if one.name == name), None)
    if known is not None and known.description != description:
        message = f"The elements of job {job.name!r} would be automation {name!r}, which is another. Rename the job."
        raise DuplicateRegistration(message)
    automations.register(
        DeclaredAutomation(
            name=name,
            function=_Elements(job).function(),
            description=description,
            retry=job.retry,
            tolerated_failures=job.tolerated_failures,
            concurrency=(job.limits and job.limits.concurrency) or _CONCURRENCY,
            rate=None if job.limits is None else job.limits.rate,
            timeout_seconds=job.timeout_seconds,
        )
    )


def prepare(dag: DeclaredDag) -> None:
    """Store the automations of a DAG's mapped jobs, of which runs started at the same time would make two."""
    for job in dag.jobs.values():
        if job.map is None:
            continue
        automation = automations.find(automation_name(dag.name, job.name))
        try:
            automation.stored()
        except DuplicateKey:  # another process was quicker
            automation.stored()


class MapStart:
    """What is called for a mapped job: reads what it is mapped over, and starts the run of its elements."""

    timeout_seconds = None
    is_async = False

    def __init__(self, job: DeclaredJob[Any, Any]) -> None:
        self._job = job
        self.name = job.name

    def item_of(self, payload: Any) -> dict[str, Any]:
        """Make the arguments of JSON data."""
        return self._job.item_of(payload)

    def call(self, arguments: dict[str, Any], context: JobContext) -> Any:
        """Start the run; gives it, or an empty list if there is no element.

        Raises:
            EndlessMap: There are more elements than the job's limit.
            Invalid: What it is mapped over is no list.
        """
        job = self._job
        elements = iter(self._elements(arguments))
        first = next(elements, _NONE)
        if first is _NONE:
            return []
        automation: DeclaredAutomation[Any, Any] = automations.find(automation_name(context.dag, context.job))
        own = parameters_of(job.function)
        shared = {name: value for name, value in arguments.items() if name in own and name != job.map}
        payload = {
            "dag": context.dag,
            "job": context.job,
            "run_id": str(context.run_id),
            "arguments": to_jsonable_python(referring(shared)),
        }
        rows = self._rows(itertools.chain([first], elements))
        batch = automation.batch(f"{context.run_id} {context.attempt}", rows, payload=payload)
        run: Run = automation.start(batch, correlation_id=context.correlation_id)
        return answer(run)

    def _elements(self, arguments: dict[str, Any]) -> Iterable[Any]:
        job = self._job
        if job.over is not None:
            taken = parameters_of(job.over)
            given: Any = job.over(**{name: value for name, value in arguments.items() if name in taken})
        else:
            given = arguments[job.map or ""]
        if isinstance(given, str | bytes | dict) or not hasattr(given, "__iter__"):
            message = f"Job {job.name!r} is mapped over {job.map!r}, which is {given!r:.80}: give a list."
            raise Invalid(message)
        return given  # type: ignore[no-any-return]

    def _rows(self, elements: Iterable[Any]) -> Iterator[dict[str, Any]]:
        job = self._job
        for number, element in enumerate(elements, 1):
            if number > job.limit:
                message = (
                    f"Job {job.name!r}: {job.map!r} has more than {job.limit:,} elements, if it ends at all. Give a "
                    "source that ends, or a higher limit=."
                )
                raise EndlessMap(message)
            yield {"value": to_jsonable_python(referring(element))}


_NONE: Any = object()


class _Elements:
    """What is called for the elements of a mapped job."""

    def __init__(self, job: DeclaredJob[Any, Any]) -> None:
        self._job = job
        self._shared = lru_cache(maxsize=16)(self._read_shared)

    def function(self) -> Any:
        """Give the function of an item and its context that calls the job's, async or not as that is."""
        job = self._job

        def element(item: dict[str, Any], context: ItemContext) -> Any:
            return referring(job.given(*self._call_of(item, context)))

        async def element_async(item: dict[str, Any], context: ItemContext) -> Any:
            call = await in_thread(self._call_of, item, context)
            return await in_thread(referring, await job.given(*call))

        return element_async if job.is_async else element

    def _call_of(self, item: dict[str, Any], context: ItemContext) -> tuple[dict[str, Any], JobContext]:
        """Give the arguments and the context for one element."""
        shared, where = self._shared(context.batch_execution_id)
        job = self._job
        assert job.map is not None
        of_job = JobContext(
            **where,
            number=context.number,
            attempt=context.attempt,
            correlation_id=context.correlation_id,
            idempotency_key=context.idempotency_key,
        )
        return {**shared, job.map: job.element_of(item["value"])}, of_job

    def _read_shared(self, batch_execution_id: UUID) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read what all elements of a run have in common; it never changes."""
        payload: Any = Batch.hydrate(BatchExecution.hydrate(batch_execution_id).batch_id).payload
        where = {"dag": payload["dag"], "job": payload["job"], "run_id": UUID(payload["run_id"])}
        return self._job.item_of(payload["arguments"]), where


def result_in(job: DeclaredJob[Any, Any], payload: Any, child_run_id: UUID | str | None) -> Any:
    """Give the result of a job that completed, as JSON data: as it is stored, a mapped one's from its elements."""
    if job.map is None or child_run_id is None:
        return payload
    rows = Reports(process().store.database).results(UUID(str(child_run_id)), (str(ExecutionStatus.COMPLETED),))
    return [from_json(row.result) if row.result else None for row in rows]
