"""Jobs and their dependencies as a graph: read, and kept to one writer, in the transaction that changes it.

Owns the statements. What makes a graph valid is decided in `jobs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic_core import to_json

from eventic_core.errors import Invalid
from eventic_core.store.sql import statement

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from eventic_core.store.transaction import PostgresTransaction

Column = Literal["job_id", "depends_on_id"]
_LOCK = statement("lock_graphs")
_PLACES = statement("graph_places")
_JOBS = statement("graph_jobs")
_EDGES: dict[Column, str] = {
    "job_id": statement("graph_edges", column="job_id"),
    "depends_on_id": statement("graph_edges", column="depends_on_id"),
}


class Place(NamedTuple):
    """Which DAG of which tenant a job is part of; `None` is a value like others."""

    client_id: str | None
    dag: str | None

    @property
    def json(self) -> str:
        """The place as jobs store it."""
        return to_json(self._asdict()).decode()


class Placed(NamedTuple):
    """A job's name and place."""

    name: str
    place: Place


class Edge(NamedTuple):
    """A job, and one that it waits for; ids are text here, since a DAG may have tens of thousands."""

    job_id: str
    depends_on_id: str


class JobGraph:
    """The jobs and dependencies that a transaction sees; deleted ones take no part.

    Args:
        tx: The transaction.
        jobs: The stored names of the classes of jobs.
        dependencies: Those of dependencies.
    """

    def __init__(self, tx: PostgresTransaction, *, jobs: Sequence[str], dependencies: Sequence[str]) -> None:
        self._tx = tx
        self._job_types = list(jobs)
        self._dependency_types = list(dependencies)

    def lock(self, places: Iterable[Place]) -> None:
        """Wait until nobody else has changed what depends on what in these DAGs without having ended, and be the one.

        One lock for each DAG: who loads a large one holds up nobody else's.

        Raises:
            Invalid: The transaction, a caller's own, would not see what others have added.
            Conflict: Postgres ended it, since another one holds one of the DAGs and waits for one that it holds.
        """
        rows = self._fetch(_LOCK, (sorted(place.json for place in places),))
        level = rows[0][1]
        if level != "read committed":
            message = (
                f"Dependencies of jobs cannot be checked in a transaction that is {level}: it does not see what others "
                "have added since it began. Use one that is READ COMMITTED. Nothing was stored."
            )
            raise Invalid(message)

    def placed(self, jobs: Iterable[str]) -> dict[str, Placed]:
        """Read the names and places of jobs."""
        rows = self._fetch(_PLACES, {"jobs": list(jobs), "types": self._job_types})
        return {job: Placed(name, Place(client_id, dag)) for job, name, client_id, dag in rows}

    def names(self, place: Place) -> dict[str, str]:
        """Read the names of all jobs of a DAG, in the order they were made."""
        return dict(self._fetch(_JOBS, {"place": place.json, "types": self._job_types}))

    def edges(self, jobs: Iterable[str], column: Column = "job_id") -> dict[str, Edge]:
        """Read the dependencies with one of these jobs in a column, by their ids."""
        rows = self._fetch(_EDGES[column], {"jobs": list(jobs), "types": self._dependency_types})
        return {dependency: Edge(job, before) for dependency, job, before in rows}

    def _fetch(self, sql: str, parameters: Sequence[Any] | dict[str, Any]) -> list[tuple[Any, ...]]:
        return self._tx.run(lambda: self._tx.driver.execute(sql, parameters, prepare=False).fetchall())
