"""Runs, for operators: cancelled, resumed and forked, each act on record.

A run is one of an automation, of a DAG, or a workflow; its id says which. The act and what it does to a run of an
automation or a DAG are one transaction. A workflow is steered by DBOS in a transaction of its own, in the middle of the
act's: what is refused leaves no act, and only a crash between two commits could leave an act that nobody finds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from eventic_core.automation.run import Run as AutomationRun
from eventic_core.errors import Invalid, RecordNotFound, RunNotFound
from eventic_core.jobs.dag_run import DagRun
from eventic_core.operations.acts import act_of, operating, record_act
from eventic_core.runtime import runs

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["cancel_run", "fork_run", "resume_run"]

_WAYS: dict[str, Callable[[str], str]] = {"cancel": runs.cancel, "resume": runs.resume}


def cancel_run(run_id: str, *, reason: str | None = None, request_key: str | None = None) -> str:
    """Cancel a run that has not ended, of whatever kind, and give its status then.

    Args:
        run_id: Its id.
        reason: Why; a run of an automation or a DAG notes it, and needs it.
        request_key: Given again, nothing is done again.

    Raises:
        RunNotFound: There is no such run.
        Conflict: It has ended.
        Invalid: There is no reason where there must be one.
    """
    return _steer("cancel", run_id, reason, request_key)


def resume_run(run_id: str, *, reason: str | None = None, request_key: str | None = None) -> str:
    """Go on with a run that is paused, cancelled or given up, and give its status then; as `cancel_run`."""
    return _steer("resume", run_id, reason, request_key)


def fork_run(
    run_id: str,
    *,
    step: int = 1,
    app_version: str | None = None,
    reason: str | None = None,
    request_key: str | None = None,
) -> str:
    """Repeat the run of a workflow from a step on under a new id, which is given; see `runtime.runs.fork`."""
    with operating("fork_run()", request_key) as tx:
        if tx is not None:
            forked = runs.fork(run_id, step=step, app_version=app_version)
            details: dict[str, Any] = {"step": step, "forked_run_id": forked}
            record_act("run.fork", run_id, reason=reason, request_key=request_key, **details)
            return forked
    return _done(request_key, "forked_run_id")


def _steer(verb: str, run_id: str, reason: str | None, request_key: str | None) -> str:
    with operating(f"{verb}_run()", request_key) as tx:
        if tx is not None:
            found = _record_of(run_id)
            if found is None:
                status = _WAYS[verb](run_id)
            elif verb == "resume":
                found.resume()
                status = str(found.status)
            else:
                status = _cancel_record(found, reason)
            record_act(f"run.{verb}", run_id, reason=reason, request_key=request_key, status=status)
            return status
    return _done(request_key, "status")


def _cancel_record(found: AutomationRun | DagRun, reason: str | None) -> str:
    if not reason:
        message = f"Say why run {found.id} is cancelled: it notes the reason."
        raise Invalid(message)
    found.cancel(reason)
    return str(found.status)


def _record_of(run_id: str) -> AutomationRun | DagRun | None:
    """Find the record of a run of an automation or a DAG; `None` for a workflow's."""
    try:
        known = UUID(run_id)
    except ValueError:
        return None
    for kind in (AutomationRun, DagRun):
        try:
            found: AutomationRun | DagRun = kind.hydrate(known)
        except RecordNotFound:
            continue
        return found
    return None


def _done(request_key: str | None, detail: str) -> str:
    """Give what the act on record came to."""
    done = act_of(request_key or "")
    if done is None:
        message = "The act of this request key is not on record any more."
        raise RunNotFound(message)
    return str(done.details[detail])
