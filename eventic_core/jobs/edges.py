"""Whether dependencies keep their DAG a DAG, asked in the transaction that writes them and with the DAG held.

Owns the check and its errors. What is pending in the open scope counts as written; what others have committed counts
too, since whoever writes waits for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID
from weakref import WeakKeyDictionary

from eventic_core.errors import CycleFound, InvalidDag, UnknownJob
from eventic_core.graph import Dag
from eventic_core.jobs.entities import Job, JobDependency
from eventic_core.records.editing import current_scope, edit_scope
from eventic_core.records.record_class import family
from eventic_core.store.job_graph import Edge, JobGraph, Place, Placed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from eventic_core.records.scope import Scope

__all__ = ["Place", "check_dependencies", "check_move", "check_restored", "place_of"]


class _Checked(NamedTuple):
    """A dependency, or with no edge a job, at the version it had when it was checked."""

    edge: Edge | None
    version: int


_checked: WeakKeyDictionary[Scope, dict[UUID, _Checked]] = WeakKeyDictionary()
"""What was checked in each open scope. All that are pending are checked with the first, so many cost what one does."""


def place_of(job: Job) -> Place:
    """Give the DAG and tenant of a job."""
    return Place(job.client_id, job.dag)


def check_dependencies(dependencies: Sequence[JobDependency]) -> None:
    """Refuse dependencies that cannot be written; holds their DAGs until the transaction ends.

    Raises:
        CycleFound: A job would wait for itself.
        UnknownJob: A job is not there, deleted, or another tenant's.
        InvalidDag: Two jobs are in different DAGs, or no scope is open.
    """
    scope = current_scope()
    if scope is None:
        raise _alone(dependencies[0])
    known = _checked.get(scope, {})
    if any(known.get(one.id) != _now(one) for one in dependencies):
        _Check(scope).run([*_pending(scope), *dependencies])


def check_restored(job: Job) -> None:
    """Refuse to bring a job back whose dependencies meanwhile would make a cycle; holds its DAG.

    Raises:
        CycleFound: They would.
        InvalidDag: It has some, and no scope is open.
    """
    scope = current_scope()
    if scope is not None:
        _Check(scope).run(_pending(scope), restored=job)
    elif _dependencies_of(job):
        raise _alone(job)


def check_move(job: Job, before: Place) -> None:
    """Refuse to move a job that has dependencies to another DAG or tenant; holds both DAGs.

    Raises:
        InvalidDag: It has some, or no scope is open.
    """
    scope = current_scope()
    if scope is None:
        raise _alone(job)
    _graph(scope).lock({before, place_of(job)})
    count = sum(not scope.is_deleting(UUID(dependency)) for dependency in _dependencies_of(job))
    if count:
        message = (
            f"Job {job.name!r} cannot move from {_in_words(before)} to {_in_words(place_of(job))}: it has "
            f"{count} dependencies. Delete them first. Nothing was stored."
        )
        raise InvalidDag(message)


class _Check:
    """One check of everything that a scope is about to write."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._graph = _graph(scope)
        self._known = _checked.get(scope, {})

    def run(self, dependencies: Iterable[JobDependency], *, restored: Job | None = None) -> None:
        """Check these, and remember that; see `check_dependencies` and `check_restored`."""
        new = {one.id: one for one in dependencies}
        self._known = {**self._known, **{one.id: _now(one) for one in new.values()}}
        jobs = self._jobs(new.values())
        starts: dict[Place, set[str]] = {}
        for one in new.values():
            starts.setdefault(_place(one, jobs), set()).update((str(one.job_id), str(one.depends_on_id)))
        if restored is not None:
            self._known[restored.id] = _Checked(None, restored.version)
            starts.setdefault(place_of(restored), set()).add(str(restored.id))
        self._graph.lock(starts)
        for place, changed in starts.items():
            self._refuse_cycle(place, changed)
        _checked[self._scope] = self._known
        self._scope.on_undo(lambda: _checked.pop(self._scope, None))

    def _jobs(self, dependencies: Iterable[JobDependency]) -> dict[str, Placed]:
        """Find the jobs of dependencies, as the scope has them or as they are stored."""
        ids = {job for one in dependencies for job in (one.job_id, one.depends_on_id)}
        own = {job: record for job in ids if isinstance(record := self._scope.find(job), Job)}
        found = self._graph.placed(str(job) for job in ids - own.keys())
        live = (record for record in own.values() if self._is_live(record))
        return {**found, **{str(record.id): Placed(record.name, place_of(record)) for record in live}}

    def _refuse_cycle(self, place: Place, changed: Iterable[str]) -> None:
        """Refuse a cycle through one of these jobs; there is none elsewhere.

        Raises:
            CycleFound: There is one.
            UnknownJob: One was moved away or deleted by whom this had to wait for.
        """
        names = self._names(place)
        for job in changed:
            if job not in names:
                raise _unknown(job, f" in {_in_words(place)}")
        upstream: dict[str, dict[str, None]] = {job: {} for job in names}
        for job, before in self._edges(names):
            if job in upstream and before in upstream:
                upstream[job][before] = None
        near = _reached(changed, upstream)
        try:
            Dag({job: before for job, before in upstream.items() if job in near})
        except CycleFound as error:
            raise CycleFound([names[job] for job in error.path]) from error

    def _names(self, place: Place) -> dict[str, str]:
        """Name the jobs of a DAG, with what the scope is about to write."""
        names = self._graph.names(place)
        for record in self._scope.records():
            if isinstance(record, Job):
                names.pop(str(record.id), None)
                if place_of(record) == place and self._is_live(record):
                    names[str(record.id)] = record.name
        return names

    def _edges(self, jobs: Iterable[str]) -> Iterable[Edge]:
        """List the dependencies of jobs, with what the scope is about to write."""
        edges = self._graph.edges(jobs)
        for record in self._scope.records():
            if self._scope.is_deleting(record.id):
                edges.pop(str(record.id), None)
        for dependency, (edge, version) in self._known.items():
            own: Any = self._scope.find(dependency)  # a row of create_many has no object of the scope
            if edge is not None and (own is None or own.version == version) and not self._scope.is_deleting(dependency):
                edges[str(dependency)] = edge
        return edges.values()

    def _is_live(self, job: Job) -> bool:
        """Tell whether a job of the scope is there after what is pending is written."""
        restored = self._known.get(job.id) == _Checked(None, job.version)
        return not self._scope.is_deleting(job.id) and (restored or not job.deleted)


