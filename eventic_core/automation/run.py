"""Runs of automations: a record of each, and what people do to one that workers execute.

Owns fields and moves. What a worker does about them is in `run_workflow`, `group` and `control`; what can be asked of
one afterwards in `report`, `run_changes`, `run_diff`, `undo` and `replay`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID  # noqa: TC003 - Pydantic evaluates the annotations

from pydantic import Field

from eventic_core.automation.entity import DomainEntity, StatusTracking, move, now
from eventic_core.automation.events import RunCancelled, RunCompleted, RunFailed
from eventic_core.automation.status import EXECUTION_STATES, ExecutionStatus
from eventic_core.records import Record, evented, plain
from eventic_core.records.blocking import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from typing import Literal, Self

    from eventic_core.automation.progress import Progress
    from eventic_core.automation.replay import ReplayReport
    from eventic_core.automation.report import Report
    from eventic_core.automation.run_changes import RunChange
    from eventic_core.automation.run_diff import RunDiff
    from eventic_core.automation.undo import UndoReport
    from eventic_core.records import Diff

S = ExecutionStatus
_RETRIES = 10
"""Of what people do to a run, whose worker may write it at the same time."""


def _changes(run: Run, **options: Any) -> Iterator[RunChange]:
    """Give every record version the run wrote, in the order of writing; see `run_changes.changes`.

    Of the class itself, `Run.changes(after=)` is its change feed, as of any record class.
    """
    from eventic_core.automation.run_changes import changes

    return changes(run, **options)


class _ChangesOfOne(classmethod):  # type: ignore[type-arg]
    """`changes` of a run, where that of the class is the change feed."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return vars(Record)["changes"].__get__(None, owner)
        return partial(self.__func__, instance)


