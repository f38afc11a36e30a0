"""Runs of DAGs, as a table: how far each is, in a letter for each job. What the letters mean is decided in `jobs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import from_json, to_json

from eventic_core.store.groups import NEVER_MS
from eventic_core.store.sql import statement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from eventic_core.store.postgres import PostgresStore
    from eventic_core.store.transaction import PostgresTransaction

_OPEN = statement("open_dag_run")
_READ = statement("dag_run")
_PLAN = statement("dag_plan")
_HOLD = statement("hold_dag_run")
_NOTE = statement("note_dag_run")
_PARK = statement("park_dag_run")
_HEADS = statement("job_heads")
_COMPLETE_GROUP = statement("complete_group")
_DROP_GROUPS = statement("drop_groups")
_PARK_JOBS = statement("park_jobs")
_RELEASE_GROUPS = statement("release_groups")
_LOOK_AGAIN_MS = 60_000
"""After this long a run that waits looks for itself, should nobody have woken it."""


class DagRunRow(NamedTuple):
    """How far a run is.

    Attributes:
        workflow_id: Of its latest attempt.
        state: `running`, `paused`, `done` (all jobs have ended, the run is about to) or `ended`.
        letters: The state of each job.
        refused: To the place of a job those of the branches that did not choose it.
        parameters: JSON data.
    """

    workflow_id: str
    dag: str
    state: str
    letters: str
    refused: dict[int, list[int]]
    parameters: dict[str, Any]
    started_at: datetime
    changed_at: datetime


class Held(NamedTuple):
    """How far a run is that nobody else moves meanwhile."""

    state: str
    letters: list[str]
    refused: dict[int, list[int]]
    workflow_id: str


class JobHead(NamedTuple):
    """A job run's current version; `data` is JSON text."""

    id: UUID
    version: int
    data: str


class DagRunTable:
    """Runs of DAGs on one database."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    def open(
        self,
        run_id: UUID,
        dag: str,
        tx: PostgresTransaction,
        *,
        letters: str,
        plan: Mapping[str, Any],
        parameters: Mapping[str, Any],
    ) -> None:
        """Make the row of a new run, whose workflow has its id."""
        documents = (to_json(plan).decode(), to_json(parameters).decode())
        tx.fetch(_OPEN, (run_id, str(run_id), dag, letters, *documents))

    def read(self, run_id: UUID, tx: PostgresTransaction | None = None) -> DagRunRow | None:
        """Read how far a run is; `None` if it is none of a DAG."""
        rows = (tx or self._store.database).fetch(_READ, (run_id,))
        if not rows:
            return None
        workflow_id, dag, state, letters, refused, parameters, *moments = rows[0]
        return DagRunRow(workflow_id, dag, state, letters, _places(refused), from_json(parameters), *moments)

    def plan(self, run_id: UUID, tx: PostgresTransaction | None = None) -> dict[str, Any] | None:
        """Read what comes after what in a run, as JSON data; `None` if it is none of a DAG."""
        rows = (tx or self._store.database).fetch(_PLAN, (run_id,))
        plan: dict[str, Any] | None = from_json(rows[0][0]) if rows else None
        return plan

    def hold(self, run_id: UUID, tx: PostgresTransaction) -> Held:
        """Read how far a run is, and keep others from moving it until the transaction ends."""
        state, letters, refused, workflow_id = tx.fetch(_HOLD, (run_id,))[0]
        return Held(state, list(letters), _places(refused), workflow_id)

    def note(
        self, run_id: UUID, held: Held, state: str, tx: PostgresTransaction, *, workflow_id: str | None = None
    ) -> None:
        """Store how far a run is now; its workflow goes on if it is `done` or `ended`. A new attempt has a new one."""
        refused = to_json({str(place): branches for place, branches in held.refused.items()}).decode()
        letters = "".join(held.letters)
        parameters = {"run": run_id, "letters": letters, "refused": refused, "state": state, "workflow": workflow_id}
        tx.fetch(_NOTE, parameters)

    def park(self, run_id: UUID, workflow_id: str, owner: str) -> bool:
        """Let a run wait for its jobs; false if it has not to."""
        parameters = {"run": run_id, "id": workflow_id, "owner": owner, "again": _LOOK_AGAIN_MS}
        with self._store.transaction() as tx:
            self.hold(run_id, tx)
            return bool(tx.fetch(_PARK, parameters))

    def heads(self, ids: Sequence[UUID], tx: PostgresTransaction | None = None) -> dict[UUID, JobHead]:
        """Read the current versions of some job runs, those there are."""
        if not ids:
            return {}
        rows = (tx or self._store.database).fetch(_HEADS, (list(ids),))
        return {row[0]: JobHead._make(row) for row in rows}

    def complete_group(self, group_id: str, owner: str, tx: PostgresTransaction) -> bool:
        """End a group's work; false if it is somebody else's."""
        return bool(tx.fetch(_COMPLETE_GROUP, {"id": group_id, "owner": owner, "waiting": None}))

    def park_group(self, run_id: UUID, group_id: str, owner: str) -> bool:
        """Let a group wait while its run is paused; false if it is not paused."""
        return bool(self._store.database.fetch(_PARK_JOBS, (run_id, NEVER_MS, group_id, owner)))

    def release_groups(self, workflow_id: str, tx: PostgresTransaction) -> None:
        """Let the groups of a run that was paused go on."""
        tx.fetch(_RELEASE_GROUPS, (workflow_id, NEVER_MS))

    def drop_groups(self, workflow_id: str, tx: PostgresTransaction) -> None:
        """Let groups of a run that have not begun never begin."""
        tx.fetch(_DROP_GROUPS, (workflow_id,))


def _places(refused: Mapping[str, list[int]]) -> dict[int, list[int]]:
    return {int(place): branches for place, branches in refused.items()}
