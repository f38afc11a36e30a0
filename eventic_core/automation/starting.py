"""Starting a run: its records, its counters and the workflow that plans it, in one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventic_core.automation.declared import AUTOMATION_RUN, tolerated_count
from eventic_core.automation.executions import BatchExecution
from eventic_core.automation.run import Run
from eventic_core.errors import Invalid
from eventic_core.records.editing import current_scope, edit_scope
from eventic_core.records.port import Work
from eventic_core.records.stamp import acting, current_origin
from eventic_core.runtime.process import process
from eventic_core.runtime.queues import Queue
from eventic_core.store.counters import CounterTable
from eventic_core.store.executions import RUNS_QUEUE
from eventic_core.store.handlers import call_payload

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from eventic_core.automation.declared import DeclaredAutomation
    from eventic_core.automation.definitions import Batch
    from eventic_core.store.transaction import PostgresTransaction


def start(
    automation: DeclaredAutomation[Any, Any],
    batches: Sequence[Batch],
    *,
    correlation_id: str | None,
    tolerated_failures: int | str | None,
) -> Run:
    """Start a run of a declared automation; see `DeclaredAutomation.start`."""
    stored = automation.stored()
    _check(automation.name, stored.id, batches)
    process().ensure_queue(Queue(RUNS_QUEUE).row(keyed=False))
    queue = Queue(automation.queue_name, concurrency=automation.groups_at_a_time)
    process().ensure_queue(queue.row(keyed=False))
    table = CounterTable(process().store.database)
    who = acting(correlation_id=correlation_id) if correlation_id else acting()
    with who, edit_scope(default_reason="start", call="start()", instead="start_async()") as scope:
        run = Run(automation_id=stored.id, correlation_id=correlation_id, tolerated_failures=tolerated_failures)
        parts = {BatchExecution(run_id=run.id, batch_id=batch.id).id: batch for batch in batches}
        tx = transaction_of_scope()
        counts = table.count_items([batch.id for batch in batches], tx)
        totals = {part: counts.get(batch.id, 0) for part, batch in parts.items()}
        if not sum(totals.values()):
            message = f"{automation.name}: there is no item in {', '.join(batch.name for batch in batches)}."
            raise Invalid(message)
        total = sum(totals.values())
        table.open(
            run.id,
            str(run.id),
            totals,
            tx,
            tolerated=tolerated_count(tolerated_failures, total),
            by_class={
                name: tolerated_count(tolerated, total) or 0
                for name, tolerated in automation.tolerated_by_class.items()
            },
        )
        scope.enqueue(run_work(run.id, str(run.id), automation.name))
    return run


def transaction_of_scope() -> PostgresTransaction:
    """Give the open scope's transaction, with what is pending written; undone with the level that is open."""
    scope = current_scope()
    assert scope is not None
    tx: Any = scope.direct_transaction()
    return tx  # type: ignore[no-any-return]


def run_work(run_id: UUID, workflow_id: str, automation: str) -> Work:
    """Make the work that plans a run, waits for its items and ends it."""
    origin = current_origin()
    values = {
        "run": str(run_id),
        "automation": automation,
        "actor": origin.actor,
        "correlation_id": origin.correlation_id,
    }
    return Work(workflow_id, AUTOMATION_RUN, RUNS_QUEUE, call_payload(values))


def _check(name: str, automation_id: UUID, batches: Sequence[Batch]) -> None:
    if not batches:
        message = f"{name}: a run needs a batch: start(batch)."
        raise Invalid(message)
    for batch in batches:
        if batch.automation_id != automation_id:
            message = f"{name}: batch {batch.name!r} ({batch.id}) belongs to automation {batch.automation_id}."
            raise Invalid(message)
    if len({batch.id for batch in batches}) != len(batches):
        message = f"{name}: a batch is named twice; each takes part in a run once."
        raise Invalid(message)
