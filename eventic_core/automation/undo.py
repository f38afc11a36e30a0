"""`run.undo()`: writes the inverse of what a run wrote, as new versions.

What is to be written is `undo_plan`'s, how it is written `corrections`'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventic_core.automation.corrections import Writing
from eventic_core.automation.undo_plan import UndoPlan, UndoReport, plan_undo
from eventic_core.errors import ScopeError
from eventic_core.records.blocking import in_thread, refuse_in_loop
from eventic_core.records.editing import in_scope
from eventic_core.records.port import using_store

if TYPE_CHECKING:
    from uuid import UUID

    from eventic_core.automation.run import Run

__all__ = ["UndoPlan", "UndoReport", "plan_undo", "undo", "undo_async"]


def undo(run: Run | UUID | str, *, dry_run: bool = False, force: bool = False, reason: str | None = None) -> UndoReport:
    """Give every record that a run wrote the values it had before, as new versions stamped `<run>:undo-<attempt>`.

    A record that the run created gets a tombstone, one that it deleted comes back, one that it changed gets the values
    of before its first change. The run, its batch executions and item executions stay as they are. Where somebody else
    wrote a record after the run's first version of it, the record is left alone and listed as a conflict.

    A record is held to the version it was planned for: if somebody writes it meanwhile, it is a conflict. The undo is
    done in chunks that commit one by one, so if it is interrupted, call it again: what is undone already needs nothing,
    and is not touched even if somebody has changed it since. Handlers see the new versions as any others. What a
    published replay of the run wrote counts as somebody else's, also when that is undone: a conflict.

    Args:
        run: The run, its id, or the workflow id of an undo (`UndoReport.workflow_id`) or of a published replay
            (`Published.workflow_id`), which is undone in turn.
        dry_run: Only say what would be done; see `plan_undo` for what cannot be foreseen.
        force: Restore records that others wrote too, as they were before the run.
        reason: Stamped on the versions; the default is `undo of run <id>`.

    Raises:
        RecordNotFound: No such run is stored.
        Invalid: A text is no id of a run, an undo or a replay.
        InvalidStateError: The run is not finished.
        NotRegistered: It wrote records of classes that this process does not know; nothing was written.
        ScopeError: In an edit, a unit of work or a transaction: it commits by itself.
        BlockingInLoop: In a running event loop; await `undo_async` there.
        StoreUnavailable: Postgres does not answer; the chunks before are written.
    """
    refuse_in_loop("undo()", "undo_async()")
    if in_scope():
        message = (
            "undo() commits as it goes, so it cannot be part of a unit of work: call it outside. Nothing was written."
        )
        raise ScopeError(message)
    with using_store(None):
        plan = plan_undo(run, force=force, reason=reason)
        return plan.report() if dry_run else UndoReport.of(Writing(plan).run(), plan.workflow_id, dry_run=False)


async def undo_async(
    run: Run | UUID | str, *, dry_run: bool = False, force: bool = False, reason: str | None = None
) -> UndoReport:
    """Undo a run without blocking the event loop; see `undo`."""
    return await in_thread(undo, run, dry_run=dry_run, force=force, reason=reason)
