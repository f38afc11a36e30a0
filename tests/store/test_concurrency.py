"""Many writers at once, in threads and in processes: nothing lost, nothing twice, no reader sees a hole."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from programs.ledger import LedgerCounter, rows, table_problems, versions

from eventic_core import Eventic, Record
from eventic_core.errors import Conflict, RecordNotFound, VersionConflict
from eventic_core.records.port import Cursor
from eventic_core.store import appends, postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from uuid import UUID

PROGRAMS = Path(__file__).parent / "programs"
PROCESSES, THREADS, INCREMENTS = 2, 8, 12
BOUND = "and xid < pg_snapshot_xmin(pg_current_snapshot())"
LATER_XID = ("greatest(pg_current_xact_id(), xid)", "greatest(pg_current_xact_id(), h.xid)")


class Shared(Record):
    """What the writers write."""

    text: str = ""
    number: int = 0


class Fields(Record, merge="disjoint"):
    """One field for each writer."""

    a: int = 0
    b: int = 0
    c: int = 0
    d: int = 0
    e: int = 0
    f: int = 0


def run_threads(*jobs: Callable[[], None]) -> None:
    """Run all at once and raise the first error of any."""
    errors: list[BaseException] = []
    begin = threading.Barrier(len(jobs))

    def run(job: Callable[[], None]) -> None:
        try:
            begin.wait(30)
            job()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def count_in_processes(url: str, record_id: UUID, method: str) -> dict[str, int]:
    """Raise the counter from processes of many threads that start together; gives what they did in sum."""
    command = [sys.executable, str(PROGRAMS / "count.py"), url, str(record_id), str(THREADS), str(INCREMENTS), method]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)
    ]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    done = {"commits": 0, "conflicts": 0}
    for process in started:
        output, _ = process.communicate(timeout=100)
        assert process.returncode == 0
        for name, number in json.loads(output).items():
            done[name] += number
    return done


def counter_problems(url: str, record_id: UUID, commits: int) -> list[str]:
    """Name what is wrong with a counter that was raised so often."""
    found = versions(url, record_id)
    problems = table_problems(url)
    if [version for version, _ in found] != list(range(commits + 1)):
        problems.append(f"{len(found)} versions after {commits} commits")
    if [document["value"] for _, document in found] != list(range(commits + 1)):
        problems.append(f"the value is {found[-1][1]['value']} after {commits} commits")
    return problems


def test_increments_with_retry_all_count(eventic: str) -> None:
    counter = LedgerCounter()
    done = count_in_processes(eventic, counter.id, "increment")
    assert done == {"commits": PROCESSES * THREADS * INCREMENTS, "conflicts": 0}
    assert counter_problems(eventic, counter.id, done["commits"]) == []
    counter.refresh()
    assert counter.value == PROCESSES * THREADS * INCREMENTS


def test_increments_without_retry_commit_or_conflict(eventic: str) -> None:
    counter = LedgerCounter()
    done = count_in_processes(eventic, counter.id, "increment_once")
    assert done["commits"] + done["conflicts"] == PROCESSES * THREADS * INCREMENTS
    assert done["conflicts"] > 0
    assert counter_problems(eventic, counter.id, done["commits"]) == []


def test_a_compare_and_swap_that_compares_nothing_loses_increments(
    eventic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other side: without the expected version in the statement the checks above find the loss."""
    counter = LedgerCounter()
    one, other = LedgerCounter.hydrate(counter.id), LedgerCounter.hydrate(counter.id)
    lean = (False, False)
    blind = (
        appends.APPEND_ONE[lean]
        .replace("and version = %s - 1", "and %s::int is not null")
        .replace("select %s, %s, %s, %s, %s::jsonb", "select %s, %s, %s + (select version from head), %s, %s::jsonb")
    )
    blind = blind.replace("select version_id, recorded_at, xid\n", "select version_id, recorded_at, xid, version\n")
    assert blind != appends.APPEND_ONE[lean]
    one.increment_once()
    monkeypatch.setitem(appends.APPEND_ONE, lean, blind)
    other.increment_once()
    assert "the value is 1 after 2 commits" in counter_problems(eventic, counter.id, 2)


# -- the change feed