class Run(StatusTracking, DomainEntity, states=EXECUTION_STATES):
    """One run of an automation over batches; its id is the id of the workflow that is its first attempt."""

    automation_id: UUID
    correlation_id: str | None = Field(default=None, max_length=100)
    cancellation_reason: str | None = None
    error_summary: str | None = None
    attempt: int = Field(default=1, ge=1)
    paused: bool = False
    tolerated_failures: int | str | None = None
    """How many items may fail, as a count or a percentage, before no more are begun; `None` is any number."""

    def start(self) -> None:
        """Begin."""
        move(self, S.PROCESSING, started_at=now(), finished_at=None)

    def complete(self) -> None:
        """End well."""
        move(self, S.COMPLETED, finished_at=now(), paused=False)
        self.register_event(RunCompleted(self.id, self.automation_id, self.finished_at))

    def fail(self, error_summary: str | None = None) -> None:
        """End badly."""
        move(self, S.FAILED, error_summary=error_summary, finished_at=now(), paused=False)
        self.register_event(RunFailed(self.id, self.automation_id, self.finished_at, error_summary))

    @evented(retry=_RETRIES)
    def cancel(self, reason: str) -> None:
        """End the run, and all of it that is not finished: batches' parts, items, and the groups they wait in.

        An item that is being done meanwhile is refused its result, and what it wrote with it.
        """
        from eventic_core.automation import control

        move(self, S.CANCELLED, cancellation_reason=reason, finished_at=now(), paused=False)
        control.cancel(self, reason)
        self.register_event(RunCancelled(self.id, self.automation_id, self.finished_at, reason))

    def skip(self) -> None:
        """Leave it out."""
        move(self, S.SKIPPED, finished_at=now())

    def reopen(self) -> None:
        """Make a failed run that nothing executes pending again."""
        move(self, S.PENDING, finished_at=None)

    # -- a run that workers execute

    @evented(retry=_RETRIES)
    def pause(self) -> None:
        """Begin no more items until `resume`; those that are being done are finished.

        Raises:
            InvalidStateError: It has ended, is paused, or nothing executes it.
        """
        from eventic_core.automation import control

        control.pause(self)
        self.update(paused=True)

    @evented(retry=_RETRIES)
    def resume(self) -> None:
        """Go on after `pause`.

        Raises:
            InvalidStateError: It is not paused.
        """
        from eventic_core.automation import control

        control.resume(self)
        self.update(paused=False)

    @evented(retry=_RETRIES)
    def tolerate(self, tolerated_failures: int | str | None, by_class: Mapping[str, int | str] | None = None) -> None:
        """Change how many items may fail; if more have already, the run stops. Of one that has ended, for a redrive.

        Args:
            tolerated_failures: A count, a percentage of all, or `None` for any number.
            by_class: The same for errors of some classes, by name; others stay as they are.

        Raises:
            Invalid: It is neither.
            InvalidStateError: Nothing executes the run.
        """
        from eventic_core.automation import control

        control.tolerate(self, tolerated_failures, by_class)
        self.update(tolerated_failures=tolerated_failures)

    @evented(retry=_RETRIES)
    def redrive(self, *, failed: bool = True, **filters: Any) -> int:
        """Do failed items again, and those that were not begun, as a new attempt of the same run.

        Args:
            failed: Whether failed items are done again; else only those that were not begun.
            filters: Only failed items with this `error_type`, this text in their `message`, or these `numbers`.

        Returns:
            How many failed items are done again; each gets all its attempts anew.

        Raises:
            Invalid: A filter is not known, there is nothing to do, or more failed items would be left than tolerated.
            InvalidStateError: The run has not ended, or nothing executes it.
            NotRegistered: This process has not declared the automation.
        """
        from eventic_core.automation import control

        move(self, S.RETRYING, attempt=self.attempt + 1, finished_at=None, error_summary=None)
        return control.redrive(self, filters if failed else {"numbers": []})

    @plain
    def progress(self) -> Progress:
        """Read how far the run is, from counters that move with its items."""
        from eventic_core.automation import progress

        return progress.read(self.id)

    @plain
    def wait(self, *, timeout_seconds: float | None = None, progress: bool = False) -> Self:
        """Wait until the run has ended; gives it as it is then.

        Args:
            timeout_seconds: How long; `None` is as long as it takes.
            progress: Whether to show a bar on a terminal, or lines elsewhere.

        Raises:
            ResultTimeout: It took longer; the run goes on.
        """
        from eventic_core.automation import progress as progresses

        progresses.wait(self.id, timeout_seconds=timeout_seconds, show=progress)
        self.refresh()
        return self

    @plain
    async def wait_async(self, *, timeout_seconds: float | None = None) -> Self:
        """Wait until the run has ended, without blocking the event loop; see `wait`."""
        return await in_thread(self.wait, timeout_seconds=timeout_seconds)

    @plain
    def watch(self, *, seconds: float = 0.5) -> AsyncIterator[Progress]:
        """See how far the run is, each time that changes, at most once in so many seconds, until it has ended."""
        from eventic_core.automation import progress

        return progress.watch(self.id, seconds=seconds)

    # -- what it did

    @plain
    def report(self) -> Report:
        """Tell what came of its items: counts, errors grouped by message, attempts, time; see `report.Report`."""
        from eventic_core.automation.report import report

        return report(self.id)

    @plain
    def results(
        self, *, statuses: Sequence[ExecutionStatus | str] = (S.COMPLETED,), format: Literal["jsonl", "csv"] = "jsonl"
    ) -> Iterator[str]:
        """Stream its items' results as lines of JSON or CSV, in the order of their numbers; see `report.results`."""
        from eventic_core.automation.report import results

        return results(self.id, statuses=statuses, format=format)

    changes = _ChangesOfOne(_changes)  # type: ignore[arg-type]

    @plain
    def diff(  # type: ignore[override]
        self, other: Run | int, after: int | None = None, *, key: str | Callable[[Any], Any] | None = None
    ) -> RunDiff | Diff:
        """Compare with another run, item by item: statuses, results, errors, and the records they changed.

        Two numbers compare versions of the run's own record, as `Record.diff`.

        Args:
            other: The other run.
            after: The later version, if `other` is a version.
            key: What recognises an item; see `run_diff.diff`.
        """
        if isinstance(other, int):
            return super().diff(other, after)
        from eventic_core.automation.run_diff import diff

        return diff(self, other, key=key)

    @plain
    def undo(self, *, dry_run: bool = False, force: bool = False, reason: str | None = None) -> UndoReport:
        """Restore the records it wrote to what they were before, as new versions; see `undo.undo`.

        Args:
            dry_run: Only say what would be done.
            force: Restore also what others have changed since, which else is left alone and listed.
            reason: Stamped on the versions.

        Raises:
            InvalidStateError: It has not ended.
        """
        from eventic_core.automation.undo import undo

        return undo(self, dry_run=dry_run, force=force, reason=reason)

    @plain
    async def undo_async(self, **options: Any) -> UndoReport:
        """Undo the run without blocking the event loop; see `undo`."""
        return await in_thread(self.undo, **options)

    @plain
    def replay(
        self,
        as_of: datetime | None = None,
        *,
        publish: bool = False,
        force: bool = False,
        numbers: Iterable[int] | None = None,
        reason: str | None = None,
    ) -> ReplayReport:
        """Do its items again in this process, on the data as it was, and compare; steps are not called, nothing stored.

        Args:
            as_of: A moment as of which all is read; default for each item that at which its last attempt began.
            publish: Whether to write what differs, as new versions.
            force: Whether to publish also what others wrote since, which else is left alone and listed.
            numbers: Only these items.
            reason: Stamped on the versions.

        Raises:
            Invalid: The moment has no time zone or is to come, or a number is of no item that has begun.
            InvalidStateError: It is to be published, and the run has not ended.
            NotRegistered: This process has not declared the automation.
        """
        from eventic_core.automation.replay import replay

        return replay(self, as_of, publish=publish, force=force, numbers=numbers, reason=reason)

    @plain
    async def replay_async(self, as_of: datetime | None = None, **options: Any) -> ReplayReport:
        """Replay the run without blocking the event loop; see `replay`."""
        return await in_thread(self.replay, as_of, **options)
