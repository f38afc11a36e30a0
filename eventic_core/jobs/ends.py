"""How the jobs of a group ended, stored together with what follows from it.

The transaction that stores it holds the run's row, so that two workers never decide on the same jobs at once: it stores
the run's letters, the jobs that are skipped, and the groups of those that are ready now.
"""

from __future__ import annotations

import logging
import random
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from eventic_core.automation.item import Outcome
from eventic_core.automation.status import ExecutionStatus
from eventic_core.automation.steering import Steering
from eventic_core.errors import Conflict, Invalid, NotSerialisable
from eventic_core.graph import NodeState
from eventic_core.jobs.plan import LETTERS, UNFINISHED
from eventic_core.jobs.running import group_of, groups_of
from eventic_core.jobs.versions import job_run_id_of, skips
from eventic_core.records.port import AlreadyDone, Checkpoint, StaleWrite
from eventic_core.runtime.finishing import Interrupted, interruptions
from eventic_core.runtime.journal import now_ms, patiently
from eventic_core.store.dag_runs import DagRunTable
from eventic_core.store.waits import WaitTable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from eventic_core.jobs.declared_dag import DeclaredDag
    from eventic_core.jobs.declared_job import DeclaredJob
    from eventic_core.jobs.plan import Plan
    from eventic_core.jobs.versions import JobRunVersions
    from eventic_core.records.port import Append, Work
    from eventic_core.records.stamp import Origin
    from eventic_core.runtime.performing import Assignment
    from eventic_core.store.dag_runs import Held
    from eventic_core.store.transaction import PostgresTransaction

_log = logging.getLogger("eventic")
_SLICE_SECONDS = 0.25
READY, _RUNNING = LETTERS[NodeState.READY], LETTERS[NodeState.RUNNING]
BEGUN = READY + _RUNNING
"""The letters of jobs that may be done, and of those that wait for a run they started."""
_S = ExecutionStatus
_ENDS = {
    _S.COMPLETED: NodeState.COMPLETED,
    _S.FAILED: NodeState.FAILED,
    _S.CANCELLED: NodeState.CANCELLED,
    _S.SKIPPED: NodeState.SKIPPED,
}


class Over(Exception):
    """The run, or this attempt of it, has ended meanwhile: what its jobs came to is not wanted any more."""


class Gone(Exception):
    """Others have ended these jobs meanwhile, or somebody marked them: what they came to is not wanted any more."""


class Done:
    """A job, and what came of the attempts at it that are not stored yet."""

    def __init__(self, versions: JobRunVersions, job: DeclaredJob[Any, Any]) -> None:
        self.versions = versions
        self.job = job
        self.outcome = Outcome()

    @property
    def state(self) -> NodeState | None:
        """How it ended; `None` if it is to be tried again, is being tried, or waits for a run it started."""
        return _ENDS.get(ExecutionStatus(self.versions.status))


class Refused(NamedTuple):
    """A job whose end could not be stored, and why."""

    done: Done
    error: Exception


