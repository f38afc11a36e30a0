"""What people do to a run while it goes on and after: cancel, pause, resume, tolerate more, redrive what failed.

Called by the methods of `Run`, in the scope of the call: the run's version, its items' and its counters commit
together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventic_core.automation.declared import find, tolerated_count
from eventic_core.automation.entity import now
from eventic_core.automation.executions import BatchExecution
from eventic_core.automation.starting import run_work, transaction_of_scope
from eventic_core.automation.status import ExecutionStatus
from eventic_core.errors import Invalid, InvalidStateError
from eventic_core.records.editing import current_scope
from eventic_core.records.stamp import Origin, current_origin
from eventic_core.runtime.process import process
from eventic_core.store.executions import ExecutionTable, Move, Part
from eventic_core.store.waits import WaitTable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from eventic_core.automation.run import Run
    from eventic_core.store.transaction import PostgresTransaction

S = ExecutionStatus
_UNFINISHED = (S.PENDING, S.PROCESSING, S.RETRYING)
_FILTERS = ("error_type", "message", "numbers")


def workflow_id(run_id: UUID, attempt: int) -> str:
    """Give the id of the workflow that is an attempt of a run: the first one's is the run's own."""
    return str(run_id) if attempt == 1 else f"{run_id}:{attempt}"


def _table() -> ExecutionTable:
    return ExecutionTable(process().store)


def _parts(run: Run) -> list[BatchExecution]:
    return BatchExecution.where(BatchExecution.fields.run_id == run.id).all()


def cancel(run: Run, reason: str) -> None:
    """End what a run has not finished: its batches' parts, its items, its groups."""
    table, tx = _table(), transaction_of_scope()
    attempt, parts = workflow_id(run.id, run.attempt), _parts(run)
    origin = current_origin()._replace(workflow_id=attempt)
    # The items first, the counters last: as a worker does that stores what it has done meanwhile.
    pend(table, run.id, {part.id: part.batch_id for part in parts}, tx, origin=origin, unplanned=True)
    table.lock_items(run.id, tx)
    patch = {"status": S.CANCELLED, "error_message": reason, "finished_at": now(), "due_at": None}
    move = Move(_UNFINISHED, patch, "cancel", "cancel")
    table.move_items(run.id, move, tx, workflow_id=attempt, origin=origin)
    table.counters.set_state(run.id, "ended", before=("running", "paused", "stopped"), tx=tx)
    for part in parts:
        if part.status in _UNFINISHED:
            part.cancel()
    if table.counters.read(run.id, tx):
        table.groups.drop(attempt, tx)
    WaitTable(process().store).ended(run.id, tx)


def pend(
    table: ExecutionTable,
    run_id: UUID,
    batches: Mapping[UUID, UUID],
    tx: PostgresTransaction,
    *,
    origin: Origin,
    max_attempts: int | None = None,
    unplanned: bool = False,
) -> None:
    """Make pending executions for a run's items that have not begun, since it ends without them.

    Args:
        table: Where.
        run_id: The run.
        batches: The batch of each of its parts.
        tx: The transaction that ends it.
        origin: Who ends it, and the workflow of its attempt.
        max_attempts: Of each item.
        unplanned: Whether those that are in no group yet are to have one too.
    """
    counters = table.counters.read(run_id, tx)
    if not counters or not counters[0].pending:
        return
    before = 0
    for counted in counters[1:]:
        part = Part(run_id, counted.batch_execution_id, batches[counted.batch_execution_id], before)
        total = max(counted.planned, counted.total) if unplanned else counted.planned
        to = None if unplanned else counted.planned_to
        table.pend_items(part, tx, to=to, total=total, max_attempts=max_attempts, origin=origin)
        before += total


def pause(run: Run) -> None:
    """Begin no more items of a run; those that are being done are finished."""
    if not _table().counters.set_state(run.id, "paused", before=("running",), tx=transaction_of_scope()):
        raise InvalidStateError("Run", run.id, _word(run), "pause")


