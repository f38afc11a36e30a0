"""The workflow of a DAG's run: it starts the roots, waits until the last job has ended, and ends the run.

Jobs are not led by it: the transaction that stores a job's result enqueues what may run next. So it holds no thread
while it waits, and its row sleeps until the transaction that leaves nothing to do wakes it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from uuid import UUID

from eventic_core.automation.starting import transaction_of_scope
from eventic_core.automation.status import ExecutionStatus
from eventic_core.errors import InvalidStateError, VersionConflict
from eventic_core.graph import NodeState, run_state
from eventic_core.jobs.dag_run import DagRun
from eventic_core.jobs.definition import definition_of
from eventic_core.jobs.plan import STATES
from eventic_core.jobs.running import groups_of, plan_of
from eventic_core.records.editing import current_scope
from eventic_core.records.port import OwnershipLost
from eventic_core.records.stamp import Origin, acting
from eventic_core.runtime import tracing
from eventic_core.runtime.finishing import Finish, run_in_transaction
from eventic_core.store.dag_runs import DagRunTable
from eventic_core.store.executions import ExecutionTable
from eventic_core.store.waits import WaitTable
from eventic_core.store.work import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventic_core.runtime.performing import Assignment
    from eventic_core.store.transaction import PostgresTransaction

_log = logging.getLogger("eventic")
_DISTURBANCES = 10
S = ExecutionStatus


class DagWorkflow:
    """One claim of the workflow of a run's attempt."""

    def __init__(self, assignment: Assignment) -> None:
        values = assignment.values
        self._assignment = assignment
        self._store = assignment.store
        self._table = DagRunTable(assignment.store)
        self._run_id = UUID(values["run"])
        self._dag = definition_of(self._run_id, values["dag"])
        self._origin = Origin(
            actor=values["actor"], correlation_id=values["correlation_id"], workflow_id=assignment.run_id
        )

    def run(self) -> None:
        """Go through the stages until there is something to wait for, or the run has ended.

        Raises:
            OwnershipLost: Somebody else took it over.
            VersionConflict, InvalidStateError: Others keep writing its record while it is about to.
        """
        for left in reversed(range(_DISTURBANCES)):
            try:
                with tracing.span(
                    "dag", self._dag.name, run__id=self._run_id, correlation_id=self._origin.correlation_id
                ):
                    self._advance()
            except (VersionConflict, InvalidStateError):  # somebody cancelled it, say: look again
                if not left:
                    raise
            else:
                return

    def _advance(self) -> None:
        row = self._table.read(self._run_id)
        if row is None or row.state == "ended":
            self._assignment.finish("null")
            return
        with self._acting():
            begins = DagRun.hydrate(self._run_id).status in (S.PENDING, S.RETRYING)
        if begins:
            self._in_transaction(self._begin, None)
        if not self._table.park(self._run_id, self._assignment.run_id, self._assignment.owner):
            self._in_transaction(self._end, "null")

    def _begin(self) -> None:
        held = self._table.hold(self._run_id, transaction_of_scope())  # before its record, as whoever steers it
        DagRun.hydrate(self._run_id).start()
        ready = [place for place, letter in enumerate(held.letters) if STATES[letter] is NodeState.READY]
        scope = current_scope()
        assert scope is not None
        for work in groups_of(self._dag, plan_of(self._run_id), self._run_id, ready, self._origin):
            scope.enqueue(work)

    def _end(self) -> None:
        tx = transaction_of_scope()
        held = self._table.hold(self._run_id, tx)
        if held.state != "done":
            return  # cancelled meanwhile
        self._table.note(self._run_id, held, "ended", tx)
        plan = plan_of(self._run_id)
        states = {name: STATES[letter] for name, letter in zip(plan.names, held.letters, strict=True)}
        run = DagRun.hydrate(self._run_id)
        if run_state(plan.dag, states) is NodeState.COMPLETED:
            run.complete()
        else:
            failed = [name for name, state in states.items() if state is NodeState.FAILED]
            run.fail(_summary(failed, len(states)))
        WaitTable(self._store).ended(self._run_id, tx)
        _log.info("run %s has ended", self._run_id, extra={"action": "run_ended", "run": str(self._run_id)})

    def _acting(self) -> Any:
        return acting(actor=self._origin.actor, correlation_id=self._origin.correlation_id)

    def _in_transaction(self, body: Callable[[], None], result: str | None) -> None:
        with self._acting():
            run_in_transaction(self._store, body, _Held(self, result), run_id=self._assignment.run_id, step_id=None)

    def finish(self, result: str | None, tx: PostgresTransaction | None) -> None:
        """End a transaction of the run: it must still be this worker's, and is done if there is a result."""
        assignment = self._assignment
        with self._store.transaction(tx) as own:
            if result is None:
                ExecutionTable(self._store).owned(assignment.run_id, assignment.owner, own)
            elif not self._store.work.complete(
                Outcome(assignment.run_id, assignment.owner, "SUCCESS", result, None), own
            ):
                raise OwnershipLost(assignment.run_id)


class _Held(Finish):
    def __init__(self, workflow: DagWorkflow, result: str | None) -> None:
        super().__init__()
        self._workflow = workflow
        self._outcome = result

    def write(self, tx: PostgresTransaction | None) -> None:
        self._workflow.finish(self._outcome, tx)


def _summary(failed: list[str], total: int) -> str:
    """Say in a line why a run failed."""
    names = ", ".join(failed[:5]) + (", ..." if len(failed) > 5 else "")  # noqa: PLR2004 - a line's worth
    return f"{len(failed)} of {total} jobs failed: {names}."
