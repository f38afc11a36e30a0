"""Undoing a run: inverse versions, conflicts, unique keys, and an undo that is killed and called again.

As a program, `test_undo.py URL RUN` undoes a run slowly, to be killed.
"""

from __future__ import annotations

import asyncio
import pickle
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psycopg
import pytest

from eventic_core import Eventic, Invalid, Record, RecordNotFound, ScopeError
from eventic_core.automation.executions import BatchExecution, ItemExecution
from eventic_core.automation.orchestration import Engine, OrchestrationInstance
from eventic_core.automation.run import Run
from eventic_core.automation.run_changes import changes
from eventic_core.automation.undo import UndoReport, plan_undo, undo, undo_async
from eventic_core.errors import BlockingInLoop, InvalidRecord, InvalidStateError, NotRegistered
from eventic_core.records.record_class import find_class
from eventic_core.records.stamp import running

if TYPE_CHECKING:
    from collections.abc import Callable

SLOWLY = __name__ == "__main__"
RECORDS = 4_000


class Account(Record, class_type="UndoAccount"):
    name: str
    balance: int = 0
    tags: list[str] = []


class Seat(Record, class_type="UndoSeat", unique=["place"]):
    place: str
    taken: bool = False


class Careful(Record, class_type="UndoCareful"):
    """Lets tests do something, or refuse, just before a version of it is written."""

    text: str

    def _before_store(self) -> None:
        if SLOWLY:
            time.sleep(0.001)
        for act in ACTS.copy():
            act(self)


ACTS: list[Callable[[Careful], None]] = []
pytestmark = pytest.mark.usefixtures("eventic")


@pytest.fixture
def acts() -> Any:
    yield ACTS
    ACTS.clear()


def started(**values: Any) -> Run:
    run = Run(automation_id=uuid4(), **values)
    run.start()
    return run


def item(run: Run, number: int = 1) -> Any:
    workflow_id = str(run.id) if run.attempt == 1 else f"{run.id}:{run.attempt}"
    return running(workflow_id=workflow_id, step_id=number)


def redriven(run: Run) -> None:
    run.fail()
    run.update(status="RETRYING", attempt=run.attempt + 1)
    run.start()