def _graph(scope: Scope) -> JobGraph:
    tx: Any = scope.transaction
    return JobGraph(tx, jobs=family(Job), dependencies=family(JobDependency))


def _dependencies_of(job: Job) -> set[str]:
    """Give the ids of the stored dependencies of a job, in either direction."""
    with edit_scope() as scope:
        graph = _graph(scope)
        return {*graph.edges([str(job.id)]), *graph.edges([str(job.id)], "depends_on_id")}


def _pending(scope: Scope) -> list[JobDependency]:
    """List the dependencies that the scope is about to add or change; one to be brought back asks for itself."""
    return [
        record
        for record in scope.records()
        if isinstance(record, JobDependency)
        and not record.deleted
        and not scope.is_deleting(record.id)
        and not scope.is_held(record.id)
        and record._changes_graph()  # noqa: SLF001 - the dependency's other half
    ]


def _now(dependency: JobDependency) -> _Checked:
    return _Checked(Edge(str(dependency.job_id), str(dependency.depends_on_id)), dependency.version)


def _place(dependency: JobDependency, jobs: Mapping[str, Placed]) -> Place:
    """Tell which DAG a dependency is in.

    Raises:
        UnknownJob: A job is not there, or another tenant's.
        InvalidDag: Its jobs are in two.
    """
    for each in (dependency.job_id, dependency.depends_on_id):
        if str(each) not in jobs:
            raise _unknown(each)
    job, before = jobs[str(dependency.job_id)], jobs[str(dependency.depends_on_id)]
    if job.place.client_id != before.place.client_id:
        raise _unknown(dependency.depends_on_id, f" of {_tenant(job.place)}")
    if job.place.dag != before.place.dag:
        message = (
            f"Job {job.name!r} is part of {_in_words(job.place)}, {before.name!r} of {_in_words(before.place)}: "
            "one cannot wait for the other. Move one of them. Nothing was stored."
        )
        raise InvalidDag(message)
    return job.place


def _reached(starts: Iterable[str], upstream: Mapping[str, Iterable[str]]) -> set[str]:
    """Collect some jobs and all that come before them."""
    found: set[str] = set()
    left = list(starts)
    while left:
        job = left.pop()
        if job not in found:
            found.add(job)
            left += upstream.get(job, ())
    return found


def _unknown(job: UUID | str, where: str = "") -> UnknownJob:
    message = f"No job {job}{where} is stored, or it is deleted. Store the job before what depends on it."
    return UnknownJob(f"{message} Nothing was stored.")


def _alone(record: Job | JobDependency) -> InvalidDag:
    """Make the error for who asks about each record alone and writes later, as the undo of a run does."""
    name = type(record).__name__
    message = (
        f"{name} {record.id} cannot be brought back or changed by an undo, which does not hold its DAG meanwhile: "
        f"bring it back with {name}.restore(id), or change it by itself. Nothing was stored."
    )
    return InvalidDag(message)


def _tenant(place: Place) -> str:
    return "no tenant" if place.client_id is None else f"tenant {place.client_id!r}"


def _in_words(place: Place) -> str:
    return f"{'no DAG' if place.dag is None else f'DAG {place.dag!r}'} of {_tenant(place)}"
