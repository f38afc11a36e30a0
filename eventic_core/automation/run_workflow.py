"""The workflow of a run's attempt: it plans groups, waits for the last item, and ends the run.

It holds no thread while it waits: its row in the queue's table sleeps, and the transaction that leaves nothing to do
wakes it. So it goes through its stages each time it is claimed, and each knows from the tables whether it is done.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from uuid import UUID

from eventic_core.automation.control import close_retrying, pend
from eventic_core.automation.declared import ITEMS, find
from eventic_core.automation.executions import BatchExecution
from eventic_core.automation.run import Run
from eventic_core.automation.sequences import packed
from eventic_core.automation.starting import transaction_of_scope
from eventic_core.automation.status import ExecutionStatus
from eventic_core.errors import InvalidStateError, VersionConflict
from eventic_core.records.port import OwnershipLost, Work
from eventic_core.records.stamp import Origin, acting
from eventic_core.runtime import tracing
from eventic_core.runtime.finishing import Finish, run_in_transaction
from eventic_core.store.counters import WHOLE_RUN
from eventic_core.store.executions import ExecutionTable
from eventic_core.store.handlers import call_payload
from eventic_core.store.waits import WaitTable
from eventic_core.store.work import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eventic_core.runtime.performing import Assignment
    from eventic_core.store.counters import Counters
    from eventic_core.store.transaction import PostgresTransaction

_log = logging.getLogger("eventic")
_PLANNED_AT_ONCE = 5_000
_DISTURBANCES = 10
_GROUPS_WANTED = 64
"""So many that several workers have some each, where a batch is small and its items may be slow."""
S = ExecutionStatus


class RunWorkflow:
    """One claim of the workflow of a run's attempt."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._store = assignment.store
        self._table = ExecutionTable(assignment.store)
        self._run_id = UUID(assignment.values["run"])
        self._automation = find(assignment.values["automation"])
        self._origin = Origin(
            actor=assignment.values["actor"],
            correlation_id=assignment.values["correlation_id"],
            workflow_id=assignment.run_id,
        )

    def run(self) -> None:
        """Go through the stages until there is something to wait for, or the run has ended.

        Raises:
            OwnershipLost: Somebody else took it over.
            VersionConflict, InvalidStateError: Others keep writing its records while it is about to.
        """
        disturbed = 0
        while True:
            try:
                if self._advance_traced():
                    return
            except (VersionConflict, InvalidStateError):  # somebody cancelled it, say: look again
                disturbed += 1
                if disturbed == _DISTURBANCES:
                    raise

    def _advance_traced(self) -> bool:
        correlation_id = self._origin.correlation_id
        with tracing.span("run", self._automation.name, run__id=self._run_id, correlation_id=correlation_id):
            return self._advance()

    def _advance(self) -> bool:
        """Do the next stage; tells whether it was the last one for now."""
        counters = self._table.counters.read(self._run_id)
        if not counters or counters[0].state == "ended":
            self._assignment.finish("null")
            return True
        if self._begin() or self._plan(counters):
            return False
        if counters[0].state == "stopped":
            with self._store.transaction() as tx:
                self._table.owned(self._assignment.run_id, self._assignment.owner, tx)
                self._table.groups.drop(self._assignment.run_id, tx)
        if not self._table.park_run(self._run_id, self._assignment.run_id, self._assignment.owner):
            self._end()
        return True

    # -- beginning

    def _begin(self) -> bool:
        """Move the run and its batches' parts to PROCESSING; tells whether there was something to do."""
        with self._acting():
            if Run.hydrate(self._run_id).status not in (S.PENDING, S.RETRYING):
                return False
        self._in_transaction(self._start_records, _Held(self, None))
        return True

    def _start_records(self) -> None:
        run = Run.hydrate(self._run_id)
        for part in self._parts():
            if part.status in (S.PENDING, S.RETRYING):
                part.start()
        run.start()

    def _parts(self) -> list[BatchExecution]:
        return BatchExecution.where(BatchExecution.fields.run_id == self._run_id).all()

    # -- planning

    def _plan(self, counters: Sequence[Counters]) -> bool:
        """Put some more items into groups; tells whether there were any."""
        run, *parts = counters
        if run.state not in ("running", "paused"):
            return False
        if self._assignment.run_id != str(self._run_id) and self._plan_again(run):
            return True
        return any(part.planned < part.total and self._plan_part(run, part, parts) for part in parts)

    def _plan_part(self, run: Counters, part: Counters, parts: Sequence[Counters]) -> bool:
        batch_id = self._batch_of(part)
        count = min(_PLANNED_AT_ONCE, part.total - part.planned)
        sequence = self._table.plan_items(batch_id, after=part.planned_to, count=count)
        before = sum(other.planned for other in parts)
        planned = part.planned + len(sequence)
        with self._store.transaction() as tx:
            self._table.owned(self._assignment.run_id, self._assignment.owner, tx)
            if not sequence:  # items were deleted since they were counted
                self._table.counters.lower_total(self._run_id, part.batch_execution_id, part.total - planned, tx)
            else:
                self._table.note_planned(
                    self._run_id, part.batch_execution_id, before=part.planned, planned=planned, to=sequence[-1], tx=tx
                )
                values = {"batch_execution": str(part.batch_execution_id), "batch": str(batch_id)}
                groups = [
                    self._group(
                        before + chunk.start + 1,
                        before + chunk.stop,
                        **values,
                        sequence=packed(sequence[chunk.start : chunk.stop]),
                    )
                    for chunk in self._chunks(len(sequence), run.total)
                ]
                self._store.enqueue(groups, tx)
        return True

    def _batch_of(self, part: Counters) -> UUID:
        with self._acting():
            return BatchExecution.hydrate(part.batch_execution_id).batch_id

    def _plan_again(self, run: Counters) -> bool:
        """Put items that are to be done again into groups; the run's `planned` is the last number looked at."""
        numbers = self._table.unfinished_numbers(self._run_id, after=run.planned, count=_PLANNED_AT_ONCE)
        if not numbers:
            return False
        with self._store.transaction() as tx:
            self._table.owned(self._assignment.run_id, self._assignment.owner, tx)
            self._table.note_planned(
                self._run_id, WHOLE_RUN, before=run.planned, planned=numbers[-1], to=run.planned_to, tx=tx
            )
            chunks = self._chunks(len(numbers), run.unfinished)
            groups = [self._group(numbers[chunk.start], numbers[chunk.stop - 1]) for chunk in chunks]
            self._store.enqueue(groups, tx)
        return True

    def _chunks(self, count: int, total: int) -> list[range]:
        """Divide so many items of that many in all into groups."""
        size = max(1, min(self._automation.group_size, -(-total // _GROUPS_WANTED)))
        return [range(first, min(first + size, count)) for first in range(0, count, size)]

    def _group(
        self,
        first: int,
        last: int,
        *,
        batch_execution: str | None = None,
        batch: str | None = None,
        sequence: list[tuple[int, int]] | None = None,
    ) -> Work:
        """Make a group of items: those with these numbers, or of a batch those at the places in `sequence`."""
        values = {
            "run": str(self._run_id),
            "workflow": self._assignment.run_id,
            "automation": self._automation.name,
            "first": first,
            "last": last,
            "only": None,
            "batch_execution": batch_execution,
            "batch": batch,
            "sequence": sequence,
            "actor": self._origin.actor,
            "correlation_id": self._origin.correlation_id,
        }
        group_id = f"{self._assignment.run_id}-g{first}"
        queue = self._automation.queue_name
        return Work(group_id, ITEMS, queue, call_payload(values), parent=self._assignment.run_id)

    # -- ending

    def _end(self) -> None:
        self._in_transaction(self._end_records, _Held(self, "null"))
        _log.info("run %s has ended", self._run_id, extra={"action": "run_ended", "run": str(self._run_id)})

    def _end_records(self) -> None:
        tx = transaction_of_scope()
        ended = self._table.counters.set_state(self._run_id, "ended", before=("running", "paused", "stopped"), tx=tx)
        if not ended:  # cancelled meanwhile
            return
        executions = self._parts()
        if self._table.counters.read(self._run_id, tx)[0].unfinished:  # it was stopped
            batches = {part.id: part.batch_id for part in executions}
            most = self._automation.max_attempts
            pend(self._table, self._run_id, batches, tx, origin=self._origin, max_attempts=most)
            close_retrying(self._table, self._run_id, tx, origin=self._origin)
        whole, *parts = self._table.counters.read(self._run_id, tx)
        failures = self._table.counters.failures(self._run_id, tx)
        tolerated = whole.tolerated
        is_good = not whole.unfinished and whole.failed <= (tolerated if tolerated is not None else 0)
        is_good = is_good and not self._table.counters.is_over(self._run_id, tx)
        by_part = {part.batch_execution_id: part for part in parts}
        for execution in executions:
            part = by_part[execution.id]
            if is_good or not (part.failed or part.unfinished):
                execution.complete()
            else:
                execution.fail()
        run = Run.hydrate(self._run_id)
        if is_good:
            run.complete()
        else:
            run.fail(summary(whole, failures))
        WaitTable(self._store).ended(self._run_id, tx)

    # -- how

    def _acting(self) -> Any:
        return acting(actor=self._origin.actor, correlation_id=self._origin.correlation_id)

    def _in_transaction(self, body: Callable[[], None], finish: Finish) -> None:
        with self._acting():
            run_in_transaction(self._store, body, finish, run_id=self._assignment.run_id, step_id=None)

    def finish(self, result: str | None, tx: PostgresTransaction | None) -> None:
        """End a transaction of the run: it must still be this worker's, and is done if there is a result."""
        assignment = self._assignment
        with self._store.transaction(tx) as own:
            if result is None:
                self._table.owned(assignment.run_id, assignment.owner, own)
            elif not self._store.work.complete(
                Outcome(assignment.run_id, assignment.owner, "SUCCESS", result, None), own
            ):
                raise OwnershipLost(assignment.run_id)


class _Held(Finish):
    def __init__(self, workflow: RunWorkflow, outcome: str | None) -> None:
        super().__init__()
        self._workflow = workflow
        self._outcome = outcome

    def write(self, tx: PostgresTransaction | None) -> None:
        self._workflow.finish(self._outcome, tx)


def summary(counters: Counters, failures: dict[str, int]) -> str:
    """Say in a line why a run failed."""
    kinds = ", ".join(f"{count:,} {name}" for name, count in list(failures.items())[:5])
    bound = "" if counters.tolerated is None else f", {counters.tolerated:,} are tolerated"
    left = f"; {counters.unfinished:,} were not begun" if counters.unfinished else ""
    return f"{counters.failed:,} of {counters.total:,} items failed{bound}{': ' if kinds else ''}{kinds}{left}."