def count_versions(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("select count(*) from eventic.records").fetchone()
    assert row is not None
    return int(row[0])


def numbers(report: UndoReport) -> tuple[int, int, int, int]:
    return report.restored, report.tombstoned, report.unchanged, report.conflict_count


def in_thread(work: Callable[[], object]) -> None:
    """Do something as somebody else, whose writes carry no run's stamp."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


# -- what the inverse is


def test_changed_created_and_deleted_records_become_what_they_were() -> None:
    run = started(correlation_id="case-1")
    changed, deleted = Account(name="changed", tags=["a"]), Account(name="deleted", balance=7)
    with item(run):
        changed.balance = 1
        with changed.edit():
            changed.tags.append("b")
            changed.properties.add(status="open")
        created = Account(name="created")
        created.balance = 5
        deleted.balance = 8
        deleted.delete()
    run.complete()
    with Eventic.acting(actor="ada"):
        report = undo(run)
    assert numbers(report) == (2, 1, 0, 0)
    now = Account.hydrate(changed.id)
    assert (now.balance, now.tags, dict(now.properties), now.version) == (0, ["a"], {}, 3)
    assert Account.hydrate(deleted.id).balance == 7
    assert created.history()[0].deleted
    for record in (changed, created, deleted):
        stamp = record.history()[0].stamp
        assert (stamp.workflow_id, stamp.actor, stamp.correlation_id) == (f"{run.id}:undo-1", "ada", "case-1")
        assert stamp.reason == f"undo of run {run.id}"


def test_reason_is_stamped_and_bookkeeping_stays() -> None:
    run = started()
    with item(run):
        batch = BatchExecution(run_id=run.id, batch_id=uuid4())
        execution = ItemExecution(run_id=run.id, batch_execution_id=batch.id, item_id=uuid4(), number=1)
        execution.start()
        account = Account(name="a")
    run.complete()
    assert numbers(undo(run, reason="wrong file")) == (0, 1, 0, 0)
    assert account.history()[0].stamp.reason == "wrong file"
    assert (BatchExecution.hydrate(batch.id).version, ItemExecution.hydrate(execution.id).version) == (0, 1)
    assert Run.hydrate(run.id).status == "COMPLETED"


def test_what_is_as_before_already_needs_nothing(eventic: str) -> None:
    run = started()
    back, gone = Account(name="back"), Account(name="gone")
    with item(run):
        back.balance = 1
        born = Account(name="born")
        gone.balance = 2
    back.balance = 0
    born.delete()
    with item(run):
        gone.balance = 0
    run.complete()
    before = count_versions(eventic)
    assert numbers(undo(run)) == (0, 0, 3, 0)
    assert count_versions(eventic) == before


def test_a_dry_run_writes_nothing_and_foretells_the_undo(eventic: str) -> None:
    run = started()
    account, other = Account(name="a", balance=1), Account(name="b")
    with item(run):
        account.balance = 2
        created = Account(name="c")
        other.balance = 1
    other.name = "somebody's"
    run.complete()
    before = count_versions(eventic)
    report = undo(run, dry_run=True)
    plan = {inverse.record_id: inverse for inverse in plan_undo(run)}
    assert count_versions(eventic) == before
    assert (numbers(report), report.dry_run) == ((1, 1, 0, 1), True)
    assert [(c.field, c.before, c.after) for c in plan[account.id].diff.changes] == [("balance", 2, 1)]
    assert (plan[account.id].action, plan[created.id].action) == ("restore", "tombstone")
    assert plan[other.id].action == "conflict"
    done = undo(run)
    assert (numbers(done), done.dry_run) == (numbers(report), False)


def test_a_record_deleted_and_made_again_by_the_run_comes_back_as_it_was() -> None:
    run = started()
    seat = Seat(place="1A", taken=True)
    with item(run):
        seat.delete()
        again = Seat.restore(seat.id)
        again.update(place="2B", taken=False)
        other = Seat(place="1A")
    run.complete()
    assert numbers(undo(run)) == (1, 1, 0, 0)
    now = Seat.hydrate(seat.id)
    assert (now.place, now.taken) == ("1A", True)
    assert other.history()[0].deleted
    assert Seat(place="2B").is_stored


def test_a_record_that_was_deleted_before_the_run_is_deleted_again() -> None:
    run = started()
    account = Account(name="a")
    account.delete()
    with item(run):
        Account.restore(account.id).balance = 3
    run.complete()
    assert numbers(undo(run)) == (0, 1, 0, 0)
    last = account.history()[0]
    assert (last.deleted, last.balance) == (True, 0)


def test_all_attempts_are_undone_to_before_the_first() -> None:
    run = started()
    account = Account(name="a")
    with item(run):
        account.balance = 1
    redriven(run)
    with item(run, 2):
        account.balance = 2
    run.complete()
    report = undo(run)
    assert (numbers(report), report.workflow_id) == ((1, 0, 0, 0), f"{run.id}:undo-2")
    assert Account.hydrate(account.id).balance == 0


def test_fields_that_did_not_exist_before_get_their_defaults() -> None:
    class Old(Record, class_type="UndoEvolved"):
        size: int

    run, old = started(), Old(size=1)

    class New(Record, class_type="UndoEvolved", schema_version=2, upcasters={1: lambda d: {"width": d["size"]}}):
        width: int

    with item(run):
        New.hydrate(old.id).width = 5
    run.complete()
    assert numbers(undo(run)) == (1, 0, 0, 0)
    assert New.hydrate(old.id).width == 1


# -- conflicts


def test_who_wrote_since_is_listed_and_kept() -> None:
    run = started()
    after, between, untouched = Account(name="after"), Account(name="between"), Account(name="untouched")
    with item(run):
        after.balance = 1
        between.balance = 1
        untouched.balance = 1
    with Eventic.acting(actor="bob", reason="typo"):
        after.name = "by bob"
        between.name = "by bob"
    with item(run, 2):
        between.balance = 2
    run.complete()
    report = undo(run)
    assert numbers(report) == (1, 0, 0, 2)
    found = {conflict.record_id: conflict for conflict in report.conflicts}
    assert (found[after.id].class_type, found[after.id].version, found[after.id].touched_count) == ("UndoAccount", 2, 1)
    [touch] = found[after.id].touches
    assert (touch.version, touch.actor, touch.reason, touch.fields) == (2, "bob", "typo", ("name",))
    assert touch.recorded_at == Account.hydrate(after.id).stamp.recorded_at
    assert [t.version for t in found[between.id].touches] == [2]
    assert Account.hydrate(after.id).balance == 1
    assert Account.hydrate(between.id).version == 3


def test_force_restores_what_others_wrote_too() -> None:
    run = started()
    edited, deleted, created = Account(name="a"), Account(name="b"), None
    with item(run):
        edited.balance = 1
        deleted.balance = 1
        created = Account(name="c")
    edited.name = "by bob"
    deleted.delete()
    created.name = "by bob"
    run.complete()
    assert numbers(undo(run)) == (0, 0, 0, 3)
    report = undo(run, force=True)
    assert (numbers(report), report.forced) == ((2, 1, 0, 0), 3)
    assert (Account.hydrate(edited.id).name, Account.hydrate(edited.id).balance) == ("a", 0)
    assert Account.hydrate(deleted.id).balance == 0
    assert created.history()[0].deleted


def test_many_touches_are_counted_and_the_last_ten_listed() -> None:
    run, account = started(), Account(name="a")
    with item(run):
        account.balance = -1
    for number in range(15):
        account.balance = number
    run.complete()
    [conflict] = undo(run).conflicts
    assert conflict.touched_count == 15
    assert [touch.version for touch in conflict.touches] == list(range(7, 17))


def test_an_edit_between_plan_and_undo_is_a_conflict() -> None:
    run, account = started(), Account(name="a")
    with item(run):
        account.balance = 1
    run.complete()
    plan = plan_undo(run)
    assert [inverse.action for inverse in plan] == ["restore"]
    account.name = "by bob"
    assert numbers(undo(run)) == (0, 0, 0, 1)
    assert [inverse.action for inverse in plan] == ["conflict"]


def test_an_edit_just_before_the_write_is_a_conflict_of_that_record_alone(acts: list[Any]) -> None:
    run = started()
    records = [Careful(text="before") for _ in range(5)]
    with item(run):
        for record in records:
            record.text = "by the run"
    run.complete()
    victim = records[2]

    def edit(record: Careful) -> None:
        if record.id == victim.id and threading.current_thread() is threading.main_thread():
            acts.clear()
            in_thread(lambda: Careful.hydrate(victim.id).update(text="by bob"))

    acts.append(edit)
    report = undo(run)
    assert numbers(report) == (4, 0, 0, 1)
    assert [(c.record_id, c.version, c.problem) for c in report.conflicts] == [(victim.id, 2, None)]
    assert [Careful.hydrate(r.id).text for r in records] == ["before", "before", "by bob", "before", "before"]


def test_a_forced_undo_wins_over_an_edit_just_before_the_write(acts: list[Any]) -> None:
    run, record = started(), Careful(text="before")
    with item(run):
        record.text = "by the run"
    run.complete()

    def edit(_: Careful) -> None:
        if threading.current_thread() is threading.main_thread():
            acts.clear()
            in_thread(lambda: Careful.hydrate(record.id).update(text="by bob"))

    acts.append(edit)
    assert numbers(undo(run, force=True)) == (1, 0, 0, 0)
    assert (Careful.hydrate(record.id).text, Careful.hydrate(record.id).version) == ("before", 3)


def test_a_record_that_is_always_written_meanwhile_is_given_up(acts: list[Any]) -> None:
    run, record = started(), Careful(text="before")
    with item(run):
        record.text = "by the run"
    run.complete()

    def edit(_: Careful) -> None:
        if threading.current_thread() is threading.main_thread():
            in_thread(lambda: Careful.hydrate(record.id).update(text=str(uuid4())))

    acts.append(edit)
    [conflict] = undo(run, force=True).conflicts
    assert conflict.problem is not None
    assert "20 times" in conflict.problem


def test_a_class_that_refuses_the_earlier_values_is_a_conflict(acts: list[Any]) -> None:
    run, records = started(), [Careful(text="a"), Careful(text="b")]
    with item(run):
        for record in records:
            record.text = "c"
    run.complete()

    def refuse(record: Careful) -> None:
        if record.text == "a":
            raise InvalidRecord("a is not wanted any more.")

    acts.append(refuse)
    report = undo(run, force=True)
    assert numbers(report) == (1, 0, 0, 1)
    assert report.conflicts[0].problem == "a is not wanted any more."


def test_a_state_that_may_not_follow_is_a_conflict_also_in_a_dry_run() -> None:
    run = started()
    engine = Engine(name="jenkins", type="ci")
    instance = OrchestrationInstance(engine_id=engine.id, external_id="1")
    with item(run):
        instance.start()
    run.complete()
    for report in (undo(run, dry_run=True), undo(run, force=True)):
        assert numbers(report) == (0, 0, 0, 1)
        assert "is PROCESSING, which does not allow PENDING" in str(report.conflicts[0].problem)


# -- unique keys


def test_swapped_unique_keys_are_swapped_back() -> None:
    run, one, two = started(), Seat(place="1A"), Seat(place="2B")
    with item(run):
        one.place = "free"
        two.place = "1A"
        one.place = "2B"
    run.complete()
    assert numbers(undo(run)) == (2, 0, 0, 0)
    assert (Seat.hydrate(one.id).place, Seat.hydrate(two.id).place) == ("1A", "2B")
    assert [seat.version for seat in (Seat.hydrate(one.id), Seat.hydrate(two.id))] == [3, 2]
    one = Seat.hydrate(one.id)
    one.place = "2C"
    assert Seat(place="1A").is_stored


def test_unique_keys_are_exchanged_between_chunks() -> None:
    run = started()
    count = 600  # more than a chunk: the first wants what the last has
    Seat.create_many({"place": f"{number:03}"} for number in range(count))
    seats = Seat.where().order_by(Seat.fields.place).all()
    with item(run):
        seats[0].place = "aside"
        for number, seat in enumerate(seats[1:], start=1):
            seat.place = f"{number - 1:03}"
        seats[0].place = f"{count - 1:03}"
    run.complete()
    assert numbers(undo(run)) == (count, 0, 0, 0)
    assert [seat.id for seat in Seat.where().order_by(Seat.fields.place)] == [seat.id for seat in seats]


def test_a_key_that_somebody_holds_is_a_conflict_and_blocks_those_who_wait_for_it() -> None:
    run = started()
    seats = [Seat(place=f"{number}") for number in range(4)]
    with item(run):
        seats[0].place = "new"
        seats[1].place = "0"  # waits for what 0 had
        seats[2].taken = True
        seats[3].delete()
    seats[1].place = "1 again"
    stranger = Seat(place="1")
    other = Seat(place="0")
    run.complete()
    report = undo(run, force=True)
    assert numbers(report) == (2, 0, 0, 2)
    assert {conflict.record_id for conflict in report.conflicts} == {seats[0].id, seats[1].id}
    assert all("unique key place" in str(conflict.problem) for conflict in report.conflicts)
    stranger.delete()
    other.delete()
    assert numbers(undo(run, force=True)) == (2, 0, 2, 0)
    assert [Seat.hydrate(seat.id).place for seat in seats] == ["0", "1", "2", "3"]


# -- again, and back


def test_a_second_undo_finds_nothing_even_if_somebody_wrote_since(eventic: str) -> None:
    run, account = started(), Account(name="a")
    with item(run):
        account.balance = 1
        Account(name="created")
    run.complete()
    assert numbers(undo(run)) == (1, 1, 0, 0)
    Account.hydrate(account.id).name = "later work"
    before = count_versions(eventic)
    assert numbers(undo(run)) == (0, 0, 2, 0)
    assert numbers(undo(run, force=True)) == (0, 0, 2, 0)
    assert count_versions(eventic) == before


def test_an_undo_is_undone_by_its_id_and_the_run_can_be_undone_again() -> None:
    run, account = started(), Account(name="a")
    with item(run):
        account.balance = 1
        created = Account(name="created")
    run.complete()
    first = undo(run)
    second = undo(first.workflow_id)
    assert (second.workflow_id, numbers(second)) == (f"{run.id}:undo-1:undo-1", (2, 0, 0, 0))
    assert (Account.hydrate(account.id).balance, Account.hydrate(created.id).name) == (1, "created")
    assert numbers(undo(first.workflow_id)) == (0, 0, 2, 0)
    assert numbers(undo(run)) == (1, 1, 0, 0)
    assert Account.hydrate(account.id).balance == 0
    assert created.history()[0].deleted
    assert numbers(undo(run)) == (0, 0, 2, 0)
    assert [change.kind for change in changes(first.workflow_id)] == ["update", "delete", "update", "delete"]


def test_an_attempt_after_an_undo_is_undone_to_what_the_people_made_of_it() -> None:
    run, account = started(), Account(name="a")
    with item(run):
        account.balance = 1
    run.fail()
    undo(run)
    Account.hydrate(account.id).name = "by bob"
    run = Run.hydrate(run.id)
    run.update(status="RETRYING", attempt=2)
    run.start()
    with item(run):
        Account.hydrate(account.id).balance = 9
    run.complete()
    assert numbers(undo(run)) == (1, 0, 0, 0)
    now = Account.hydrate(account.id)
    assert (now.name, now.balance) == ("by bob", 0)


def test_two_undos_at_once_write_each_record_once() -> None:
    run = started()
    accounts = [Account(name=str(number)) for number in range(1_200)]
    with item(run), Eventic.unit_of_work():
        for account in accounts:
            account.balance = 1
    run.complete()
    reports: list[UndoReport] = []
    threads = [threading.Thread(target=lambda: reports.append(undo(run))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(report.restored for report in reports) == 1_200
    assert [report.restored + report.unchanged for report in reports] == [1_200] * 3
    assert {account.version for account in Account.where()} == {2}


def test_an_undo_that_is_killed_goes_on_when_it_is_called_again(eventic: str) -> None:
    run = started()
    records = Careful.create_many({"text": f"{number}"} for number in range(RECORDS // 2))
    with item(run):
        with Eventic.unit_of_work():
            for record in Careful.where().all():
                record.text = "by the run"
        Careful.create_many({"text": "created"} for _ in range(RECORDS // 2))
    run.complete()
    undo_id, killed = f"{run.id}:undo-1", 0
    with psycopg.connect(eventic, autocommit=True) as connection:
        while killed < 2:
            process = subprocess.Popen([sys.executable, __file__, eventic, str(run.id)])
            before = written = _written(connection, undo_id)
            while written == before:
                assert process.poll() is None
                time.sleep(0.005)
                written = _written(connection, undo_id)
            process.kill()
            assert process.wait() == -signal.SIGKILL
            killed += 1
        done = _written(connection, undo_id)
        assert 0 < done < RECORDS
        report = undo(run)
        assert report.restored + report.tombstoned + report.unchanged == RECORDS
        assert report.unchanged >= done
        assert _written(connection, undo_id) == RECORDS
    assert {record.id: (record.text, record.version) for record in Careful.where()} == {
        record_id: (f"{number}", 2) for number, record_id in enumerate(records)
    }
    assert numbers(undo(run)) == (0, 0, RECORDS, 0)


def _written(connection: psycopg.Connection[Any], workflow_id: str) -> int:
    row = connection.execute("select count(*) from eventic.records where workflow_id = %s", (workflow_id,)).fetchone()
    assert row is not None
    return int(row[0])


# -- what is refused


@pytest.mark.parametrize("how", ["pending", "processing", "retrying"])
def test_an_unfinished_run_is_refused(eventic: str, how: str) -> None:
    run = Run(automation_id=uuid4())
    if how != "pending":
        run.start()
    with item(run):
        Account(name="a")
    if how == "retrying":
        run.fail()
        run.update(status="RETRYING")
    before = count_versions(eventic)
    for ask in (lambda: undo(run, force=True), lambda: undo(run, dry_run=True), lambda: plan_undo(run)):
        with pytest.raises(InvalidStateError, match="does not allow undo"):
            ask()
    assert count_versions(eventic) == before


def test_a_class_that_is_not_known_here_is_named_before_anything_is_written(eventic: str) -> None:
    run, account = started(), Account(name="a")
    with item(run):
        account.balance = 1
    run.complete()
    with psycopg.connect(eventic) as connection:
        for name in ("UndoGone", "UndoGoneToo"):
            connection.execute(
                "insert into eventic.records (version_id, id, version, class_type, data, workflow_id) "
                "values (gen_random_uuid(), gen_random_uuid(), 0, %s, '{}', %s)",
                (name, str(run.id)),
            )
    before = count_versions(eventic)
    assert find_class("UndoGone") is None
    for dry_run in (True, False):
        with pytest.raises(NotRegistered, match="UndoGone, UndoGoneToo"):
            undo(run, dry_run=dry_run)
    assert count_versions(eventic) == before


def test_unknown_runs_are_refused() -> None:
    with pytest.raises(RecordNotFound):
        undo(uuid4())
    with pytest.raises(Invalid):
        undo("nonsense")


def test_an_undo_inside_a_unit_of_work_is_refused() -> None:
    run = started()
    run.complete()
    with Eventic.unit_of_work(), pytest.raises(ScopeError, match="commits as it goes"):
        undo(run)


def test_the_async_twin_undoes_and_the_blocking_one_is_refused_in_a_loop() -> None:
    run, account = started(), Account(name="a")
    with item(run):
        account.balance = 1
    run.complete()

    async def ask() -> tuple[UndoReport, UndoReport]:
        with pytest.raises(BlockingInLoop, match="undo_async"):
            undo(run)
        with pytest.raises(BlockingInLoop):
            plan_undo(run)
        return await undo_async(run, dry_run=True), await undo_async(run, reason="async")

    dry, done = asyncio.run(ask())
    assert numbers(dry) == numbers(done) == (1, 0, 0, 0)
    assert Account.hydrate(account.id).stamp.reason == "async"
    assert pickle.loads(pickle.dumps(done)) == done


def main(url: str, run_id: str) -> None:
    """Undo a run, to be killed."""
    Eventic.init(name="undo", database_url=url)
    undo(UUID(run_id))


if __name__ == "__main__":
    main(*sys.argv[1:])
