"""Schedules of DAGs: fired once for each due time, changed, paused, caught up, overlapping; and backfills.

Time is not faked: a schedule is due every day, some seconds ago, and what is decided about it is set back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Annotated, Any
from uuid import uuid4

import psycopg
import pytest
from conftest import execute, until
from pydantic import AfterValidator

from eventic_core import (
    BlockingInLoop,
    DuplicateRegistration,
    Eventic,
    Invalid,
    InvalidBackfill,
    InvalidRecord,
    InvalidSchedule,
    InvalidStateError,
    NotRegistered,
    RecordDeleted,
    ResultTimeout,
)
from eventic_core.jobs import Backfill, DagRun, DeclaredDag, ExecutionStatus, Overlap, Schedule, dag, declared_dag, job
from eventic_core.runtime.queues import Handle

S = ExecutionStatus
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
GATE = threading.Event()
FAULTS: set[str] = set()


@pytest.fixture(autouse=True)
def afresh(workers: str) -> Iterator[None]:
    GATE.set()
    FAULTS.clear()
    yield
    GATE.set()
    for schedule in Schedule.where().all():
        schedule.delete()


def fitting(value: str) -> str:
    if FAULTS:
        raise ValueError("fits no more")
    return value


@job
def echo(due_at: datetime, text: Annotated[str, AfterValidator(fitting)] = "-") -> str:
    return f"{text} {due_at.isoformat()}"


@job
def gated() -> None:
    assert GATE.wait(100)


ECHO = dag("schedules: echo", echo)
GATED = dag("schedules: gated", gated, concurrency=64)


def looked_at(schedule: Schedule) -> None:
    """Wait until a worker has come to the last version of a schedule."""
    work = Handle[None](f"schedule-{schedule.id}-{schedule.version}")
    until(lambda: work.status() in ("DELAYED", "SUCCESS"))


def set_back(url: str, schedule: Schedule, by: timedelta) -> None:
    """Make a schedule one that no worker has come to for some time, and have one look at it."""
    looked_at(schedule)
    seconds = by.total_seconds()
    execute(
        url,
        f"update eventic.schedules set decided_until = clock_timestamp() - interval '{seconds} seconds' "
        f"where schedule_id = '{schedule.id}'",
    )
    schedule.refresh()
    schedule.touch()
    looked_at(schedule)


def ago(by: timedelta) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) - by


def daily(of: DeclaredDag, **options: Any) -> Schedule:
    """A schedule that is due every day, and was some seconds ago, before it was made."""
    given: dict[str, Any] = {"name": f"daily {uuid4().hex[:8]}", "anchor": ago(5 * SECOND), **options}
    return of.schedule("every day", **given)


def due_of(schedule: Schedule) -> list[datetime]:
    """The due times of a schedule's runs, oldest first."""
    return sorted(run.due_at for run in schedule.runs() if run.due_at is not None)


def days(schedule: Schedule, *before: int) -> list[datetime]:
    """The due times of a daily schedule so many days before the last one."""
    assert schedule.anchor is not None
    return [schedule.anchor - count * DAY for count in before]


def ended(run: DagRun) -> DagRun:
    return run.wait(timeout_seconds=100)


# -- firing


def test_each_due_time_has_one_run_with_what_the_schedule_says() -> None:
    schedule = ECHO.schedule("every second", overlap="allow", parameters={"text": "hi"}, client_id="acme")
    until(lambda: len(schedule.runs()) >= 3)
    schedule.pause()
    due = due_of(schedule)
    assert due == [due[0] + number * SECOND for number in range(len(due))]
    assert due[0] > schedule.history()[-1].stamp.recorded_at
    for run in map(ended, schedule.runs()):
        assert run.due_at is not None
        assert run.result("echo") == f"hi {run.due_at.isoformat()}"
        assert (run.schedule_id, run.client_id, run.dag) == (schedule.id, "acme", "schedules: echo")
        assert run.history()[-1].stamp.reason == "schedule schedules: echo"
    progress = schedule.progress()
    assert progress is not None
    assert (progress.missed, progress.skipped, progress.last_error) == (0, 0, None)
    assert [run.id for run in schedule.runs(limit=1)] == [schedule.runs()[0].id]


