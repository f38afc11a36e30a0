"""Runs: list them, look into one, cancel, resume and fork it; and what waits in which queue.

A run is a workflow of DBOS; its id is the workflow's. Reading is SQL of the store and leaves a run as it is; steering
goes through DBOS's client, imported when it is needed. Knows nothing of what a workflow does.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from pydantic_core import from_json

from eventic_core.errors import Conflict, Invalid, InvalidFilter, RemoteError, RunNotFound, StoreUnavailable
from eventic_core.records.blocking import refuse_in_loop
from eventic_core.records.ids import new_id
from eventic_core.records.port import installed_store
from eventic_core.runtime import codec
from eventic_core.runtime.calls import Call
from eventic_core.settings import libpq_url
from eventic_core.store import runs as stored
from eventic_core.store.runs import QueueInfo, Run, Step
from eventic_core.store.work import SERIALIZATION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbos import DBOSClient

    from eventic_core.records.port import StoredVersion
    from eventic_core.store.engine import Database
    from eventic_core.store.postgres import PostgresStore
    from eventic_core.store.runs import Payloads

__all__ = [
    "STATUSES",
    "QueueInfo",
    "Run",
    "Step",
    "cancel",
    "fork",
    "get_run",
    "list_runs",
    "queues",
    "resume",
    "steps",
]

_CANCELLED: Final = "CANCELLED"
_DONE: Final = ("SUCCESS", "ERROR")
_GAVE_UP: Final = "MAX_RECOVERY_ATTEMPTS_EXCEEDED"
STATUSES: Final = ("ENQUEUED", "DELAYED", "PENDING", *_DONE, _CANCELLED, _GAVE_UP)
"""The states of a run, in DBOS's words."""


def list_runs(
    *,
    status: str | None = None,
    queue: str | None = None,
    name: str | None = None,
    prefix: str | None = None,
    limit: int = 20,
    before: str | None = None,
) -> list[Run]:
    """List runs, newest first, without their arguments and results.

    Only those with one of `STATUSES`, of a queue, of a workflow's name, whose id begins with `prefix`; and only those
    older than the run `before`, the last of the page before.

    Raises:
        InvalidFilter: No run can have the status, or the limit is below 1.
        RunNotFound: There is no run `before`.
    """
    if status is not None and status not in STATUSES:
        raise InvalidFilter(f"No run has the status {status!r}. They are {', '.join(STATUSES)}.")
    if limit < 1:
        raise InvalidFilter(f"limit={limit}: a page of runs holds at least one.")
    database = _store("list_runs").database
    last = None if before is None else _find(database, before)
    given = {"status": status, "queue": queue, "name": name, "prefix": prefix}
    filters = {key: value for key, value in given.items() if value is not None}
    return stored.select(database, filters, before=last, limit=limit)


def get_run(run_id: str) -> Run:
    """Read a run with its arguments, and its result or error.

    Raises:
        RunNotFound: No run has the id.
    """
    if (found := stored.get(_store("get_run").database, run_id)) is None:
        raise _unknown(run_id)
    run, payloads = found
    return replace(run, arguments=_arguments(payloads), result=_output(payloads), error=_error(payloads))


def steps(run_id: str) -> list[Step]:
    """List the recorded steps of a run in order, each with the record versions it wrote.

    Versions written outside any step come first, as a step 0 that is there only if they are; those of a step that has
    no record (any more) as a step without moments.

    Raises:
        RunNotFound: No run has the id.
    """
    store = _store("steps")
    _find(store.database, run_id)
    written: dict[int, list[StoredVersion]] = defaultdict(list)
    for version in store.written_by(run_id):
        written[version.stamp.step_id or 0].append(version)
    found = [
        replace(step, output=_output(payloads), error=_error(payloads), versions=tuple(written.pop(step.number, ())))
        for step, payloads in stored.steps(store.database, run_id)
    ]
    for number, versions in written.items():
        found.append(Step(number=number, name="not recorded" if number else "whole run", versions=tuple(versions)))
    return sorted(found, key=lambda step: step.number)


def queues() -> list[QueueInfo]:
    """List every queue that is registered or has unfinished runs, by name, with what waits in it and why."""
    return stored.queues(_store("queues").database)


# Steering. Each call is a transaction of its own, whatever scope is open.


def cancel(run_id: str) -> str:
    """Cancel a run that is not finished, and give its status then: one at work stops before its next step.

    A run that is cancelled already stays as it is; the runs it started go on.

    Raises:
        RunNotFound: No run has the id.
        Conflict: It has ended.
    """
    database = _store("cancel").database
    run = _find(database, run_id)
    if run.status == _CANCELLED:
        return run.status
    _refuse(run, (*_DONE, _GAVE_UP), "cancelled", "Only a run that is not finished can be")

    def work(client: DBOSClient) -> None:
        if run.queue is not None:  # DBOS takes it out of its queue and forgets which that was
            client.update_workflow_attributes(run_id, {"eventic.queue": run.queue}, merge=True)
        client.cancel_workflow(run_id)

    _steer(database, run, work)
    now = _find(database, run_id)
    _refuse(now, _DONE, "cancelled", "It finished meanwhile")
    return now.status


