"""Background work in DBOS's tables: enqueued, found, completed, given back and taken over by our own statements.

Owns the SQL that claims, completes and moves work; the contract tests watch the columns of schema `dbos` it names.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg import errors as pg

from eventic_core.errors import NotLaunched
from eventic_core.records.port import AlreadyDone, OwnershipLost
from eventic_core.store.sql import statement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from uuid import UUID

    from eventic_core.records.port import Checkpoint, Work
    from eventic_core.store.engine import Database
    from eventic_core.store.slots import Slot
    from eventic_core.store.transaction import PostgresTransaction

CHANNEL = "eventic_work"
APPLICATION = "eventic"
"""To DBOS. It keeps the versions and the work of its applications apart; for us a database is one system."""
DIRECT = "eventic_direct"
"""The queue of runs that were called, not enqueued, when somebody has to take them over: every process serves it."""
SERIALIZATION = "eventic_json"
DEFAULT_PER_WORKER = 16
"""Pieces of work of one queue that a worker runs at a time: waiting for Postgres and the network, not for a core."""
LANES = 64
"""Enough for more workers than one Postgres feeds; a claim costs as much as there are lanes with work."""

GATE = statement("part_gate").rstrip() + "\n"
GATED = " " + statement("part_gated").strip()
CHECKPOINT = "\n" + statement("part_checkpoint").rstrip()
WORK = "\n" + statement("part_work").rstrip()

_STEP_STATE = statement("step_state")
_LAST_STEP = statement("last_step")
_STEP_ERROR = statement("step_error", gate=GATE, gated=GATED)
_CLAIM = statement("claim", claimed=statement("part_claimed").rstrip())
_CLAIM_LANES = statement("claim_lanes", claimed=statement("part_claimed").rstrip())
_CLAIMS_OF = statement("claims_of")
_CLAIMS_HELD = statement("claims_held")
_COMPLETE = statement("complete")
_COMPLETE_MANY = statement("complete_many")
_PUT_BACK = statement("put_back")
_PARK = statement("park")
_RELEASE = statement("release")
_MOVE = statement("move")
_SUSPECT = statement("suspect")
_READY = statement("ready")
_ENSURE_QUEUE = statement("ensure_queue")
_RESULT = statement("result")
_PAYLOAD = statement("payload")
_EXECUTORS = statement("executors")
_OWNERS = statement("owners")
_TAKE_OVER = statement("take_over")
_ENQUEUE = {
    (gated, worked): statement(
        "enqueue",
        gate=GATE if gated else "",
        gated=GATED if gated else "",
        also=(CHECKPOINT if gated else "") + (WORK if worked else ""),
    )
    for gated in (False, True)
    for worked in (False, True)
}

_NO_TABLES = (pg.UndefinedTable, pg.InvalidSchemaName, pg.UndefinedColumn)
"""DBOS has made no tables, or a process is at it: it makes them in steps."""


class QueueRow(NamedTuple):
    """A queue as DBOS's table holds it.

    Attributes:
        per_worker: Pieces of work that one worker runs at a time.
        limit: Pieces that all workers together run at a time.
        rate: `(pieces, seconds)` that all workers together start at most.
        lanes: Whether its work has lanes, each of which runs one piece at a time.
    """

    name: str
    per_worker: int
    limit: int | None = None
    rate: tuple[int, float] | None = None
    lanes: bool = False


class Claim(NamedTuple):
    """A piece of work claimed: `attempts` counts this time, `deadline_ms` is since the epoch."""

    run_id: str
    name: str
    attempts: int
    payload: str | None
    deadline_ms: int | None


class Outcome(NamedTuple):
    """How a run ended; `output` and `error` are JSON text."""

    run_id: str
    owner: str
    status: str
    output: str | None
    error: str | None


def lane_of(key: UUID | str) -> str:
    """Give the lane in which work with this key runs, one piece at a time."""
    return str(zlib.crc32(str(key).encode()) % LANES)


class WorkTable:
    """The work of all processes on one database.

    Args:
        database: Where it is.
        app_version: Of this process; work stays with workers of the version it was enqueued in.
    """

    def __init__(self, database: Database, app_version: str) -> None:
        self.database = database
        self.app_version = app_version
        self.serves: Callable[[str], bool] = lambda _queue: False
        self.enqueued: Callable[[set[str]], object] = lambda _queues: None
        self._known_queues: set[str] = set()

    # -- parameters of the parts of a write

    def work_parameters(self, work: Sequence[Work]) -> tuple[Any, ...]:
        """Give the parameters of `part_work`. Other processes are told of work this one does not do itself."""
        notify = [item.delay_seconds <= 0 and not self.serves(item.queue) for item in work]
        return (
            [item.id for item in work],
            [item.name for item in work],
            [item.queue for item in work],
            [item.payload for item in work],
            [item.lane for item in work],
            [int(item.delay_seconds * 1000) for item in work],
            notify,
            [item.parent for item in work],
            [item.priority for item in work],
            self.app_version,
        )

    def checkpoint_parameters(self, checkpoint: Checkpoint) -> tuple[Any, ...]:
        """Give the parameters of `part_checkpoint`."""
        run, _owner, step, name, output, started_ms = checkpoint
        return run, step, name, output, started_ms, APPLICATION

    @staticmethod
    def gate_parameters(checkpoint: Checkpoint) -> tuple[Any, ...]:
        """Give the parameters of `part_gate`."""
        run = checkpoint.workflow_id
        return run, checkpoint.owner, run, checkpoint.step_id

    # -- enqueueing

    def enqueue(self, work: Sequence[Work], tx: PostgresTransaction | None, checkpoint: Checkpoint | None) -> None:
        """Enqueue work and note a checkpoint, whichever is given; see the port."""
        sql = _ENQUEUE[checkpoint is not None, bool(work)]
        parameters: tuple[Any, ...] = ()
        if checkpoint is not None:
            parameters += self.gate_parameters(checkpoint) + self.checkpoint_parameters(checkpoint)
        if work:
            parameters += self.work_parameters(work)
        try:
            rows = tx.fetch(sql, parameters) if tx is not None else self.database.fetch(sql, parameters)
        except _NO_TABLES as error:
            raise not_launched() from error
        if not rows and checkpoint is not None:
            raise self.refusal(checkpoint)
        self.announce(work, tx)

    def announce(self, work: Sequence[Work], tx: PostgresTransaction | None) -> None:
        """Wake this process's own worker, once the work is committed."""
        queues = {item.queue for item in work if item.delay_seconds <= 0}
        if not queues:
            return
        if tx is None:
            self.enqueued(queues)
        else:
            tx.on_commit(lambda: self.enqueued(queues))

    def refusal(self, checkpoint: Checkpoint) -> Exception:
        """Say why a write with a checkpoint wrote nothing, if that was the reason."""
        rows = self.database.fetch(_STEP_STATE, (checkpoint.owner, checkpoint.step_id, checkpoint.workflow_id))
        if not rows or not rows[0][0]:
            return OwnershipLost(checkpoint.workflow_id)
        _owned, name, output, error, _serialization = rows[0]
        if name is not None:
            return AlreadyDone(name, output, error)
        return LookupError("the gate was open")

    def step(self, workflow_id: str, step_id: int) -> AlreadyDone | None:
        """Read what a step of a run recorded."""
        _owned, name, output, error, _serialization = self.database.fetch(_STEP_STATE, ("", step_id, workflow_id))[0]
        return None if name is None else AlreadyDone(name, output, error)

    def note_error(self, checkpoint: Checkpoint, error: str) -> None:
        """Record that a step failed; raises what `enqueue` does."""
        run, _owner, step, name, _output, started_ms = checkpoint
        row = (run, step, name, error, started_ms, APPLICATION)
        if not self.database.fetch(_STEP_ERROR, (*self.gate_parameters(checkpoint), *row)):
            raise self.refusal(checkpoint)

    def last_step(self, workflow_id: str) -> tuple[int, int]:
        """Give when a run was created, in milliseconds since the epoch, and its last recorded step, 0 for none."""
        created_ms, last = self.database.fetch(_LAST_STEP, (workflow_id,))[0]
        return int(created_ms), int(last or 0)

    def ensure_queue(self, queue: QueueRow) -> None:
        """Make sure DBOS knows a queue; once per process, on a connection of its own.

        Raises:
            NotLaunched: DBOS's tables are not there.
        """
        if queue.name in self._known_queues:
            return
        limit, period = queue.rate or (None, None)
        lanes = 1 if queue.lanes else None
        row = (queue.name, queue.per_worker, queue.limit, limit, period, queue.lanes, lanes, 1.0)

        def insert() -> None:
            with self.database.apart() as connection:
                connection.execute(_ENSURE_QUEUE, row)

        try:
            self.database.persist(insert)
        except _NO_TABLES as error:
            raise not_launched() from error
        self._known_queues.add(queue.name)

    def forget_queues(self) -> None:
        """Forget which queues have a row: they were deleted."""
        self._known_queues.clear()

    # -- doing it

    def ready(self, queues: Iterable[str]) -> list[str]:
        """Name the queues that have work ready; one statement, whatever their number."""
        return [name for (name,) in self.database.run(_READY, (list(queues),))]

    def claim(self, queue: QueueRow, count: int, *, owner: str, executor: str) -> list[Claim]:
        """Claim up to `count` pieces of a queue that has no limit of its own over all workers."""
        parameters = {
            "queue": queue.name,
            "version": self.app_version,
            "count": count,
            "owner": owner,
            "executor": executor,
            "application": APPLICATION,
        }
        return [Claim._make(row) for row in self.database.run(_CLAIM_LANES if queue.lanes else _CLAIM, parameters)]

    def claims_of(self, queue: QueueRow, owner: str) -> list[Claim]:
        """Read what was claimed with a token: a claim may have been committed although its reply was lost."""
        return [Claim._make(row) for row in self.database.run(_CLAIMS_OF, (queue.name, owner))]

    def complete(self, outcome: Outcome, tx: PostgresTransaction | None = None) -> bool:
        """Store how a run ended; false if it is not this execution's any more."""
        parameters = (outcome.status, outcome.run_id, outcome.owner, outcome.output, outcome.error)
        return bool(tx.fetch(_COMPLETE, parameters) if tx else self.database.fetch(_COMPLETE, parameters))

    def complete_many(self, outcomes: Sequence[Outcome]) -> None:
        """Store how several runs ended; those that are not this process's any more are left alone."""
        ids, owners, statuses, outputs, errors = map(list, zip(*outcomes, strict=True))
        self.database.fetch(_COMPLETE_MANY, (ids, owners, statuses, outputs, errors))

    def put_back(
        self,
        runs: Sequence[tuple[str, str]],
        *,
        delay_seconds: float = 0.0,
        counted: bool = False,
    ) -> None:
        """Give claimed work, as `(run id, owner)`, back.

        Args:
            runs: What to give back.
            delay_seconds: When it is ready again; 0 is at once.
            counted: Whether it was an attempt.
        """
        if runs:
            ids, owners = map(list, zip(*runs, strict=True))
            self.database.fetch(_PUT_BACK, (ids, owners, int(delay_seconds * 1000), 0 if counted else 1))

    def release(self, runs: Sequence[tuple[str, str]], slot: Slot | None = None) -> None:
        """Give back work that runs, as `(run id, owner)`, uncounted, but for what a transaction of it has locked."""
        if runs:
            ids, owners = map(list, zip(*runs, strict=True))
            (slot.run if slot else self.database.fetch)(_RELEASE, (ids, owners))

    def move(self, runs: Sequence[tuple[str, str]], executor: str) -> None:
        """Note that runs, as `(run id, owner)`, are another executor's by name; they stay this process's."""
        if runs:
            ids, owners = map(list, zip(*runs, strict=True))
            self.database.fetch(_MOVE, (executor, ids, owners))

    def begun(self, run_id: str, owner: str) -> int:
        """Count how often suspect work began, this time included; gives the count.

        Raises:
            OwnershipLost: It is not this execution's any more.
        """
        rows = self.database.fetch(_SUSPECT, (run_id, owner))
        if not rows:
            raise OwnershipLost(run_id)
        return int(rows[0][0])

    def park(self, run_id: str, owner: str, *, waiting_for: str, limit_seconds: float) -> None:
        """Give claimed work back that nobody here knows; offered again after a while, each time twice as long."""
        self.database.fetch(_PARK, (waiting_for, int(limit_seconds * 1000), run_id, owner))

    def result(self, run_id: str) -> tuple[str, str | None, str | None, str | None] | None:
        """Read a run's status, serialisation, output and error; `None` if there is no such run."""
        rows = self.database.fetch(_RESULT, (run_id,))
        return (rows[0][0], rows[0][1], rows[0][2], rows[0][3]) if rows else None

    def payload(self, run_id: str) -> tuple[str, str] | None:
        """Read what a run is: its name and payload; `None` if there is no such run."""
        rows = self.database.fetch(_PAYLOAD, (run_id,))
        return (rows[0][0], rows[0][1]) if rows else None

    # -- dead executors

    def executors(self, slot: Slot) -> list[str]:
        """Name the executors with unfinished work."""
        return [name for (name,) in slot.run(_EXECUTORS, ())]

    def owners(self, executor: str, slot: Slot) -> list[str]:
        """List the tokens of the claims of an executor's unfinished work; none where the tables are only being made."""
        try:
            return [owner for (owner,) in slot.run(_OWNERS, (executor,))]
        except _NO_TABLES:
            return []

    def claims_held(self, slot: Slot) -> list[tuple[str, str, str]]:
        """List what is claimed of queues in the name of a slot, as `(run id, owner, name)`."""
        return [(run, owner, name) for run, owner, name in slot.run(_CLAIMS_HELD, (slot.name,))]

    def take_over(
        self, executors: Sequence[str], slot: Slot | None = None, *, owners: Sequence[str] | None = None
    ) -> list[tuple[str, str]]:
        """Make the unfinished work of dead executors ready again, for workers of its version; locks its rows.

        Only that of some claims if `owners` are given. Gives the runs as `(run id, executor)`. What a session still
        holds locked is left out.
        """
        claims = None if owners is None else list(owners)
        parameters = (DIRECT, list(executors), claims, claims)
        try:
            rows = (slot or self.database).run(_TAKE_OVER, parameters)
            return [(run, executor) for run, executor in rows]
        except _NO_TABLES as error:
            raise not_launched() from error


def not_launched() -> NotLaunched:
    """Make the error for background work in a database DBOS has never been launched on."""
    return NotLaunched(
        "The database has no tables for background work: call Eventic.launch() once, or `eventic migrate`."
    )
