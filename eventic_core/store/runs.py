"""Runs, their steps and their queues, as DBOS keeps them: read with SQL of our own, never written here.

Owns the statements, their filters and the values they give. Knows nothing of what a payload means: `runtime.runs`
decodes it. A database without the tables of DBOS has no runs, no steps and no queues.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from psycopg import errors as pg

from eventic_core.store.sql import statement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from eventic_core.records.port import StoredVersion
    from eventic_core.store.engine import Database

_COLUMNS: Final = statement("run_columns")
_GET: Final = statement("run_get", columns=_COLUMNS)
_STEPS: Final = statement("run_steps")
_LAST_STEP: Final = statement("last_step")
_QUEUES: Final = statement("run_queues")
_WAITS: Final = statement("run_waits")

_CONDITIONS: Final = {
    "id": "ws.workflow_uuid = %(id)s",
    "status": "ws.status = %(status)s",
    "queue": "coalesce(ws.queue_name, ws.attributes->>'eventic.queue') = %(queue)s",
    "name": "ws.name = %(name)s",
    "prefix": "starts_with(ws.workflow_uuid, %(prefix)s)",
    # the first half is what an index on created_at alone can use
    "before_ms": "ws.created_at <= %(before_ms)s"
    " and (ws.created_at, ws.workflow_uuid) < (%(before_ms)s, %(before_id)s)",
}
_SERVED_BY_DBOS: Final = "_dbos_"  # begins the names of queues that need no registration


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run as it was when it was read; moments are aware UTC, to the millisecond.

    Attributes:
        id: The id of the workflow of DBOS that the run is.
        name: The workflow's name.
        status: ENQUEUED, DELAYED, PENDING (at work, or its worker died), SUCCESS, ERROR, CANCELLED or
            MAX_RECOVERY_ATTEMPTS_EXCEEDED, in DBOS's words.
        queue: The queue it waits, runs or ran in; `None` if it was started directly.
        lane: Its partition of the queue.
        application: The application it belongs to; `None` is whichever takes it.
        app_version: The version of the application that may run it; `None` is whichever is newest.
        executor: The worker that ran it last, or the process that made it.
        attempts: How often it was started since it was made or resumed.
        started_at: When a worker took it from its queue; `None` if it never was in one, or was cancelled.
        waiting_for: What it needs that no worker has.
        forked_from: The run it repeats.
        parent_id: The run that started it.
        arguments: What it was given; decoded, or the stored text if this process cannot decode it. Of our own work
            `args` and `kwargs` and what else says what is called. `None` in a list of runs, as the next two.
        result: What it returned; decoded, or the stored text.
        error: What it raised; a `RemoteError` with the stored text if it cannot be decoded.
    """

    id: str
    name: str | None
    status: str
    queue: str | None
    lane: str | None
    application: str | None
    app_version: str | None
    executor: str | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    waiting_for: str | None
    forked_from: str | None
    parent_id: str | None
    arguments: Any = None
    result: Any = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One recorded step of a run, and the record versions it wrote.

    Attributes:
        number: 1 is the first; 0 stands for what the run wrote outside any step.
        output: What it returned; decoded, or the stored text.
        error: What it raised, as of a run.
        child_id: The run it started or waited for.
        versions: In the order of writing.
    """

    number: int
    name: str
    started_at: datetime | None = None
    completed_at: datetime | None = None
    child_id: str | None = None
    output: Any = None
    error: Exception | None = None
    versions: tuple[StoredVersion, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueInfo:
    """One queue at a moment.

    Attributes:
        waiting: Runs that are ready (ENQUEUED).
        delayed: Runs that are not due yet (DELAYED).
        running: Runs that a worker has taken (PENDING).
        oldest_seconds: How long ago, by the database's clock, the first of the waiting was made or fell due; or `None`.
        concurrency: How many runs one worker takes at once; `None` is no limit.
        blocked: Why runs wait that no worker will take, such as `12 wait for handler notify`.
    """

    name: str
    waiting: int
    delayed: int
    running: int
    oldest_seconds: float | None
    concurrency: int | None
    blocked: tuple[str, ...]


class Payloads(NamedTuple):
    """What a run or a step was given, returned or raised: text, in the format that `serialization` names."""

    serialization: str | None
    inputs: str | None
    output: str | None
    error: str | None


_RUN: Final = tuple(field.name for field in fields(Run) if field.name not in ("arguments", "result", "error"))
_STEP: Final = ("number", "name", "started_at", "completed_at", "child_id")


def find(database: Database, run_id: str) -> Run | None:
    """Read a run without its payloads."""
    found = select(database, {"id": run_id}, limit=1)
    return found[0] if found else None


def get(database: Database, run_id: str) -> tuple[Run, Payloads] | None:
    """Read a run and its payloads, as they were at one moment."""
    rows = _fetch(database, _GET, (run_id,))
    return (_run(rows[0]), Payloads(*rows[0][len(_RUN) :])) if rows else None


def select(database: Database, filters: Mapping[str, Any], *, before: Run | None = None, limit: int) -> list[Run]:
    """Read runs newest first, without their payloads.

    Each fits all `filters`, which are `id`, `status`, `queue`, `name` and `prefix` (of the id), and comes after
    `before`, the last run of the page before.
    """
    parameters = {**filters, "limit": limit}
    if before is not None:
        parameters |= {"before_ms": round(before.created_at.timestamp() * 1000), "before_id": before.id}
    return [_run(row) for row in _fetch(database, _list(frozenset(parameters)), parameters)]


@functools.cache
def _list(names: frozenset[str]) -> str:
    conditions = [text for name, text in _CONDITIONS.items() if name in names]
    return statement("run_list", columns=_COLUMNS, conditions=" and ".join(conditions) or "true")


def _run(row: Sequence[Any]) -> Run:
    return Run(**dict(zip(_RUN, row, strict=False)))


def steps(database: Database, run_id: str) -> list[tuple[Step, Payloads]]:
    """Read the recorded steps of a run in order, without the versions they wrote."""
    rows = _fetch(database, _STEPS, (run_id,))
    return [(Step(**dict(zip(_STEP, row, strict=False))), Payloads(*row[len(_STEP) :])) for row in rows]


def last_step(database: Database, run_id: str) -> int:
    """Give the number of the last recorded step, 0 for none."""
    rows = _fetch(database, _LAST_STEP, (run_id,))
    return int(rows[0][1] or 0) if rows else 0


def queues(database: Database) -> list[QueueInfo]:
    """Read every queue that is registered or has unfinished runs, by name."""
    blocked: dict[str, list[str]] = defaultdict(list)
    for queue, waiting_for, count in _fetch(database, _WAITS, ()):
        blocked[queue].append(f"{count} {'waits' if count == 1 else 'wait'} for {waiting_for}")
    return [_queue(row, blocked[row[0]]) for row in _fetch(database, _QUEUES, ())]


def _queue(row: Sequence[Any], blocked: list[str]) -> QueueInfo:
    name, waiting, delayed, running, oldest_seconds, concurrency, registered = row
    if not registered and waiting + delayed and not name.startswith(_SERVED_BY_DBOS):
        blocked = ["no worker serves it: it is not registered", *blocked]
    return QueueInfo(
        name=name,
        waiting=waiting,
        delayed=delayed,
        running=running,
        oldest_seconds=oldest_seconds,
        concurrency=concurrency,
        blocked=tuple(blocked),
    )


def _fetch(database: Database, sql: str, parameters: Sequence[Any] | dict[str, Any]) -> list[tuple[Any, ...]]:
    try:
        return database.fetch(sql, parameters)
    except pg.UndefinedTable:  # DBOS makes its tables when a worker first starts
        return []
