"""The ten repositories of a unit of work: what each kind of entity is looked up by, and in which order.

Ids are made in the order of time, so that "newest first" is by id. How it is read and written is `repository`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, overload

from eventic_core.automation.definitions import Automation, Batch, Item
from eventic_core.automation.errors import ReadOnlyError
from eventic_core.automation.executions import BatchExecution, ItemExecution, item_execution_id
from eventic_core.automation.lookup import Found, Work, page_of, versions_of
from eventic_core.automation.orchestration import Engine, OrchestrationInstance, RunOrchestration
from eventic_core.automation.repository import Repository
from eventic_core.automation.run import Run
from eventic_core.automation.status import ExecutionStatus
from eventic_core.automation.values import ItemStateHistory

if TYPE_CHECKING:
    from uuid import UUID

    from eventic_core.records.filters import Filter

_RUNNING = [status for status in ExecutionStatus if status.is_running]


class AutomationRepository(Repository[Automation]):
    """Automations, newest first."""

    entity = Automation

    def get_by_name(self, name: str) -> Automation | None:
        """Read the one of that name; `None` if there is none."""
        return self._first({"name": name})

    def list_active(self, *, limit: int | None = 100, offset: int = 0) -> Found[Automation]:
        """Read those that are not deleted."""
        return self._newest({}, limit=limit, offset=offset)


class BatchRepository(Repository[Batch]):
    """Batches, by name."""

    entity = Batch

    def get_by_automation_and_name(self, automation_id: UUID, name: str) -> Batch | None:
        """Read the one of that name; `None` if there is none."""
        return self._first({"automation_id": automation_id, "name": name})

    def list_by_automation(self, automation_id: UUID, *, limit: int | None = 100, offset: int = 0) -> Found[Batch]:
        """Read an automation's."""
        return self._find({"automation_id": automation_id}, order=(self._fields.name,), limit=limit, offset=offset)


class ItemRepository(Repository[Item]):
    """Items, by their number in the batch."""

    entity = Item

    def get_by_batch_and_sequence(self, batch_id: UUID, sequence_number: int) -> Item | None:
        """Read the one with that number; `None` if there is none."""
        return self._first({"batch_id": batch_id, "sequence_number": sequence_number})

    def list_by_batch(self, batch_id: UUID, *, limit: int | None = 100, offset: int = 0) -> Found[Item]:
        """Read a batch's."""
        return self._find({"batch_id": batch_id}, order=(self._fields.sequence_number,), limit=limit, offset=offset)


class RunRepository(Repository[Run]):
    """Runs, newest first."""

    entity = Run

    def get_by_correlation_id(self, correlation_id: str) -> Run | None:
        """Read the newest with that correlation id; `None` if there is none."""
        return self._first({"correlation_id": correlation_id}, order=(-self._fields.id,))

    def list_by_automation(
        self,
        automation_id: UUID,
        *,
        status: ExecutionStatus | str | None = None,
        limit: int | None = 100,
        offset: int = 0,
    ) -> Found[Run]:
        """Read an automation's, of one status if it is given."""
        return self._newest({"automation_id": automation_id, "status": status}, limit=limit, offset=offset)

    def list_by_status(self, status: ExecutionStatus | str, *, limit: int | None = 100, offset: int = 0) -> Found[Run]:
        """Read those of one status."""
        return self._newest({"status": status}, limit=limit, offset=offset)

    def find_running(self, automation_id: UUID | None = None) -> Found[Run]:
        """Read all that have begun and not ended, of one automation if it is given, the latest start first."""
        running: Filter = self._fields.status.in_(_RUNNING)
        return self._find({"automation_id": automation_id}, running, order=(-self._fields.started_at,), limit=None)


class BatchExecutionRepository(Repository[BatchExecution]):
    """Batch executions, newest first."""

    entity = BatchExecution

    def get_by_run_and_batch(self, run_id: UUID, batch_id: UUID) -> BatchExecution | None:
        """Read a batch's part in a run; `None` if there is none."""
        return self._first({"run_id": run_id, "batch_id": batch_id})

    def list_by_run(self, run_id: UUID, *, limit: int | None = 100, offset: int = 0) -> Found[BatchExecution]:
        """Read a run's."""
        return self._newest({"run_id": run_id}, limit=limit, offset=offset)

    def list_by_batch(self, batch_id: UUID, *, limit: int | None = 100, offset: int = 0) -> Found[BatchExecution]:
        """Read a batch's, of all runs."""
        return self._newest({"batch_id": batch_id}, limit=limit, offset=offset)


class ItemExecutionRepository(Repository[ItemExecution]):
    """Item executions, by their number in the run."""

    entity = ItemExecution

    def get_by_run_and_item(self, run_id: UUID, item_id: UUID) -> ItemExecution | None:
        """Read an item's part in a run; `None` if there is none."""
        return self.get(item_execution_id(run_id, item_id))

    def list_by_batch_execution(
        self, batch_execution_id: UUID, *, limit: int | None = 100, offset: int = 0
    ) -> Found[ItemExecution]:
        """Read a batch execution's."""
        return self._numbered({"batch_execution_id": batch_execution_id}, limit=limit, offset=offset)

    def list_pending_by_run(self, run_id: UUID, *, limit: int | None = 100, offset: int = 0) -> Found[ItemExecution]:
        """Read a run's that have not begun."""
        filters = {"run_id": run_id, "status": ExecutionStatus.PENDING}
        return self._numbered(filters, limit=limit, offset=offset)

    def list_failed_by_run(self, run_id: UUID, *, limit: int | None = 100, offset: int = 0) -> Found[ItemExecution]:
        """Read a run's that failed for good."""
        filters = {"run_id": run_id, "status": ExecutionStatus.FAILED}
        return self._numbered(filters, limit=limit, offset=offset)

    @overload
    def count_by_status(self, run_id: UUID) -> dict[ExecutionStatus, int]: ...
    @overload
    def count_by_status(self, run_id: UUID, status: ExecutionStatus | str) -> int: ...
    def count_by_status(self, run_id: UUID, status: ExecutionStatus | str | None = None) -> Any:
        """Count a run's of one status, or of each; the rows are counted. `run.progress()` reads counters instead."""
        if status is not None:
            return self.count(run_id=run_id, status=status)
        return {each: self.count(run_id=run_id, status=each) for each in ExecutionStatus}

    def _numbered(self, filters: dict[str, Any], *, limit: int | None, offset: int) -> Found[ItemExecution]:
        return self._find(filters, order=(self._fields.number,), limit=limit, offset=offset)


