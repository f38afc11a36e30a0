"""A group of ready jobs, done by one worker one after the other.

How they ended is stored by `ends`, with what follows from it. So after a crash the jobs of the open transaction are
done again, and no others.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic_core import from_json

from eventic_core.automation.item import Attempts, Outcome
from eventic_core.automation.status import ExecutionStatus
from eventic_core.errors import (
    Invalid,
    InvalidStateError,
    NotSerialisable,
    StoreUnavailable,
    VersionConflict,
)
from eventic_core.jobs.awaited import outcome_of
from eventic_core.jobs.context import JobContext
from eventic_core.jobs.definition import definition_of
from eventic_core.jobs.ends import BEGUN, READY, Done, Ends, Gone, Over
from eventic_core.jobs.mapping import MapStart, result_in
from eventic_core.jobs.running import group_of, plan_of
from eventic_core.jobs.versions import JobRunVersions, job_run_id_of
from eventic_core.records.port import OwnershipLost, StaleWrite
from eventic_core.records.stamp import Origin
from eventic_core.runtime import counts, tracing
from eventic_core.store.dag_runs import DagRunTable
from eventic_core.store.waits import WaitTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventic_core.jobs.declared_job import DeclaredJob
    from eventic_core.runtime.performing import Assignment
    from eventic_core.store.dag_runs import JobHead
    from eventic_core.store.transaction import PostgresTransaction

_log = logging.getLogger("eventic")
_ALONE_SECONDS = 0.25
"""After this long a group gives away what it has not begun."""
_CONFLICTS = 20


S = ExecutionStatus


class JobGroup:
    """One claim of a group."""

    def __init__(self, assignment: Assignment) -> None:
        values = assignment.values
        self._assignment = assignment
        self._store = assignment.store
        self._table = DagRunTable(assignment.store)
        self._waits = WaitTable(assignment.store)
        self._run_id = UUID(values["run"])
        self._places: list[int] = values["jobs"]
        self._dag = definition_of(self._run_id, values["dag"])
        self._plan = plan_of(self._run_id)
        self._origin = Origin(
            actor=values["actor"], correlation_id=values["correlation_id"], workflow_id=values["workflow"]
        )
        self._ends = Ends(assignment, self._run_id, self._dag, self._plan, self._origin)
        self._is_careful = len(self._places) == 1 or assignment.deaths > 0
        self._wanted = BEGUN if values.get("ends") else READY
        self._heads: dict[UUID, JobHead] = {}
        self._left: deque[int] = deque()
        self._parameters: dict[str, Any] = {}

    def run(self) -> None:
        """Do the jobs that are still to be done; the group is complete, or has been given back, when this returns.

        Raises:
            OwnershipLost: Somebody else took it over.
        """
        row = self._table.read(self._run_id)
        if row is None or row.state not in ("running", "paused") or row.workflow_id != self._origin.workflow_id:
            self._complete()
            return
        if row.state == "paused" and self._park():
            return
        self._parameters = row.parameters
        left = [place for place in self._places if row.letters[place] in self._wanted]
        self._heads = self._table.heads(list({*map(self._id, left), *self._sources(left)}))
        if self._waits_for_child(left):
            return
        self._left.extend(left)
        watch = threading.Timer(_ALONE_SECONDS, self._give_away) if len(left) > 1 else None
        if watch is not None:
            watch.daemon = True
            watch.start()
        try:
            is_done = self._do_all()
        finally:
            if watch is not None:
                watch.cancel()
                watch.join()  # it may be giving away right now; what it could not is still this group's
        if is_done and self._do_all():
            self._complete()

    def _do_all(self) -> bool:
        """Do the jobs; false if the group is given back before the last: the worker stops, or the run is paused."""
        try:
            while self._left:
                with contextlib.suppress(Gone):
                    if self._ends.is_paused and self._park():
                        return False
                    if self._assignment.is_stopping():
                        self._flush()
                        self._store.work.put_back([(self._assignment.run_id, self._assignment.owner)])
                        return False
                    if self._ends.are_due:
                        self._flush()
                    try:
                        place = self._left.popleft()
                    except IndexError:  # given away meanwhile
                        break
                    self._do(place)
            with contextlib.suppress(Gone):
                self._flush()
        except Over:
            self._left.clear()
            _log.info("run %s has ended without %s", self._run_id, self._assignment.run_id, extra={"action": "dropped"})
        return True

    def _park(self) -> bool:
        """Let the group wait while its run is paused; false if it goes on already."""
        self._flush()
        self._ends.is_paused = False
        return self._table.park_group(self._run_id, self._assignment.run_id, self._assignment.owner)

    def _give_away(self) -> None:
        """Let other threads and workers do what has not begun: the jobs before it last.

        A crash may have them done by this group's next claim too; the results of one of them are stored.
        """
        rest: list[int] = []
        with contextlib.suppress(IndexError):
            while True:
                rest.append(self._left.popleft())
        if not rest:
            return
        work = [group_of(self._dag, self._run_id, [place], self._origin) for place in rest]
        try:
            self._store.enqueue(work)
        except Exception as error:  # noqa: BLE001 - whatever it is, this group still has them
            _log.warning("%s keeps its jobs: %s", self._assignment.run_id, error, extra={"action": "keep"})
            self._left.extend(rest)

    def _id(self, place: int) -> UUID:
        return job_run_id_of(self._run_id, self._plan.names[place])

    def _sources(self, places: Sequence[int]) -> list[UUID]:
        """List the job runs whose results these jobs take."""
        names = {source for place in places for source in self._dag.arguments[self._plan.names[place]].values()}
        return [job_run_id_of(self._run_id, name) for name in names]

    def _complete(self) -> None:
        with self._store.transaction() as tx:
            if not self._table.complete_group(self._assignment.run_id, self._assignment.owner, tx):
                raise OwnershipLost(self._assignment.run_id)

    # -- runs that jobs started

    def _waits_for_child(self, places: Sequence[int]) -> bool:
        """Give the group back if the run goes on that its job started and waits for; tells whether it did."""
        group_id = self._assignment.run_id
        while (child := self._child_of(places)) is not None and outcome_of(child, self._heads.get(child)) is None:
            if self._waits.park(group_id, self._assignment.owner, [child]):
                return True
            # It has just ended; or it had, and goes on again.
            with self._store.transaction() as tx:
                self._waits.add(group_id, [child], tx)
        if child is not None:
            self._waits.forget(group_id, child)  # it may have ended before it was added
        return False

    def _child_of(self, places: Sequence[int]) -> UUID | None:
        if self._wanted != BEGUN or not places:
            return None
        child = self._opened(places[0]).versions.child_run_id
        if child is not None:
            self._heads |= self._table.heads([child])
        return child

    def _came_of_child(self, done: Done) -> Outcome | None:
        """Tell what a job comes to from the run it started; `None` if it waits for none."""
        child = done.versions.child_run_id
        if child is None:
            return None
        outcome = outcome_of(child, self._heads.get(child))
        assert outcome is not None
        try:
            self._ends.refused(done, outcome.result)
        except Invalid as error:  # a branch, whose choice no run is
            outcome = Outcome(error=error)
        outcome.began_at = datetime.fromisoformat(done.versions.document["started_at"])
        return outcome

    # -- attempts

    def _do(self, place: int) -> None:
        """Try a job until it has ended, or is to be tried again later, or waits for a run it started."""
        done = self._opened(place)
        outcome = self._came_of_child(done)
        has_died = outcome is None and done.versions.status == S.PROCESSING
        if has_died and not done.versions.survived(is_chance=self._assignment.is_chance):
            self._ends.collect(done)
            return
        while True:
            if outcome is None:
                done.versions.begin()
                if self._is_careful:
                    self._flush()  # so that of the jobs that have begun only this one has not ended
                    self._ends.store_alone(done)
                outcome = self._attempt(done)
            if self._end(done, outcome):
                return
            outcome = None
            self._flush()
            due = done.versions.following
            assert due is not None
            time.sleep(max(0.0, due.due - time.monotonic()))
            done = self._opened(place, fresh=True)
            if done.state is not None:  # somebody has marked it
                return

    def _opened(self, place: int, *, fresh: bool = False) -> Done:
        name, job_run_id = self._plan.names[place], self._id(place)
        if fresh:
            self._heads |= self._table.heads([job_run_id])
        job = self._dag.jobs[name]
        head = self._heads.get(job_run_id)
        most, origin = job.max_attempts, self._origin
        return Done(JobRunVersions.at(self._run_id, place, name, head, max_attempts=most, origin=origin), job)

    def _attempt(self, done: Done) -> Outcome:
        """Make an attempt, as a span of the trace."""
        with tracing.span(
            "job",
            f"{self._dag.name}.{done.job.name}",
            run__id=self._run_id,
            record__id=done.versions.id,
            attempt=done.versions.attempts,
            correlation_id=self._origin.correlation_id,
        ):
            outcome = self._called(done)
            tracing.failed(outcome.error)
        counts.ATTEMPTS.add("job", "done" if outcome.error is None else "failed")
        return outcome

    def _called(self, done: Done) -> Outcome:
        """Call the function, again where records it wrote were written by others meanwhile."""
        versions, job = done.versions, done.job
        begun = versions.unsaved
        context = JobContext(
            dag=self._dag.name,
            job=job.name,
            run_id=self._run_id,
            number=versions.number,
            attempt=versions.attempts,
            correlation_id=self._origin.correlation_id,
            idempotency_key=str(versions.id),
        )

        def commit(outcome: Outcome, tx: PostgresTransaction) -> None:
            self._ends.refused(done, outcome.result)
            versions.end(outcome, job)
            done.outcome = Outcome()  # what it wrote is in the transaction already
            self._ends.write([done], tx)

        called = job if job.map is None else MapStart(job)
        attempts = Attempts(called, self._store, self._origin, self._assignment.invoke)
        conflict: Exception | None = None  # nothing but conflicts counts: while Postgres is away, it waits
        left = _CONFLICTS
        while left:
            versions.forget(but=begun)
            try:
                outcome = attempts.make(self._payload(job), context, commit)
                if not outcome.is_stored:
                    versions.forget(but=begun)  # an end that its own transaction could not store
                    if outcome.error is None:
                        self._ends.refused(done, outcome.result)
            except StaleWrite as error:
                conflict = error.__cause__ if isinstance(error.__cause__, Exception) else error
                left -= 1
                time.sleep(random.uniform(0, 0.005 * (_CONFLICTS - left)))  # noqa: S311 - so that two do not meet again
                counts.CONFLICTS.add("job")
            except StoreUnavailable as error:
                _log.warning("job %s waits for Postgres: %s", job.name, error, extra={"action": "wait"})
                if self._assignment.is_stopping():
                    raise
                time.sleep(1)
            except Invalid as error:  # a branch that chose what is no choice
                return Outcome(error=error)
            else:
                return outcome
        versions.forget(but=begun)
        return Outcome(error=conflict)

    def _payload(self, job: DeclaredJob[Any, Any]) -> dict[str, Any]:
        """Give a job's arguments as JSON data: results, and parameters of the run."""
        payload = self._dag.parameters_of(job, self._parameters)
        for parameter, source in self._dag.arguments[job.name].items():
            head = self._heads.get(job_run_id_of(self._run_id, source))
            document = {} if head is None else from_json(head.data)
            if document.get("status") == S.COMPLETED:
                payload[parameter] = result_in(
                    self._dag.jobs[source], document["result_payload"], document.get("child_run_id")
                )
            elif parameter in job.required:
                payload[parameter] = None
        return payload

    def _end(self, done: Done, outcome: Outcome) -> bool:
        """Collect an attempt; tells whether the job has ended, or goes on in another group."""
        versions = done.versions
        if outcome.is_stored:
            self._ends.stored([done])
        else:
            try:
                versions.end(outcome, done.job)
            except (ValueError, OverflowError) as error:
                outcome = Outcome(error=NotSerialisable(f"What came of it cannot be stored: {error}"))
                versions.end(outcome, done.job)
            outcome.error = None  # whose traceback would keep this group in memory until a collector comes
            done.outcome = outcome
            self._ends.collect(done)
        if versions.following is not None:
            counts.RETRIES.add("job")
        return versions.following is None or versions.following.late

    # -- storing

    def _flush(self) -> None:
        """Store what is collected; a job that is refused is tried again by itself."""
        for done, error in self._ends.flush():
            with contextlib.suppress(Gone):
                self._redo(done, error)

    def _redo(self, done: Done, error: Exception) -> None:
        """Try a job again by itself whose writes conflicted; one that is refused for another reason fails for it."""
        for attempts_left in reversed(range(_CONFLICTS)):
            fresh = self._opened(done.versions.place, fresh=True)
            if fresh.state is not None:  # somebody has marked it
                return
            outcome = self._came_of_child(fresh)
            if outcome is None:
                fresh.versions.begin()
            if not (attempts_left and isinstance(error, StaleWrite | VersionConflict | InvalidStateError)):
                outcome = Outcome(error=error)
            self._end(fresh, outcome or self._attempt(fresh))
            refused = self._ends.flush()
            if not refused:
                return
            error = refused[0].error
        _log.error("job %s: its outcome could not be stored: %r", done.job.name, error, extra={"action": "refused"})