def resume(run: Run) -> None:
    """Go on with a run that was paused."""
    table, tx = _table(), transaction_of_scope()
    if not table.counters.set_state(run.id, "running", before=("paused",), tx=tx):
        raise InvalidStateError("Run", run.id, _word(run), "resume")
    table.groups.release(workflow_id(run.id, run.attempt), tx)


def _word(run: Run) -> str:
    counters = _table().counters.read(run.id)
    return f"{run.status} ({counters[0].state})" if counters else f"{run.status} (nothing executes it)"


def tolerate(run: Run, tolerated_failures: int | str | None, by_class: Mapping[str, int | str] | None) -> None:
    """Change how many items may fail; more than that having failed already stops the run."""
    table, tx = _table(), transaction_of_scope()
    counters = table.counters.read(run.id, tx)
    if not counters:
        raise InvalidStateError("Run", run.id, _word(run), "a change of what is tolerated")
    whole = counters[0]
    count = tolerated_count(tolerated_failures, whole.total)
    table.counters.tolerate(run.id, {k: tolerated_count(v, whole.total) or 0 for k, v in (by_class or {}).items()}, tx)
    over = (count is not None and whole.failed > count) or table.counters.is_over(run.id, tx)
    state = "stopped" if over and whole.state != "ended" else whole.state
    table.counters.set_state(run.id, state, before=(whole.state,), tx=tx, tolerated=(count,))


def redrive(run: Run, filters: dict[str, Any]) -> int:
    """Begin a new attempt of a run with its failed items, or some of them, and those that were not begun.

    Gives the number of failed items that are done again.

    Raises:
        Invalid: A filter is not known, or nothing is to be done.
        InvalidStateError: The run has not ended.
    """
    unknown = sorted(filters.keys() - set(_FILTERS))
    if unknown:
        message = f"redrive() knows no filter {', '.join(unknown)}; it knows {', '.join(_FILTERS)}."
        raise Invalid(message)
    table, tx = _table(), transaction_of_scope()
    counters = table.counters.read(run.id, tx)
    if not counters:
        raise InvalidStateError("Run", run.id, _word(run), "redrive")
    automation = find(_automation_name(run))
    again = workflow_id(run.id, run.attempt)
    if not table.counters.set_state(run.id, "running", before=("ended",), tx=tx, workflow_id=again):
        raise InvalidStateError("Run", run.id, _word(run), "redrive")
    patch = {"status": S.RETRYING, "finished_at": None, "due_at": None}
    move = Move((S.FAILED,), patch, "redrive", "redrive", again=automation.max_attempts, **filters)
    moved = table.move_items(run.id, move, tx, workflow_id=again, origin=current_origin())
    whole = table.counters.read(run.id, tx)[0]
    if not whole.unfinished:
        message = f"Run {run.id}: no failed item fits, so there is nothing to redrive."
        raise Invalid(message)
    if (whole.tolerated is not None and whole.failed > whole.tolerated) or table.counters.is_over(run.id, tx):
        message = (
            f"Run {run.id}: {whole.failed:,} failed items would be left, which is more than is tolerated, so it would "
            "stop at once. Redrive them too, or call tolerate() first."
        )
        raise Invalid(message)
    for part in _parts(run):
        if part.status in (S.FAILED, S.COMPLETED):
            part.redrive()
    scope = current_scope()
    assert scope is not None
    scope.enqueue(run_work(run.id, again, automation.name))
    return moved


def _automation_name(run: Run) -> str:
    from eventic_core.automation.definitions import Automation

    return Automation.hydrate(run.automation_id).name


def close_retrying(table: ExecutionTable, run_id: UUID, tx: PostgresTransaction, *, origin: Origin) -> None:
    """Fail the items of a run that was stopped while they waited to be tried again."""
    move = Move((S.RETRYING, S.PROCESSING), {"status": S.FAILED, "finished_at": now(), "due_at": None}, "stopped")
    table.move_items(run_id, move, tx, workflow_id=origin.workflow_id or "", origin=origin)