def test_a_schedule_that_is_declared_again_stores_nothing_until_it_says_something_else() -> None:
    options = {"zone": "Europe/Berlin", "parameters": {"text": "a"}, "starts_at": ago(DAY), "catch_up": DAY}
    first = ECHO.schedule("0 3 * * *", **options)
    first.pause()
    again = ECHO.schedule("0  3 * * *", **options)
    assert (again.id, again.version, again.paused) == (first.id, 1, True)
    changed = ECHO.schedule("0 3 * * *", **{**options, "parameters": {"text": "b"}})
    assert (changed.id, changed.version, changed.parameters) == (first.id, 2, {"text": "b"})
    assert changed.stamp.reason == "schedule"


def test_a_schedule_that_an_application_of_another_version_declares_goes_on_with_its_workers(workers: str) -> None:
    schedule = daily(ECHO, name="moved")
    looked_at(schedule)
    work = f"workflow_uuid = 'schedule-{schedule.id}-0'"
    execute(workers, f"update dbos.workflow_status set application_version = 'earlier' where {work}")
    again = daily(ECHO, name="moved", anchor=schedule.anchor)
    assert again.version == 0
    with psycopg.connect(workers) as connection:
        rows = connection.execute(f"select application_version from dbos.workflow_status where {work}").fetchall()
    assert rows == [("1",)]


async def schedule_in_loop() -> Schedule:
    with pytest.raises(BlockingInLoop, match="schedule_async"):
        ECHO.schedule("@daily")
    return await ECHO.schedule_async("@daily", overlap=Overlap.QUEUE)


def test_a_schedule_is_declared_in_an_event_loop() -> None:
    import asyncio

    assert asyncio.run(schedule_in_loop()).overlap is Overlap.QUEUE