def resume(run_id: str) -> str:
    """Put a run that was cancelled or given up back into its queue, and give its status then.

    What its steps recorded is not done again. A delayed run becomes due at once; one that waits stays as it is.

    Raises:
        RunNotFound: No run has the id.
        Conflict: It has ended, or is at work.
    """
    database = _store("resume").database
    run = _find(database, run_id)
    if run.status == "ENQUEUED":
        return run.status
    _refuse(run, _DONE, "resumed", "To run it again, fork it: `eventic run fork`")
    _refuse(run, ("PENDING",), "resumed", "A worker has it; if that one is stuck, cancel the run first")
    _steer(database, run, lambda client: client.resume_workflow(run_id, queue_name=run.queue))
    return _find(database, run_id).status


def fork(run_id: str, *, step: int = 1, app_version: str | None = None) -> str:
    """Repeat a run from a step on under a new id, which is given; the steps before keep what they recorded.

    The new run waits in the queue and the lane of the one it repeats, ahead of all that has a priority; if that was
    started directly, where any process that runs workflows may take it. `app_version` is the application's that is to
    run it, by default whichever is newest. Versions that the kept steps wrote stay those of the first run.

    Raises:
        RunNotFound: No run has the id, or `step` is beyond the one after its last recorded step.
        Invalid: `step` is below 1.
    """
    if step < 1:
        raise Invalid(f"step={step}: steps are counted from 1, and from there all of the run is repeated.")
    database = _store("fork").database
    run = _find(database, run_id)
    if step > 1 and step > (last := stored.last_step(database, run_id)) + 1:
        raise RunNotFound(f"Run {run_id} has no step {step}: it recorded {last}. Fork it from step {last + 1} at most.")
    forked_id = str(new_id())

    def work(client: DBOSClient) -> None:
        from dbos import SetWorkflowID

        lane = run.lane if run.queue else None
        with SetWorkflowID(forked_id):
            client.fork_workflow(
                run_id, step, application_version=app_version, queue_name=run.queue, queue_partition_key=lane
            )

    _steer(database, run, work, done=lambda: stored.find(database, forked_id))
    return forked_id


def _steer(
    database: Database,
    run: Run,
    work: Callable[[DBOSClient], object],
    *,
    done: Callable[[], object | None] | None = None,
) -> None:
    """Do `work`, again if the connection was lost, unless `done` finds that it was done."""
    from dbos import error as dbos_errors

    with _client(database, run) as client:
        try:
            database.persist(lambda: work(client), done)
        except dbos_errors.DBOSNonExistentWorkflowError as error:  # deleted meanwhile
            raise _unknown(run.id) from error


@contextlib.contextmanager
def _client(database: Database, run: Run) -> Iterator[DBOSClient]:
    """Open DBOS's client on behalf of the application the run belongs to: this process may be of another."""
    from dbos import DBOSClient

    from eventic_core.runtime.adapter import JsonSerializer

    client = DBOSClient(
        system_database_url=libpq_url(database.engine.url.render_as_string(hide_password=False)),
        serializer=JsonSerializer(),
        system_database_pool_size=1,
        application_name=run.application,
        lazy=True,
        retry_connection_errors=False,
    )
    try:
        yield client
    finally:
        client.destroy()


def _refuse(run: Run, states: tuple[str, ...], verb: str, remedy: str) -> None:
    if run.status in states:
        raise Conflict(f"Run {run.id} cannot be {verb}: it is {run.status}. {remedy}.")


def _store(call: str) -> PostgresStore:
    """Give the one store there is, also to the body of a workflow, whose records use another."""
    refuse_in_loop(f"{call}()", f"asyncio.to_thread({call}, ...)")
    return cast("PostgresStore", installed_store())


def _find(database: Database, run_id: str) -> Run:
    if (run := stored.find(database, run_id)) is None:
        raise _unknown(run_id)
    return run


def _unknown(run_id: str) -> RunNotFound:
    return RunNotFound(f"There is no run {run_id!r} in this database. `eventic run list` shows the newest.")


# Payloads


def _arguments(payloads: Payloads) -> Any:
    return _decoded(payloads.inputs, payloads.serialization, _call)


def _call(text: str) -> Any:
    if not text.startswith(Call.PREFIX):
        return codec.loads(text)
    values = Call(text).values
    return values | {key: codec.decode(values[key]) for key in ("args", "kwargs") if key in values}


def _output(payloads: Payloads) -> Any:
    return _decoded(payloads.output, payloads.serialization, codec.loads)


def _error(payloads: Payloads) -> Exception | None:
    found = _decoded(payloads.error, payloads.serialization, lambda text: codec.decode_error(from_json(text)))
    if isinstance(found, str):
        return RemoteError(found, payloads.serialization or "unknown")
    return cast("Exception | None", found)


def _decoded(text: str | None, serialization: str | None, decode: Callable[[str], Any]) -> Any:
    """Decode a payload of our own format; what this process cannot decode, or must not (a pickle), stays text."""
    if text is None or serialization not in (SERIALIZATION, None):
        return text
    try:
        return decode(text)
    except StoreUnavailable:
        raise
    except Exception:  # noqa: BLE001 - validators of the user's run too; a run can be looked at whatever they say
        return text