class Reader:
    """Follows the feed of a class and notes what is wrong with it."""

    def __init__(self) -> None:
        self.cursor = Cursor()
        self.seen: list[tuple[UUID, int]] = []
        self.problems: list[str] = []
        self._last: dict[UUID, int] = {}

    def read(self, limit: int | None = None) -> None:
        for change in Shared.changes(after=self.cursor, limit=limit):
            if not change.cursor > self.cursor:
                self.problems.append(f"cursor {change.cursor} after {self.cursor}")
            if change.version != self._last.get(change.id, -1) + 1:
                self.problems.append(f"version {change.version} of {change.id} after {self._last.get(change.id)}")
            self._last[change.id] = change.version
            self.cursor = change.cursor
            self.seen.append((change.id, change.version))

    def read_to_the_end(self, url: str) -> None:
        """Read on until no transaction, of any database of the server, holds back what the table has."""
        drained = "select coalesce(pg_snapshot_xmin(pg_current_snapshot()) > max(xid), true) from eventic.records"
        while rows(url, drained) != [(True,)]:
            self.read()
        self.read()

    def compare(self, url: str) -> None:
        stored = rows(url, "select id, version from eventic.records where class_type = 'Shared'")
        if sorted(self.seen) != sorted(stored):
            self.problems.append(f"the feed has {len(self.seen)} versions, the table {len(stored)}")


def write_much(ids: Sequence[UUID], seed: int, rounds: int) -> None:
    """Create, assign, and change several records as one, also such that the transaction is older than what it reads."""
    chance = random.Random(seed)
    for number in range(rounds):
        kind = chance.choice(("create", "assign", "unit", "early", "early"))
        try:
            if kind == "create":
                Shared(text=f"{seed} {number}")
            elif kind == "assign":
                Shared.hydrate(chance.choice(ids)).text = f"{seed} {number}"
            elif kind == "unit":
                with Eventic.unit_of_work():
                    for key in chance.sample(ids, 3):
                        Shared.hydrate(key).number += 1
            else:
                with Eventic.unit_of_work():
                    Shared(text="early")
                    Shared.where(number=-1).count()  # writes it: the transaction has its id from here on
                    threading.Event().wait(chance.random() / 50)
                    for key in chance.sample(ids, 2):
                        Shared.hydrate(key).number += 1
        except VersionConflict:
            continue


def test_feed_skips_and_repeats_nothing_under_many_writers(eventic: str) -> None:
    ids = [Shared(text="shared").id for _ in range(6)]
    reader, ended = Reader(), threading.Event()

    def read() -> None:
        limits = random.Random(7)
        while not ended.is_set():
            reader.read(limits.choice((None, 1, 3, 20)))

    following = threading.Thread(target=read)
    following.start()
    try:
        run_threads(*(lambda seed=seed: write_much(ids, seed, 20) for seed in range(16)))
    finally:
        ended.set()
        following.join()
    reader.read_to_the_end(eventic)
    reader.compare(eventic)
    assert reader.problems == []
    assert table_problems(eventic) == []


def early_writer(meanwhile: Callable[[], None], then: Callable[[], None]) -> None:
    """Write in a transaction, let `meanwhile` happen in another thread, go on with `then`, commit."""
    with Eventic.unit_of_work():
        Shared(text="early")
        Shared.where(number=-1).count()
        run_threads(meanwhile)
        then()


def feed_of_a_late_commit(url: str) -> list[str]:
    """Read while an older transaction is open than one that has committed; give what is wrong with the feed."""
    Shared(text="first")
    reader = Reader()
    early_writer(lambda: (Shared(text="late"), reader.read()), lambda: None)
    reader.read_to_the_end(url)
    reader.compare(url)
    return reader.problems


def feed_of_a_late_read(url: str, *, together: int = 1) -> list[str]:
    """Let an old transaction write records on top of younger ones' versions; give what is wrong with the feed."""
    ids = [Shared(text="contended").id for _ in range(together)]

    def raise_all() -> None:
        for key in ids:
            Shared.hydrate(key).number += 1

    reader = Reader()
    early_writer(raise_all, raise_all)
    reader.read_to_the_end(url)
    reader.compare(url)
    return reader.problems