def test_processes_that_start_at_once_make_one_schedule() -> None:
    made: list[Schedule] = []
    threads = [threading.Thread(target=lambda: made.append(daily(ECHO, name="at once"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({schedule.id for schedule in made}) == 1
    assert len(made) == 6


def test_next_due_times_are_within_start_and_end_and_follow_the_zone() -> None:
    zoned = ECHO.schedule("0 3 * * *", zone="Europe/Berlin", name="zoned")
    assert {moment.hour for moment in zoned.next_due(400)} == {1, 2}
    start = datetime.now(UTC).replace(microsecond=0) + 100 * DAY
    bounded = ECHO.schedule("every day", anchor=start, starts_at=start, ends_at=start + 2 * DAY, name="bounded")
    assert bounded.next_due(5) == [start, start + DAY]


def test_a_schedule_that_has_ended_or_not_begun_starts_nothing(workers: str) -> None:
    over = daily(GATED, ends_at=ago(10 * SECOND), catch_up=DAY)
    future = daily(GATED, starts_at=ago(-DAY), catch_up=DAY)
    for schedule in (over, future):
        set_back(workers, schedule, timedelta(hours=1))
        assert schedule.runs() == []
    assert over.next_due() == []
    until(lambda: Handle[None](f"schedule-{over.id}-{over.version}").status() == "SUCCESS")


# -- bad input


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ECHO.schedule("61 3 * * *"), InvalidSchedule, "the minute '61' is not valid"),
        (lambda: ECHO.schedule("every blink"), InvalidSchedule, "is no interval"),
        (lambda: ECHO.schedule("@daily", zone="Mars/Base"), InvalidSchedule, "Time zone 'Mars/Base' is not known"),
        (lambda: ECHO.schedule("0 0 30 2 *"), InvalidSchedule, "never comes"),
        (lambda: ECHO.schedule("@daily", overlap="maybe"), InvalidRecord, "overlap"),
        (lambda: ECHO.schedule("@daily", catch_up=-DAY), InvalidRecord, "catch_up_seconds"),
        (lambda: ECHO.schedule("@daily", parameters={"size": 1}), Invalid, "takes no parameter 'size'"),
        (lambda: ECHO.schedule("@daily", parameters={"text": 1}), Invalid, "argument 'text' does not fit"),
        (lambda: ECHO.schedule("@daily", starts_at=datetime(2026, 1, 1)), Invalid, "with a time zone"),  # noqa: DTZ001
        (lambda: ECHO.schedule("@daily", starts_at=ago(DAY), ends_at=ago(DAY)), InvalidSchedule, "before it starts"),
        (lambda: Schedule(name="x", dag="nobody's", schedule="@daily"), NotRegistered, 'No DAG "nobody\'s"'),
        (lambda: Schedule(name="x", dag=ECHO.name, schedule="bad"), InvalidSchedule, "has 1 field"),
        (lambda: Schedule(name=" ", dag=ECHO.name, schedule="@daily"), InvalidRecord, "name"),
    ],
)
def test_bad_schedules_are_refused_and_nothing_is_stored(
    make: Callable[[], Schedule], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()
    assert Schedule.where().count() == 0


def test_a_bad_change_is_refused_and_nothing_is_changed() -> None:
    schedule = daily(ECHO)
    for name, value in {"schedule": "never", "zone": "UTC", "parameters": {"size": 1}, "dag": "nobody's"}.items():
        with pytest.raises((InvalidSchedule, Invalid, NotRegistered)):
            setattr(schedule, name, value)
    schedule.refresh()
    assert schedule.version == 0


def test_a_name_is_of_one_dag_and_one_tenant() -> None:
    ECHO.schedule("@daily", name="taken")
    with pytest.raises(DuplicateRegistration, match="'taken' is there with dag='schedules: echo'"):
        GATED.schedule("@daily", name="taken")
    with pytest.raises(DuplicateRegistration, match="client_id=None, not 'acme'"):
        ECHO.schedule("@daily", name="taken", client_id="acme")


# -- due times that nobody came to


@pytest.mark.parametrize(
    ("catch_up", "expected", "missed"),
    [(None, [0], 3), (timedelta(0), [0], 3), (2 * DAY + 20 * SECOND, [2, 1, 0], 1), (9 * DAY, [3, 2, 1, 0], 0)],
)
def test_due_times_are_made_up_for_as_far_as_the_window_reaches(
    workers: str, catch_up: timedelta | None, expected: list[int], missed: int
) -> None:
    schedule = daily(ECHO, overlap="allow", catch_up=catch_up)
    set_back(workers, schedule, 3 * DAY + 20 * SECOND)
    assert due_of(schedule) == days(schedule, *expected)
    progress = schedule.progress()
    assert progress is not None
    assert progress.missed == missed
    set_back(workers, schedule, 3 * DAY + 20 * SECOND)
    assert len(schedule.runs()) == len(expected) or catch_up == 9 * DAY
    assert len(set(due_of(schedule))) == len(schedule.runs())


def test_of_what_was_missed_long_ago_the_latest_is_made_up_for_unless_that_is_ruled_out(workers: str) -> None:
    latest, none = (daily(ECHO, anchor=ago(DAY / 2), catch_up=catch_up) for catch_up in (None, timedelta(0)))
    for schedule in (latest, none):
        set_back(workers, schedule, 3 * DAY)
    assert due_of(latest) == days(latest, 0)
    assert due_of(none) == []


# -- overlaps


def overlapping(url: str, overlap: str) -> tuple[Schedule, DagRun]:
    """A schedule that came to be due while a run of it goes on."""
    GATE.clear()
    schedule = daily(GATED, overlap=overlap)
    running = schedule.run_now()
    set_back(url, schedule, 20 * SECOND)
    return schedule, running


def counted(schedule: Schedule) -> tuple[int, datetime | None]:
    progress = schedule.progress()
    assert progress is not None
    return progress.skipped, progress.waiting_due_at


def test_allow_starts_a_run_beside_the_other(workers: str) -> None:
    schedule, running = overlapping(workers, "allow")
    assert due_of(schedule) == days(schedule, 0)
    assert running.due_at is None
    GATE.set()
    assert {ended(run).status for run in schedule.runs()} == {S.COMPLETED}


def test_skip_leaves_the_due_time_out(workers: str) -> None:
    schedule, running = overlapping(workers, "skip")
    assert due_of(schedule) == []
    assert counted(schedule) == (1, None)
    GATE.set()
    ended(running)
    assert [run.id for run in schedule.runs()] == [running.id]


def test_queue_starts_the_run_when_the_other_ends(workers: str) -> None:
    schedule, running = overlapping(workers, "queue")
    assert due_of(schedule) == []
    assert counted(schedule) == (0, days(schedule, 0)[0])
    GATE.set()
    ended(running)
    until(lambda: due_of(schedule) == days(schedule, 0))
    assert counted(schedule) == (0, None)
    (run,) = (run for run in schedule.runs() if run.due_at)
    assert ended(run).started_at > running.finished_at


def test_queue_starts_the_run_when_the_other_is_cancelled_or_has_ended_already(workers: str) -> None:
    schedule, running = overlapping(workers, "queue")
    running.refresh()
    running.cancel("enough")
    until(lambda: due_of(schedule) == days(schedule, 0))


def test_only_one_due_time_waits(workers: str) -> None:
    GATE.clear()
    schedule = daily(GATED, overlap="queue", catch_up=9 * DAY)
    set_back(workers, schedule, 3 * DAY + 20 * SECOND)
    assert due_of(schedule) == days(schedule, 3)
    assert counted(schedule) == (2, days(schedule, 2)[0])
    GATE.set()
    until(lambda: due_of(schedule) == days(schedule, 3, 2))
    assert counted(schedule) == (2, None)


def test_what_waits_is_started_although_the_schedule_ends_or_changes_meanwhile(workers: str) -> None:
    schedule, running = overlapping(workers, "queue")
    schedule.update(overlap="skip", ends_at=ago(-SECOND))
    looked_at(schedule)
    GATE.set()
    ended(running)
    until(lambda: due_of(schedule) == days(schedule, 0))


def test_cancel_running_ends_the_other_run_first(workers: str) -> None:
    schedule, running = overlapping(workers, "cancel_running")
    assert due_of(schedule) == days(schedule, 0)
    assert ended(running).status == S.CANCELLED
    assert running.cancellation_reason == f"schedule {schedule.name!r} is due again"
    GATE.set()
    (run,) = (run for run in schedule.runs() if run.due_at)
    assert ended(run).status == S.COMPLETED


def test_cancel_running_starts_no_run_to_cancel_it_at_once(workers: str) -> None:
    schedule = daily(GATED, overlap="cancel_running", catch_up=9 * DAY)
    set_back(workers, schedule, 3 * DAY + 20 * SECOND)
    assert due_of(schedule) == days(schedule, 0)
    assert counted(schedule) == (3, None)


def test_runs_of_others_and_of_backfills_do_not_count(workers: str) -> None:
    GATE.clear()
    schedule = daily(GATED, overlap="skip")
    GATED.start()
    daily(GATED, overlap="skip").run_now()
    backfill = schedule.backfill(*(days(schedule, 4, 2)))
    until(lambda: len(backfill.runs()) == 1)
    set_back(workers, schedule, 20 * SECOND)
    assert days(schedule, 0)[0] in due_of(schedule)
    GATE.set()
    backfill.wait(timeout_seconds=100)


# -- steering


def test_a_paused_schedule_starts_nothing_and_resuming_leaves_out_the_pause(workers: str) -> None:
    schedule = daily(ECHO, catch_up=9 * DAY)
    looked_at(schedule)
    schedule.pause()
    schedule.pause()
    assert schedule.version == 1
    set_back(workers, schedule, DAY)
    assert schedule.runs() == []
    schedule.resume()
    looked_at(schedule)
    assert schedule.runs() == []
    assert not schedule.paused


def test_what_was_due_in_a_pause_is_made_up_for_if_asked(workers: str) -> None:
    schedule = daily(ECHO)
    looked_at(schedule)
    schedule.pause()
    set_back(workers, schedule, DAY / 2)
    schedule.resume(catch_up=True)
    until(lambda: due_of(schedule) == days(schedule, 0))


def test_resuming_drops_what_waited_before_the_pause(workers: str) -> None:
    schedule, running = overlapping(workers, "queue")
    schedule.pause()
    GATE.set()
    ended(running)
    schedule.resume()
    looked_at(schedule)
    assert due_of(schedule) == []
    assert counted(schedule) == (0, None)


CHANGES: dict[str, Callable[[Schedule], object]] = {
    "update": lambda schedule: schedule.update(parameters={"text": "new"}),
    "assignment": lambda schedule: setattr(schedule, "parameters", {"text": "new"}),
    "in place": lambda schedule: edit(schedule),
    "save": lambda schedule: schedule.model_copy(update={"parameters": {"text": "new"}}).save(),
    "apply": lambda schedule: Schedule.apply({**schedule.model_dump(), "parameters": {"text": "new"}}),
    "declared again": lambda schedule: daily(
        ECHO, **WEEKLY, name=schedule.name, anchor=schedule.anchor, parameters={"text": "new"}
    ),
    "restored": lambda schedule: restored(schedule),
}
WEEKLY: dict[str, Any] = {"overlap": "allow", "catch_up": 9 * DAY}


def edit(schedule: Schedule) -> None:
    with schedule.edit():
        schedule.parameters["text"] = "new"


def restored(schedule: Schedule) -> None:
    schedule.delete()
    Schedule.restore(schedule.id).update(parameters={"text": "new"})


@pytest.mark.parametrize("way", CHANGES)
def test_a_change_holds_from_the_next_run_on_whichever_way_it_is_made(workers: str, way: str) -> None:
    schedule = daily(ECHO, **WEEKLY, parameters={"text": "old"})
    set_back(workers, schedule, 20 * SECOND)
    CHANGES[way](schedule)
    schedule.refresh()
    looked_at(schedule)
    set_back(workers, schedule, 2 * DAY + 20 * SECOND)
    texts = {run.due_at: run.parameters["text"] for run in schedule.runs()}
    assert texts == dict(zip(days(schedule, 2, 1, 0), ("new", "new", "old"), strict=True))


def test_only_the_work_of_the_last_version_goes_on() -> None:
    schedule = ECHO.schedule("every second", overlap="allow", name="many versions")
    for number in range(5):
        schedule.parameters = {"text": str(number)}
    *earlier, last = (Handle[None](f"schedule-{schedule.id}-{version}") for version in range(6))
    until(lambda: all(work.status() == "SUCCESS" for work in earlier))
    until(lambda: len(schedule.runs()) >= 3)
    assert last.status() != "SUCCESS"
    schedule.delete()
    until(lambda: last.status() == "SUCCESS")
    assert len(set(due_of(schedule))) == len(schedule.runs())


def test_another_timetable_does_not_make_up_for_what_it_would_have_had_before(workers: str) -> None:
    schedule = daily(ECHO, catch_up=9 * DAY)
    looked_at(schedule)
    execute(
        workers,
        f"update eventic.schedules set decided_until = decided_until - interval '2 days' "
        f"where schedule_id = '{schedule.id}'",
    )
    schedule.schedule = "every 30 seconds"
    looked_at(schedule)
    assert schedule.runs() == []


def test_an_interval_that_is_changed_goes_on_by_the_new_one() -> None:
    schedule = ECHO.schedule("every hour", name="changed")
    looked_at(schedule)
    schedule.update(schedule="every second", overlap="allow")
    until(lambda: len(schedule.runs()) >= 2)
    schedule.schedule = "every hour"
    looked_at(schedule)
    count = len(schedule.runs())
    time.sleep(1.5)  # in which it would have been due
    assert len(schedule.runs()) == count


def test_a_deleted_schedule_has_ended_and_goes_on_when_it_is_brought_back(workers: str) -> None:
    schedule = daily(ECHO)
    looked_at(schedule)
    schedule.delete()
    with pytest.raises(RecordDeleted):
        schedule.run_now()
    with pytest.raises(RecordDeleted):
        schedule.backfill(ago(2 * DAY), ago(DAY))
    restored = Schedule.restore(schedule.id)
    set_back(workers, restored, 20 * SECOND)
    assert due_of(restored) == days(restored, 0)


def test_a_run_now_has_the_parameters_of_the_schedule_but_no_due_time() -> None:
    schedule = ECHO.schedule("@yearly", parameters={"text": "now"}, client_id="acme", name="by hand")
    schedule.pause()
    run = ended(schedule.run_now(correlation_id="ext-1"))
    assert (run.due_at, run.schedule_id, run.client_id, run.correlation_id) == (None, schedule.id, "acme", "ext-1")
    assert run.result("echo").startswith("now ")
    assert len({ended(schedule.run_now()).id, run.id}) == 2


def test_a_due_time_that_is_given_as_a_parameter_stays() -> None:
    schedule = daily(ECHO, parameters={"due_at": "2020-02-02T00:00:00Z"})
    assert ended(schedule.run_now()).result("echo") == "- 2020-02-02T00:00:00+00:00"


def test_a_run_that_cannot_be_started_does_not_end_the_schedule(workers: str) -> None:
    schedule = daily(ECHO, **WEEKLY, parameters={"text": "there"})
    looked_at(schedule)
    FAULTS.add("text")
    set_back(workers, schedule, DAY + 20 * SECOND)
    progress = schedule.progress()
    assert progress is not None
    assert progress.last_error is not None
    assert progress.last_error.startswith(f"No run for {days(schedule, 0)[0].isoformat()}: Job 'echo': argument 'text'")
    assert schedule.runs() == []
    FAULTS.clear()
    set_back(workers, schedule, DAY / 2)
    assert due_of(schedule) == days(schedule, 0)
    progress = schedule.progress()
    assert progress is not None
    assert progress.last_error is None


def test_a_worker_that_does_not_know_the_dag_leaves_it_to_one_that_does(workers: str) -> None:
    schedule = daily(ECHO)
    looked_at(schedule)
    known = declared_dag._dags.pop(ECHO.name)
    try:
        execute(
            workers,
            f"update eventic.schedules set decided_until = decided_until - interval '20 seconds' "
            f"where schedule_id = '{schedule.id}'",
        )
        schedule.touch()
        until(lambda: Handle[None](f"schedule-{schedule.id}-{schedule.version}").status() == "DELAYED")
        assert schedule.runs() == []
    finally:
        declared_dag._dags[ECHO.name] = known
    until(lambda: due_of(schedule) == days(schedule, 0))


def test_a_schedule_is_made_in_a_transaction_or_not_at_all() -> None:
    @Eventic.transaction()
    def make(*, fail: bool) -> None:
        daily(ECHO, name="in a transaction")
        if fail:
            raise KeyError("fail")

    with pytest.raises(KeyError):
        make(fail=True)
    assert Schedule.where().count() == 0
    make(fail=False)
    (schedule,) = Schedule.where().all()
    looked_at(schedule)


# -- backfills


def test_a_backfill_runs_for_each_due_time_of_a_range_that_has_no_run() -> None:
    schedule = daily(ECHO, parameters={"text": "then"})
    first, second, third, fourth = days(schedule, 9, 8, 7, 6)
    ended(ECHO.start(due_at=second)).update(schedule_id=schedule.id, due_at=second)
    backfill = schedule.backfill(first, fourth)
    backfill.wait(timeout_seconds=100)
    assert (backfill.status, backfill.due_count, backfill.started_count, backfill.skipped_count) == (
        S.COMPLETED,
        3,
        2,
        1,
    )
    assert backfill.progress() == (3, 1, 2, 2, 0)
    assert [(due.due_at, due.is_own) for due in backfill.due_times()] == [(first, True), (second, False), (third, True)]
    assert [run.due_at for run in backfill.runs()] == [first, third]
    assert {run.result("echo") for run in backfill.runs()} == {f"then {due.isoformat()}" for due in (first, third)}
    again = schedule.backfill(first, fourth).wait(timeout_seconds=100)
    assert again.progress() == (3, 3, 0, 0, 0)
    assert [one.id for one in schedule.backfills()] == [again.id, backfill.id]


@job
def lasting(due_at: str) -> str:
    time.sleep(0.03)
    return due_at


LASTING = dag("schedules: lasting", lasting)


def test_a_backfill_has_no_more_runs_at_a_time_than_it_may() -> None:
    schedule = daily(LASTING)
    backfill = schedule.backfill(*days(schedule, 14, 2), at_a_time=2).wait(timeout_seconds=100)
    assert backfill.progress() == (12, 0, 12, 12, 0)
    moments = []
    for run in backfill.runs():
        last, *_, first = run.history()
        moments += [(first.stamp.recorded_at, 1), (last.stamp.recorded_at, -1)]
    unfinished = list(accumulate(change for _moment, change in sorted(moments)))
    assert max(unfinished) == 2


def test_a_backfill_that_is_cancelled_starts_no_more() -> None:
    GATE.clear()
    schedule = daily(GATED)
    backfill, other = (schedule.backfill(*days(schedule, last, last - 5)) for last in (20, 10))
    until(lambda: backfill.runs() and other.runs())
    with pytest.raises(ResultTimeout, match="has not ended"):
        backfill.wait(timeout_seconds=0)
    backfill.cancel("enough")
    other.cancel("enough", runs=True)
    assert (other.runs()[0].status, other.runs()[0].cancellation_reason) == (S.CANCELLED, "enough")
    GATE.set()
    assert ended(backfill.runs()[0]).status == S.COMPLETED
    for one in (backfill, other):
        until(lambda one=one: Handle[None](f"backfill-{one.id}").status() == "SUCCESS")
        assert len(one.runs()) == 1
        assert one.status == S.CANCELLED
    with pytest.raises(InvalidStateError):
        backfill.cancel("twice")


def test_a_backfill_of_which_a_run_cannot_be_started_has_failed() -> None:
    schedule = daily(ECHO, parameters={"text": "there"})
    FAULTS.add("text")
    backfill = schedule.backfill(*days(schedule, 5, 3)).wait(timeout_seconds=100)
    assert backfill.status == S.FAILED
    assert backfill.error_summary is not None
    assert "fits no more" in backfill.error_summary


@pytest.mark.parametrize(
    ("start", "end", "options", "error", "message"),
    [
        (ago(DAY), ago(2 * DAY), {}, InvalidBackfill, "no time in it"),
        (ago(9 * DAY), ago(-DAY), {}, InvalidBackfill, "still to come"),
        (ago(2 * SECOND), ago(SECOND), {}, InvalidBackfill, "is not due from"),
        (ago(9 * DAY), ago(DAY), {"limit": 3}, InvalidBackfill, "more than 3 due times"),
        (ago(9 * DAY), ago(DAY), {"limit": 0}, Invalid, "1 or more"),
        (ago(9 * DAY), ago(DAY), {"at_a_time": 0}, InvalidRecord, "at_a_time"),
        (datetime(2026, 1, 1), ago(DAY), {}, Invalid, "with a time zone"),  # noqa: DTZ001
    ],
)
def test_bad_backfills_are_refused_and_nothing_is_stored(
    start: datetime, end: datetime, options: dict[str, int], error: type[Exception], message: str
) -> None:
    schedule = ECHO.schedule("every day", anchor=datetime(2026, 1, 1, 12, 34, 56, tzinfo=UTC), name="bad backfills")
    before = Backfill.where().count()
    with pytest.raises(error, match=message):
        schedule.backfill(start, end, **options)
    assert Backfill.where().count() == before
