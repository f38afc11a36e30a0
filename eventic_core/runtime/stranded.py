"""The doctor's look at workers and work: who is alive, what nobody will take, and why.

A worker says with its beat which version it is of and which queues it serves. One of an older release says neither:
what it does tells. Work that has been ready for a minute, that nobody serves, and of whose kind nobody has anything in
hand or has lately ended anything, is stranded. Functions of values; reads nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from eventic_core.runtime.findings import duration, number, ok, problem, unread, warning
from eventic_core.runtime.queues import queue_name
from eventic_core.store.health import Unread
from eventic_core.store.work import DIRECT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventic_core.runtime.findings import Finding, Limits
    from eventic_core.store.health import Health, Running, Waiting, WorkerSession

T = TypeVar("T")

CHECKS: Final = ("workers", "paused", "parked", "stranded", "backlog", "dead_workers", "crashing", "dead_letters")
_SLOT: Final = re.compile(r"worker-\d+")
_SERVED_UNREGISTERED: Final = ("_dbos_", DIRECT)
_MOST_WORKERS: Final = 20
_NOW_SECONDS: Final = 60.0
"""Who ended work of a kind this short a time ago still does it."""


class _View(NamedTuple):
    """What can be told of the workers from what they do.

    Attributes:
        alive: Their slots.
        versions: The application version of each whose version is known.
        newest: The version that was launched last.
        done: Queues and versions of which somebody alive has something in hand, or lately had.
        served: Queues and versions that somebody alive says it serves.
        paused: Queues of which nothing is claimed.
    """

    target: str
    alive: frozenset[str]
    versions: dict[str, str]
    newest: str | None
    done: frozenset[tuple[str | None, str | None]]
    served: frozenset[tuple[str, str | None]]
    paused: frozenset[str]

    def version_of(self, version: str | None) -> str | None:
        """Give the version that does work of this one: what names none is for the newest."""
        return self.newest if version is None else version

    def runs(self, version: str | None) -> bool:
        """Tell whether somebody alive runs a version, or may: one that did nothing yet is taken for the newest."""
        wanted = self.version_of(version)
        known = set(self.versions.values())
        return wanted is None or wanted in known or (len(self.versions) < len(self.alive) and wanted == self.newest)

    def known(self) -> str:
        """Name the versions that are seen to run."""
        names = sorted(set(self.versions.values()))
        return f"live workers run {', '.join(names)}" if names else f"the newest is {self.newest}"

    def worker(self, version: str | None = None) -> str:
        """Write the command that starts a worker, of another version where one is given."""
        setting = "" if version is None else f"EVENTIC_APP_VERSION={version} "
        return f"`{setting}eventic worker {self.target}`"


def diagnose(found: Health, target: str, limits: Limits) -> Iterator[Finding]:
    """Judge the workers, the work that waits, the work in hand and what was given up; see `doctor.diagnose`."""
    if isinstance(found.workers, Unread):
        for check in CHECKS:
            yield unread(check, found.workers)
        return
    view = _view(found, target)
    yield from _workers(found, view, limits)
    yield from _paused(found)
    yield from _waiting(found, view, limits)
    yield from _held(found, view)
    yield from _crashing(found)
    yield from _letters(found)


def _view(found: Health, target: str) -> _View:
    alive = {worker.slot: worker for worker in _read(found.workers)}
    versions: dict[str, str] = {}
    done: set[tuple[str | None, str | None]] = set()
    for end in sorted(_read(found.ended), key=lambda end: -end.seconds):
        holder = alive.get(end.executor)
        if holder is not None and (holder.up_seconds is None or end.seconds <= holder.up_seconds):
            if end.version is not None:
                versions[end.executor] = end.version
            if end.seconds <= _NOW_SECONDS:
                done.add((end.queue, end.version))
    for run in _read(found.running):
        if run.executor in alive:
            done.add((run.queue, run.version))
            if run.version is not None and run.executor is not None:
                versions[run.executor] = run.version
    newest = None if isinstance(found.newest_version, Unread) else found.newest_version
    versions |= {worker.slot: worker.version for worker in alive.values() if worker.version is not None}
    served = {(queue, worker.version) for worker in alive.values() for queue in worker.queues or ()}
    paused = {pause.queue for pause in _read(found.paused)}
    return _View(target, frozenset(alive), versions, newest, frozenset(done), frozenset(served), frozenset(paused))


def _read(facts: list[T] | Unread) -> list[T]:
    return [] if isinstance(facts, Unread) else facts


# -- workers


def _workers(found: Health, view: _View, limits: Limits) -> Iterator[Finding]:
    workers = _read(found.workers)
    load = {
        worker.slot: sum(run.run_count for run in _read(found.running) if run.executor == worker.slot)
        for worker in workers
    }
    for worker in workers[:_MOST_WORKERS]:
        yield _worker(worker, view, load[worker.slot], limits)
    if len(workers) > _MOST_WORKERS:
        yield ok("workers", f"and {len(workers) - _MOST_WORKERS} more")
    if workers:
        return
    if any(map(bool, (_read(found.ready), _read(found.running), _overdue(found, limits)))):
        yield problem("workers", "none is alive, and there is work to do", f"start {view.worker()}.")
    elif found.revisions.dbos_found is None:
        yield ok("workers", "none, and nothing for them to do yet")
    else:
        yield warning("workers", "none is alive; what is enqueued will wait", f"start {view.worker()}.")


def _worker(worker: WorkerSession, view: _View, load: int, limits: Limits) -> Finding:
    if worker.up_seconds is None:
        return ok(
            "workers",
            f"{worker.slot} is alive, {number(load, is_more=False)} in hand; more is not visible to this role",
        )
    version = view.versions.get(worker.slot)
    draining = ", takes no more work" if worker.is_draining else ""
    seen = "not seen to ask" if worker.seen_seconds is None else f"last seen {duration(worker.seen_seconds)} ago"
    line = (
        f"{worker.slot} on {worker.machine}, up {duration(worker.up_seconds)}, {seen}, "
        f"version {version or 'not known yet'}, {number(load, is_more=False)} in hand{draining}"
    )
    if worker.seen_seconds is not None and worker.seen_seconds > limits.seen_seconds:
        remedy = "it hangs, is stopped or cut off: a live worker takes its runs over within 30 s. Kill the process."
        return problem("workers", line, remedy)
    return ok("workers", line)


def _paused(found: Health) -> Iterator[Finding]:
    if isinstance(found.paused, Unread) and not found.paused.is_absent:
        yield unread("paused", found.paused)
        return
    for pause in _read(found.paused):
        line = f"{pause.queue} for {duration(pause.seconds)}, by {pause.by or 'nobody named'}: its work waits"
        yield warning("paused", line, f"`eventic queue resume {pause.queue}` when it may go on.")
    if not _read(found.paused):
        yield ok("paused", "no queue is")


# -- work that waits


def _overdue(found: Health, limits: Limits) -> list[Waiting]:
    return [group for group in _read(found.delayed) if group.oldest_seconds > limits.ready_seconds]


def _waiting(found: Health, view: _View, limits: Limits) -> Iterator[Finding]:
    if isinstance(found.ready, Unread):
        for check in ("parked", "stranded", "backlog"):
            yield unread(check, found.ready)
        return
    parked = [group for group in found.ready + _read(found.delayed) if group.waiting_for is not None]
    yield from _parked(parked, limits)
    plain = [
        group
        for group in found.ready + _overdue(found, limits)
        if group.waiting_for is None and queue_name(group.queue) not in view.paused
    ]
    stranded = {group: cause for group in plain if (cause := _cause(group, found, view, limits)) is not None}
    for group, (why, remedy) in stranded.items():
        yield problem("stranded", f"{_work(group)}: {why}", remedy)
    if not stranded:
        yield ok("stranded", "nothing")
    yield _backlog([group for group in plain if group not in stranded], found, limits)


def _work(group: Waiting) -> str:
    version = "any version" if group.version is None else f"version {group.version}"
    count = number(group.run_count, is_more=group.is_more)
    return f"{count} of {version} on {group.queue or 'no queue'}, the first ready for {duration(group.oldest_seconds)}"


def _cause(group: Waiting, found: Health, view: _View, limits: Limits) -> tuple[str, str] | None:
    """Say why nobody will take work, and what to do; `None` of work that is new, or whose turn will come."""
    queue = next((queue for queue in _read(found.queues) if queue.name == group.queue), None)
    if queue is not None and queue.has_lanes and group.keyless:
        remedy = "cancel it (`eventic run cancel ID`) and enqueue it with key=, or on a queue without lanes."
        return "the queue has lanes, and this has no key: nobody ever takes it", remedy
    if group.oldest_seconds <= limits.ready_seconds or (group.queue, view.version_of(group.version)) in view.done:
        return None
    if (queue_name(group.queue), view.version_of(group.version)) in view.served:
        return None
    is_unregistered = queue is None and not group.queue.startswith(_SERVED_UNREGISTERED)
    if is_unregistered and not isinstance(found.queues, Unread):
        remedy = f"see whether the name is right; a worker serves it after `Eventic.queue({group.queue!r})`."
        return "no worker serves the queue: it is not registered", remedy
    if not view.alive:
        return "no worker is alive", f"start {view.worker()}."
    if not view.runs(group.version):
        version = view.version_of(group.version)
        remedy = f"start {view.worker(version)} until it is done, or cancel each run and `eventic run fork` it."
        return f"nobody runs application version {version}; {view.known()}", remedy
    if queue is not None and queue.is_limited:
        return None
    remedy = f"start {view.worker()} that defines what the queue is for, and with --queue {group.queue} if it chooses."
    return "no live worker takes it: none serves the queue", remedy


def _parked(parked: list[Waiting], limits: Limits) -> Iterator[Finding]:
    """Judge work that a worker took and gave back, for it lacked the class, function or handler it is for."""
    alike: dict[tuple[str, str | None], list[Waiting]] = {}
    for group in parked:
        alike.setdefault((group.queue, group.waiting_for), []).append(group)
    for (queue, waiting_for), groups in alike.items():
        times = max(group.times for group in groups)
        count = number(sum(group.run_count for group in groups), is_more=any(group.is_more for group in groups))
        line = f"{count} on {queue} given back up to {times} times; a worker that took it did not have: {waiting_for}"
        remedy = (
            "deploy the code that has it to the workers of the queue, or cancel the runs (`eventic run cancel ID`)."
        )
        make = problem if times >= limits.given_back_times else warning
        yield make("parked", line, remedy)
    if not parked:
        yield ok("parked", "nothing was given back")


def _backlog(waiting: list[Waiting], found: Health, limits: Limits) -> Finding:
    oldest = max(waiting, key=lambda group: group.oldest_seconds, default=None)
    if oldest is None:
        return ok("backlog", "nothing that somebody will take is waiting")
    line = f"the oldest that somebody will take: {_work(oldest)}"
    if oldest.oldest_seconds <= limits.ready_seconds:
        return ok("backlog", line)
    if any(queue.name == oldest.queue and queue.is_limited for queue in _read(found.queues)):
        return warning("backlog", f"{line}; the queue is limited", "wait, or raise the limit= or rate= of the queue.")
    return warning("backlog", line, "it is being done, but not as fast as it comes: start more workers.")


# -- work in hand


def _held(found: Health, view: _View) -> Iterator[Finding]:
    """Judge runs whose executor is dead: a live worker of their version takes them over."""
    if isinstance(found.running, Unread):
        yield unread("dead_workers", found.running)
        return
    held: dict[tuple[str, str | None], list[Running]] = {}
    for run in found.running:
        if run.executor not in view.alive:
            held.setdefault((run.executor or "nobody", run.version), []).append(run)
    for (executor, version), runs in held.items():
        count = number(sum(run.run_count for run in runs), is_more=runs[0].is_more)
        line = f"{count} of version {version} in the hands of {executor}"
        if not _SLOT.fullmatch(executor):
            remedy = "see what it is: `eventic run list --status pending` names them."
            yield warning(
                "dead_workers", f"{line}, which is no worker of eventic's: whether it lives is unknown", remedy
            )
        elif not view.alive:
            yield problem("dead_workers", f"{line}, which is dead, as all are", f"start {view.worker(version)}.")
        elif not view.runs(version):
            line = f"{line}, which is dead, and nobody runs that version; {view.known()}"
            remedy = f"start {view.worker(version)} until they are done, or cancel each and `eventic run fork` it."
            yield problem("dead_workers", line, remedy)
        else:
            remedy = "look again in 30 s; if they are still there, read the log of a live worker."
            yield warning("dead_workers", f"{line}, which is dead: a live worker is to take them over", remedy)
    if not held:
        yield ok("dead_workers", "nothing is in the hands of a dead one")


def _crashing(found: Health) -> Iterator[Finding]:
    if isinstance(found.running, Unread):
        yield unread("crashing", found.running)
        return
    again = [run for run in found.running if run.begun > 1]
    for run in again:
        line = f"a run on {run.queue} was begun {run.begun} times and not ended: it may kill its workers"
        remedy = f"see the workers' logs and memory; `eventic run list --queue {run.queue} --status pending` names it."
        yield warning("crashing", line, remedy)
    if not again:
        yield ok("crashing", "no run in hand was begun before")


def _letters(found: Health) -> Iterator[Finding]:
    if isinstance(found.letters, Unread):
        yield unread("dead_letters", found.letters)
        return
    for letters in found.letters:
        count = number(letters.letter_count, is_more=letters.is_more, of="open dead letter")
        line = f"{count} of handler {letters.handler}, the first from {duration(letters.oldest_seconds)} ago"
        remedy = f"`eventic dead-letter list --handler {letters.handler}`; mend the cause, then retry or discard them."
        yield warning("dead_letters", line, remedy)
    if not found.letters:
        yield ok("dead_letters", "none is open")