class Ends:
    """The ends of one claim of a group that are not stored yet."""

    def __init__(self, assignment: Assignment, run_id: UUID, dag: DeclaredDag, plan: Plan, origin: Origin) -> None:
        self._assignment = assignment
        self._store = assignment.store
        self._table = DagRunTable(assignment.store)
        self._waits = WaitTable(assignment.store)
        self._run_id = run_id
        self._dag = dag
        self._plan = plan
        self._origin = origin
        self._collected: list[Done] = []
        self._began, self._began_ms = time.monotonic(), now_ms()
        _created, last = patiently(lambda: self._store.work.last_step(assignment.run_id))
        self._next_step = last + 1
        self.is_paused = False
        """Whether the run was paused when something was stored last."""

    @property
    def are_due(self) -> bool:
        """Whether what is collected has waited long enough."""
        return bool(self._collected) and time.monotonic() - self._began >= _SLICE_SECONDS

    def collect(self, done: Done) -> None:
        """Keep an end, to be stored with others."""
        self._collected.append(done)

    def flush(self) -> list[Refused]:
        """Store what is collected, all at once or else each job by itself; gives those that are refused.

        Raises:
            Over: The run has ended.
            Gone: None of the jobs is to be done any more.
        """
        collected, self._collected = self._collected, []
        self._began = time.monotonic()
        if not collected or (error := self._store_all(collected)) is None:
            return []
        if len(collected) == 1:
            return [Refused(collected[0], error)]
        refused: list[Refused] = []
        for done in collected:
            with suppress(Gone):
                if (error := self._store_all([done])) is not None:
                    refused.append(Refused(done, error))
        return refused

    def store_alone(self, done: Done) -> None:
        """Store how far a job is, now.

        Raises:
            Over: The run has ended.
            Gone: The job is not to be done any more.
        """
        error = self._store_all([done])
        if error is not None:
            raise Over from error

    def stored(self, collected: Sequence[Done]) -> None:
        """Note that ends are stored."""
        self._next_step += 1
        for done in collected:
            done.versions.stored()
            done.outcome = Outcome()

    def _store_all(self, collected: Sequence[Done]) -> Exception | None:
        """Store some ends in one transaction; gives the reason if none of them is stored."""
        try:
            self._commit(collected)
        except AlreadyDone:
            pass  # a transaction whose commit's reply was lost: it is stored
        except Gone:
            self._next_step += 1  # for that may have been such a commit, which took effect after it was asked for
            raise
        except (StaleWrite, Conflict, Invalid) as error:
            return error
        except ValueError as error:
            return NotSerialisable(f"What came of it cannot be stored: {error}")
        self.stored(collected)
        return None

    def _commit(self, collected: Sequence[Done]) -> None:
        """Write in a transaction; again for as long as Postgres is away, or ends it for reasons of its own."""
        while True:
            try:
                with interruptions(), self._store.transaction() as tx:
                    self.write(collected, tx)
            except Interrupted as error:
                _log.warning("the ends of jobs wait for Postgres: %s", error, extra={"action": "wait"})
                time.sleep(random.uniform(0.1, 1.0))  # noqa: S311 - jitter
            else:
                return

    def write(self, collected: Sequence[Done], tx: PostgresTransaction) -> None:
        """Write how jobs ended, and what follows from it.

        Raises:
            Over: The run has ended.
            Gone: None of the jobs is to be done any more.
        """
        held = self._table.hold(self._run_id, tx)
        if held.state not in ("running", "paused") or held.workflow_id != self._origin.workflow_id:
            raise Over
        self.is_paused = held.state == "paused"
        collected = [done for done in collected if held.letters[done.versions.place] in BEGUN]
        if not collected:
            raise Gone
        appends: list[Append] = []
        work: list[Work] = []
        for done in collected:
            appends += done.outcome.appends + done.versions.versions
            work += done.outcome.work
            work += self._goes_on(done, held, tx)
        moves, following = self._what_follows(collected, held, tx)
        checkpoint = self._checkpoint([done.job.name for done in collected])
        self._store.append([*appends, *moves], tx, work=[*work, *following], checkpoint=checkpoint, told=False)
        is_over = frozenset(UNFINISHED).isdisjoint(held.letters)
        self._table.note(self._run_id, held, "done" if is_over else held.state, tx)

    def _checkpoint(self, names: Sequence[str]) -> Checkpoint:
        name = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        run, owner = self._assignment.run_id, self._assignment.owner
        return Checkpoint(run, owner, self._next_step, name, "null", self._began_ms)

    def _goes_on(self, done: Done, held: Held, tx: PostgresTransaction) -> list[Work]:
        """Make the group that tries a job again when it is time, or ends it once the run has ended that it started."""
        place, child, due = done.versions.place, done.versions.child_run_id, done.versions.following
        held.letters[place] = READY if child is None else _RUNNING
        again = str(done.versions.version)  # a snooze is no attempt
        if child is not None:
            group = group_of(self._dag, self._run_id, [place], self._origin, again=again, ends=True)
            self._waits.add(group.id, [child], tx)
            return [group]
        if due is None or not due.late or done.state is not None:
            return []
        delay = max(due.due - time.monotonic(), 0.001)
        return [group_of(self._dag, self._run_id, [place], self._origin, again=again, delay_seconds=delay)]

    def _what_follows(
        self, collected: Sequence[Done], held: Held, tx: PostgresTransaction
    ) -> tuple[list[Append], list[Work]]:
        """Note the ends in the run's letters; gives the versions of jobs that are skipped, and groups of ready ones."""
        ended = {done.versions.place: state for done in collected if (state := done.state) is not None}
        for done in collected:
            if done.state is NodeState.COMPLETED:
                for place in self.refused(done, done.versions.document.get("result_payload")):
                    held.refused.setdefault(place, []).append(done.versions.place)
        found = self._plan.after(held.letters, ended, held.refused)
        skipped = [job_run_id_of(self._run_id, self._plan.names[one.place]) for one in found.skipped]
        heads = self._table.heads(skipped, tx)  # also of a first attempt: a mark may have had them wait again
        moves = skips(self._dag, self._plan, self._run_id, found.skipped, heads=heads, origin=self._origin)
        busy = held.letters.count(READY) - len(found.ready)
        return moves, groups_of(self._dag, self._plan, self._run_id, found.ready, self._origin, busy=busy)

    def refused(self, done: Done, result: Any) -> list[int]:
        """List the places that a branch did not choose; none for another job, or one that chose to end otherwise.

        Raises:
            InvalidBranch: The result is no choice.
        """
        if not done.job.is_branch or isinstance(result, Steering):
            return []
        return self._plan.refused_by(done.versions.place, result)
