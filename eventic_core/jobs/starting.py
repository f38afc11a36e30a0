"""Starting a run of a DAG: its record, its row and the workflow that runs it, in one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from eventic_core.automation.starting import transaction_of_scope
from eventic_core.errors import Invalid
from eventic_core.jobs.dag_run import DagRun
from eventic_core.jobs.mapping import prepare
from eventic_core.jobs.references import referring
from eventic_core.jobs.running import ensure_queues, run_work, table
from eventic_core.records.blocking import refuse_in_loop
from eventic_core.records.editing import edit_scope
from eventic_core.records.stamp import acting, current_origin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eventic_core.jobs.declared_dag import DeclaredDag


def start(dag: DeclaredDag, parameters: Mapping[str, Any], *, correlation_id: str | None, **more: Any) -> DagRun:
    """Start a run; see `DeclaredDag.start`. `more` are other fields of the `DagRun`."""
    refuse_in_loop("start()", "start_async()")
    given = checked(dag, parameters)
    ensure_queues(dag)
    prepare(dag)
    correlation_id = correlation_id or current_origin().correlation_id
    with (
        acting(correlation_id=correlation_id),
        edit_scope(default_reason="start", call="start()", instead="start_async()") as scope,
    ):
        run = DagRun(dag=dag.name, parameters=given, correlation_id=correlation_id, **more)
        letters, _ready = dag.plan.start()
        tx = transaction_of_scope()
        table().open(run.id, dag.name, tx, letters=letters, plan=dag.document(), parameters=given)
        scope.enqueue(run_work(run.id, str(run.id), dag, current_origin()))
    return run


def checked(dag: DeclaredDag, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Give the parameters as JSON data.

    Raises:
        Invalid: One is unknown, missing, or does not fit a job that takes it.
    """
    taken = {name for job in dag.jobs.values() for name in job.parameters if name not in dag.arguments[job.name]}
    unknown = sorted(parameters.keys() - taken)
    if unknown:
        message = f"DAG {dag.name!r} takes no parameter {unknown[0]!r}; it takes: {', '.join(sorted(taken)) or 'none'}."
        raise Invalid(message)
    for job in dag.jobs.values():
        missing = sorted(job.required - dag.parameters_of(job, parameters).keys() - dag.arguments[job.name].keys())
        if missing:
            message = (
                f"DAG {dag.name!r}: parameter {missing[0]!r} of job {job.name!r} has no value. Give it to start(), or "
                "call it like the job whose result it takes."
            )
            raise Invalid(message)
    given: dict[str, Any] = to_jsonable_python(referring(dict(parameters)))
    for job in dag.jobs.values():
        job.item_of(dag.parameters_of(job, given))
    return given
