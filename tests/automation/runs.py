"""What the tests of runs share: starting one, and looking at what came of its items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from eventic_core.automation import ItemExecution

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eventic_core.automation import Run
    from eventic_core.automation.declared import DeclaredAutomation
    from eventic_core.automation.progress import Progress

SECONDS = 100


def numbered(count: int) -> list[dict[str, int]]:
    """Give payloads with numbers from 1."""
    return [{"number": number} for number in range(1, count + 1)]


def started(automation: DeclaredAutomation[Any, Any], rows: Iterable[Any] | int, **options: Any) -> Run:
    """Start a run over a new batch of rows, or of so many numbered ones."""
    batch = automation.batch(str(uuid4()), numbered(rows) if isinstance(rows, int) else rows)
    return automation.start(batch, **options)


def ended(automation: DeclaredAutomation[Any, Any], rows: Iterable[Any] | int, **options: Any) -> Run:
    """Start a run and wait until it has ended."""
    return started(automation, rows, **options).wait(timeout_seconds=SECONDS)


def executions(run: Run) -> list[ItemExecution]:
    """Read a run's items in the order of their numbers."""
    return ItemExecution.where(run_id=run.id).order_by(ItemExecution.fields.number).all()


def statuses(run: Run) -> list[str]:
    """Read the statuses of a run's items in the order of their numbers."""
    return [str(execution.status) for execution in executions(run)]


def moves(execution: ItemExecution) -> list[str]:
    """Read the statuses an item went through."""
    return [str(version.status) for version in reversed(execution.history())]


def counted(progress: Progress) -> dict[str, int]:
    """Give what a run's counters say of statuses, without those that are nothing."""
    names = ("pending", "processing", "retrying", "completed", "failed", "cancelled", "skipped")
    return {name.upper(): getattr(progress, name) for name in names if getattr(progress, name)}
