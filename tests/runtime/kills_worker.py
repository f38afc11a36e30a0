"""The worker that `test_kills` kills: workflows with ten records and follow-ups, a handler; and planted bugs."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from uuid import UUID

from eventic_core import Eventic, Record, on
from eventic_core.runtime import handling, journal, recorder
from eventic_core.store import appends, postgres, work

ITEMS = 10
NOTED = "::bigint, %s from ready"


class Source(Record, class_type="CrashSource"):
    """Read by the workflows while somebody else changes it."""

    number: int = 0


class Item(Record, class_type="CrashItem"):
    """Ten of them are written by each run."""

    run: str
    place: int
    seen: int
    branch: str = ""


class Follow(Record, class_type="CrashFollow"):
    """One for each follow-up."""

    run: str
    place: int


class Noted(Record, class_type="CrashNoted"):
    """One for each version of an item that a handler has seen."""

    item: UUID
    of_version: int


queue = Eventic.queue("crash", concurrency=4)


@Eventic.transaction()
def follow(run: str, place: int) -> None:
    """The follow-up."""
    Follow(run=run, place=place)


@Eventic.workflow()
def ten(run: str, source: UUID) -> list[tuple[int, str]]:
    """Write ten records, twice each, by what was read; give what was seen and done."""
    done = []
    for place in range(ITEMS):
        seen = Source.hydrate(source).number
        item = Item(run=run, place=place, seen=seen)
        branch = "even" if Source.hydrate(source).number % 2 == 0 else "odd"
        if branch == "even":
            item.branch = branch
        else:
            with item.edit(reason="odd"):
                item.branch = branch
        queue.enqueue(follow, run, place)
        done.append((seen, branch))
    return done


@on.create(Item)
@on.update(Item)
def note(item: Item) -> None:
    """Write a record for each version."""
    Noted(item=item.id, of_version=item.version)


def forget_checkpoints() -> None:
    """Planted: steps leave no row."""
    for forms in (appends.CREATE_ONE, appends.APPEND_ONE, appends.APPEND_MANY, work._ENQUEUE):
        for form, sql in forms.items():
            assert NOTED in sql or not form[0]
            forms[form] = sql.replace(NOTED, f"{NOTED} where false")


def forget_reads() -> None:
    """Planted: reads in a body are not recorded."""
    recorder.RecordingStore.head = lambda self, record_id, tx=None: self._store.head(record_id)  # type: ignore[method-assign]


def make_new_ids() -> None:
    """Planted: enqueued work gets another id each time the run is repeated, and is not recorded."""

    def enqueue(self: journal.StatementJournal, name: str, make: object) -> object:
        made = make(self._next())._replace(id=os.urandom(8).hex())  # type: ignore[operator]
        self.store.enqueue([made])
        return made

    journal.StatementJournal.enqueue = enqueue  # type: ignore[assignment, method-assign]


def forget_progress() -> None:
    """Planted: what a handler is done with is noted after its transaction, not in it."""
    inside = handling.Handling.advance

    def later(self: handling.Handling, done: object, tx: object) -> None:
        def note() -> None:
            if "DIE_IN_HANDLER" in os.environ:
                os.kill(os.getpid(), signal.SIGKILL)
            inside(self, done, None)  # type: ignore[arg-type]

        if tx is None:
            note()
        else:
            tx.on_commit(note)  # type: ignore[attr-defined]

    handling.Handling.advance = later  # type: ignore[method-assign]


PLANTS = {plant.__name__: plant for plant in (forget_checkpoints, forget_reads, make_new_ids, forget_progress)}


def die_after(commits: int) -> None:
    """Kill this process right after so many transactions of runs have committed, before anybody hears of it."""
    lock, left = threading.Lock(), [commits]

    def count() -> None:
        with lock:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    inside_append, inside_enqueue = postgres.PostgresStore.append, postgres.PostgresStore.enqueue
    inside_commit = postgres.PostgresTransaction.commit

    def append(self: object, *args: object, **kwargs: object) -> object:
        written = inside_append(self, *args, **kwargs)  # type: ignore[arg-type]
        if kwargs.get("checkpoint") is not None:
            count()
        return written

    def enqueue(self: object, *args: object, **kwargs: object) -> None:
        inside_enqueue(self, *args, **kwargs)  # type: ignore[arg-type]
        if len(args) < 2 or args[1] is None:
            count()

    def commit(self: postgres.PostgresTransaction) -> None:
        then, self._after_commit = self._after_commit, [count]
        self._after_commit += then
        inside_commit(self)

    postgres.PostgresStore.append = append  # type: ignore[assignment, method-assign]
    postgres.PostgresStore.enqueue = enqueue  # type: ignore[assignment, method-assign]
    postgres.PostgresTransaction.commit = commit  # type: ignore[method-assign]


def main() -> None:
    """Work until killed."""
    plant, commits = os.environ.get("PLANT"), int(os.environ.get("DIE_AFTER", "0"))
    if plant:
        PLANTS[plant]()
    if commits:
        die_after(commits)
    Eventic.init(name="crash", database_url=sys.argv[1])
    Eventic.launch()
    faulthandler.register(signal.SIGUSR1)
    sys.stdout.write("launched\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    main()