def test_feed_waits_for_an_older_transaction(eventic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two-sided: a feed that reads whatever is committed skips the late commit."""
    assert feed_of_a_late_commit(eventic) == []
    assert BOUND in postgres._CHANGES
    monkeypatch.setattr(postgres, "_CHANGES", postgres._CHANGES.replace(BOUND, ""))
    assert any("the feed has" in problem for problem in feed_of_a_late_commit(eventic))


@pytest.mark.parametrize("together", [1, 3])
def test_feed_orders_versions_of_an_old_transaction_last(
    eventic: str, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    """Two-sided: stamped with its own transaction id, the later version comes before the earlier."""
    assert feed_of_a_late_read(eventic, together=together) == []
    for forms, later in ((appends.APPEND_ONE, LATER_XID[0]), (appends.APPEND_MANY, LATER_XID[1])):
        for form, sql in forms.items():
            assert later in sql
            monkeypatch.setitem(forms, form, sql.replace(later, "pg_current_xact_id()"))
    assert any("version 2" in problem for problem in feed_of_a_late_read(eventic, together=together))


def test_first_write_of_a_class_holds_up_no_other_writer(eventic: str) -> None:
    """The note of a class that was never written before must not be a lock that lasts as long as the transaction."""

    class Novelty(Record):
        pass

    waiting = """select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"""
    with Eventic.unit_of_work():
        Novelty()
        Novelty.where().count()
        other = threading.Thread(target=Novelty)
        other.start()
        held_up = False
        while other.is_alive() and not held_up:
            held_up = bool(rows(eventic, waiting))
    other.join()
    assert not held_up
    assert Novelty.where().count() == 2


# -- as of


def busy_table() -> list[UUID]:
    """Give records whose versions follow each other as fast as threads can write them."""
    ids = [Shared(text="watched").id for _ in range(4)]

    def write(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(8):
            try:
                with Eventic.unit_of_work():
                    for key in chance.sample(ids, 2):
                        Shared.hydrate(key).number += 1
                Shared.hydrate(chance.choice(ids)).text += "."
            except VersionConflict:
                continue

    run_threads(*(lambda seed=seed: write(seed) for seed in range(4)))
    return ids


def as_of_problems(url: str, ids: Sequence[UUID]) -> Iterator[str]:
    """Ask for each record at, between and a microsecond beside its moments, and name every wrong answer."""
    for key in ids:
        moments = rows(url, "select recorded_at from eventic.records where id = %s order by version", key)
        recorded = [moment for (moment,) in moments]
        asked = set(recorded)
        for moment in recorded:
            asked |= {moment - timedelta(microseconds=1), moment + timedelta(microseconds=1)}
        asked |= {one + (other - one) / 2 for one, other in pairwise(recorded)}
        for moment in sorted(asked):
            expected = sum(1 for begin in recorded if begin <= moment) - 1
            try:
                found = Shared.as_of(moment).hydrate(key).version
            except RecordNotFound:
                found = -1
            if found != expected:
                yield f"version {found}, not {expected}, of {key} at {moment}"
        overlaps = rows(
            url,
            """select m.recorded_at from eventic.records m where id = %s and 1 <> (
               select count(*) from eventic.records r where r.id = m.id and r.recorded_at <= m.recorded_at
               and (r.superseded_at is null or r.superseded_at > m.recorded_at))""",
            key,
        )
        yield from (f"not one version of {key} at {moment}" for (moment,) in overlaps)


def test_as_of_finds_exactly_one_version_at_every_moment(eventic: str) -> None:
    ids = busy_table()
    assert table_problems(eventic) == []
    assert list(as_of_problems(eventic, ids)) == []


def test_as_of_check_sees_a_version_that_begins_late(eventic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side: with its first moment not counted in, a version is missed at that moment."""
    ids = busy_table()
    wrong = postgres._AT.replace("recorded_at <= %s", "recorded_at < %s")
    assert wrong != postgres._AT
    monkeypatch.setattr(postgres, "_AT", wrong)
    assert list(as_of_problems(eventic, ids)) != []


def test_table_check_sees_a_gap_between_versions(eventic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side: a version that begins a second after its predecessor ended leaves a gap."""
    record = Shared(text="watched")
    lean = (False, False)
    gap = appends.APPEND_ONE[lean].replace("%s, moment, xid", "%s, moment + interval '1 second', xid")
    assert gap != appends.APPEND_ONE[lean]
    monkeypatch.setitem(appends.APPEND_ONE, lean, gap)
    record.number = 1
    assert [problem.partition(":")[0] for problem in table_problems(eventic)] == [
        "superseded_at is not the next recorded_at"
    ]


def test_units_of_work_of_one_flush_show_whole_at_every_moment(eventic: str) -> None:
    """What one statement wrote to several records became current at one moment: nobody sees half of it, ever."""
    one, other = Shared(number=0), Shared(number=0)
    for _ in range(10):
        with Eventic.unit_of_work():
            one.number -= 1
            other.number += 1
    for (moment,) in rows(eventic, "select recorded_at from eventic.records where version > 0"):
        seen = [Shared.as_of(moment).hydrate(key).number for key in (one.id, other.id)]
        assert sum(seen) == 0, moment


# -- two records, opposite orders


def test_units_of_work_in_opposite_order_never_deadlock(eventic: str) -> None:
    ids = [Shared(text=name).id for name in "ab"]
    done: list[int] = []

    def write(order: Sequence[UUID]) -> None:
        for _ in range(60):
            try:
                with Eventic.unit_of_work():
                    for key in order:
                        Shared.hydrate(key).number += 1
                done.append(1)
            except VersionConflict:
                continue

    run_threads(*(lambda order=order: write(order) for order in (ids, ids[::-1], ids, ids[::-1])))
    assert [Shared.hydrate(key).number for key in ids] == [len(done)] * 2
    assert table_problems(eventic) == []


def test_deadlock_between_early_flushes_is_a_conflict(eventic: str) -> None:
    """Both hold the first record when they ask for the second: one of them wins, the other has a conflict."""
    ids = [Shared(text=name).id for name in "ab"]
    holding = threading.Barrier(2)
    done: list[int] = []
    refused: list[Exception] = []

    def write(order: Sequence[UUID]) -> None:
        first, second = map(Shared.hydrate, order)
        try:
            with Eventic.unit_of_work():
                first.number += 1
                Shared.where(number=-1).count()
                holding.wait(30)
                second.number += 1
            done.append(1)
        except Exception as error:  # noqa: BLE001 - judged below
            refused.append(error)
            assert [first.number, second.number] == [0, 0]
            assert [first.version, second.version] == [0, 0]

    run_threads(lambda: write(ids), lambda: write(ids[::-1]))
    assert len(done) == 1
    assert [Shared.hydrate(key).number for key in ids] == [1, 1]
    assert table_problems(eventic) == []
    assert [isinstance(error, Conflict) for error in refused] == [True], refused


def test_rows_locked_in_the_order_of_the_caller_deadlock(eventic: str) -> None:
    """The other side: Postgres does refuse such a pair, so the order in the statement is what prevents it."""
    ids = sorted(Shared(text=name).id for name in "ab")
    holding = threading.Barrier(2)
    refused: list[psycopg.Error] = []

    def lock(order: Sequence[UUID]) -> None:
        with psycopg.connect(eventic) as connection:
            try:
                for number, key in enumerate(order):
                    connection.execute("select from eventic.records where id = %s for update", (key,))
                    if number == 0:
                        holding.wait(30)
            except psycopg.errors.DeadlockDetected as error:
                refused.append(error)

    run_threads(lambda: lock(ids), lambda: lock(ids[::-1]))
    assert len(refused) == 1


# -- merging


def test_merging_writers_of_different_fields_all_succeed(eventic: str) -> None:
    record = Fields()
    names = sorted(name for name in Fields.model_fields if name != "properties")

    def write(name: str) -> None:
        own = Fields.hydrate(record.id)
        for number in range(1, 9):
            setattr(own, name, number)
            own.properties.add(**{f"p_{name}": number})

    run_threads(*(lambda name=name: write(name) for name in names))
    record.refresh()
    assert {name: getattr(record, name) for name in names} == dict.fromkeys(names, 8)
    assert dict(record.properties) == {f"p_{name}": 8 for name in names}
    assert record.version == len(names) * 16
    assert table_problems(eventic) == []
    for before, after in pairwise(versions(eventic, record.id)):
        changed = [name for name in names if before[1][name] != after[1][name]]
        assert len(changed) + (before[1]["properties"] != after[1]["properties"]) == 1


def test_merging_writers_of_one_field_conflict(eventic: str) -> None:
    record = Fields()
    one, other = Fields.hydrate(record.id), Fields.hydrate(record.id)
    one.a = 1
    with pytest.raises(VersionConflict) as caught:
        other.update(a=2, b=2)
    assert [fields for *_, fields in caught.value.changed] == [("a",)]
    assert (other.a, other.b, other.version) == (0, 0, 0)
    assert [document["a"] for _, document in versions(eventic, record.id)] == [0, 1]


def test_without_merge_writers_of_different_fields_conflict(eventic: str) -> None:
    """The other side: it is the class keyword that merges."""
    record = Shared()
    one, other = Shared.hydrate(record.id), Shared.hydrate(record.id)
    one.number = 1
    with pytest.raises(VersionConflict):
        other.text = "other"