class ItemStateHistoryRepository:
    """The moves of item executions: a view of their versions, which nobody writes."""

    def __init__(self, unit_of_work: Work) -> None:
        self._work = unit_of_work

    def list_by_item_execution(
        self, item_execution_id: UUID, *, limit: int | None = 100, offset: int = 0
    ) -> Found[ItemStateHistory]:
        """Read an item execution's moves, the first one first; those of a deleted one too.

        Raises:
            RepositoryError: A negative page.
        """
        return page_of(self._moves(item_execution_id), limit=limit, offset=offset)

    def get_latest_by_item_execution(self, item_execution_id: UUID) -> ItemStateHistory | None:
        """Read an item execution's last move; `None` if there is no such item execution."""
        moves = self._moves(item_execution_id)
        return moves[-1] if moves else None

    def create(self, *_: object, **__: object) -> NoReturn:
        """Refuse: a move of the status is its own record.

        Raises:
            ReadOnlyError: Always; also a NotImplementedError.
        """
        _refuse("created: move the item execution's status, with start(), complete() or fail()")

    def update(self, *_: object, **__: object) -> NoReturn:
        """Refuse: what happened does not change.

        Raises:
            ReadOnlyError: Always; also a NotImplementedError.
        """
        _refuse("updated: versions never change")

    def delete(self, *_: object, **__: object) -> NoReturn:
        """Refuse: what happened does not change.

        Raises:
            ReadOnlyError: Always; also a NotImplementedError.
        """
        _refuse("deleted: it goes with the item execution, by an operator's purge")

    def _moves(self, execution_id: UUID) -> Found[ItemStateHistory]:
        found: Found[ItemStateHistory] = []
        previous: ExecutionStatus | None = None
        for version in versions_of(self._work, ItemExecution, execution_id):
            if version.deleted or version.status == previous:
                continue
            stamp = version.stamp
            found.append(
                ItemStateHistory(
                    stamp.version_id, execution_id, version.status, previous, stamp.recorded_at, stamp.actor
                )
            )
            previous = version.status
        return found


class EngineRepository(Repository[Engine]):
    """Engines outside, newest first."""

    entity = Engine

    def get_by_name(self, name: str) -> Engine | None:
        """Read the one of that name; `None` if there is none."""
        return self._first({"name": name})

    def list_by_type(self, type: str, *, limit: int | None = 100, offset: int = 0) -> Found[Engine]:
        """Read those of a type."""
        return self._newest({"type": type}, limit=limit, offset=offset)


class OrchestrationInstanceRepository(Repository[OrchestrationInstance]):
    """Runs of engines outside, newest first."""

    entity = OrchestrationInstance

    def get_by_engine_and_external(self, engine_id: UUID, external_id: str) -> OrchestrationInstance | None:
        """Read the one that its engine knows by that id; `None` if there is none."""
        return self._first({"engine_id": engine_id, "external_id": external_id})

    def list_by_engine(
        self, engine_id: UUID, *, limit: int | None = 100, offset: int = 0
    ) -> Found[OrchestrationInstance]:
        """Read an engine's."""
        return self._newest({"engine_id": engine_id}, limit=limit, offset=offset)

    def list_by_status(
        self, status: ExecutionStatus | str, *, limit: int | None = 100, offset: int = 0
    ) -> Found[OrchestrationInstance]:
        """Read those of one status."""
        return self._newest({"status": status}, limit=limit, offset=offset)

    def list_running(self, *, limit: int | None = 100, offset: int = 0) -> Found[OrchestrationInstance]:
        """Read those that have begun and not ended."""
        running: Filter = self._fields.status.in_(_RUNNING)
        return self._find({}, running, order=(-self._fields.id,), limit=limit, offset=offset)


class RunOrchestrationRepository(Repository[RunOrchestration]):
    """Links of runs and orchestration instances, newest first."""

    entity = RunOrchestration

    def get_by_run_and_instance(self, run_id: UUID, orchestration_instance_id: UUID) -> RunOrchestration | None:
        """Read the link of the two; `None` if there is none."""
        return self._first({"run_id": run_id, "orchestration_instance_id": orchestration_instance_id})

    def list_by_run(self, run_id: UUID, *, limit: int | None = 100, offset: int = 0) -> Found[RunOrchestration]:
        """Read a run's."""
        return self._newest({"run_id": run_id}, limit=limit, offset=offset)

    def list_by_instance(
        self, orchestration_instance_id: UUID, *, limit: int | None = 100, offset: int = 0
    ) -> Found[RunOrchestration]:
        """Read an orchestration instance's."""
        filters = {"orchestration_instance_id": orchestration_instance_id}
        return self._newest(filters, limit=limit, offset=offset)


def _refuse(what: str) -> NoReturn:
    message = f"The history of item states cannot be {what}."
    raise ReadOnlyError(message)
