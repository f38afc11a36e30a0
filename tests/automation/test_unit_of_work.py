"""The unit of work: the quick start as it is written, and what is stored, undone and told when."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

import eventic_core.automation as package
from eventic_core import BlockingInLoop, ConfigurationError, Eventic, NotInitialised, ScopeError
from eventic_core.automation import (
    Automation,
    Batch,
    BatchExecution,
    ConcurrencyError,
    DatabaseConfig,
    DuplicateEntityError,
    EventBus,
    ExecutionStatus,
    ItemExecution,
    Run,
    RunCompleted,
    RunFailed,
    UnitOfWork,
)

S = ExecutionStatus


@pytest.fixture
def database(eventic: str) -> DatabaseConfig:
    return DatabaseConfig(eventic)


@pytest.fixture
def told() -> list[Any]:
    return []


@pytest.fixture
def bus(told: list[Any]) -> EventBus:
    bus = EventBus()
    for kind in (RunCompleted, RunFailed):
        bus.register(kind, told.append)
    return bus


@pytest.fixture
def _disconnected() -> Iterator[None]:
    yield
    Eventic.shutdown()


def in_thread(work: Any) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def running(name: str = "an automation") -> Run:
    """Store a run that has begun."""
    with Eventic.unit_of_work():
        run = Run(automation_id=Automation(name=name).id)
        run.start()
    return run


# -- the quick start


def test_quick_start_runs_as_it_is_written(migrated_url: str) -> None:
    program = f"""
from eventic_core.automation import Automation, Batch, DatabaseConfig, EventBus, Run, UnitOfWork

db_config = DatabaseConfig({migrated_url!r})
event_bus = EventBus()
with UnitOfWork(db_config, event_bus) as uow:
    automation = Automation(name="import", description="Customers")
    uow.automations.create(automation, user="admin")
    batch = Batch(automation_id=automation.id, name="Q1")
    uow.batches.create(batch, user="admin")
    run = Run(automation_id=automation.id, correlation_id="ext-123")
    uow.runs.create(run, user="admin")
    run.start()
    uow.runs.update(run.id, run, user="admin")
    uow.commit()
print(run.version, run.status, run.created_by, run.updated_by)
db_config.dispose_engine()
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "PROCESSING", "admin", "admin"]
    with psycopg.connect(migrated_url) as connection:
        found = connection.execute(
            "select class_type, version, actor from eventic.records order by position"
        ).fetchall()
    assert found == [("Automation", 0, "admin"), ("Batch", 0, "admin"), ("Run", 0, "admin"), ("Run", 1, "admin")]


def test_importing_the_package_is_light() -> None:
    code = (
        "import eventic_core.automation, sys\n"
        "heavy = {'dbos', 'fastapi', 'psycopg', 'sqlalchemy', 'rich', 'tqdm', 'jsonschema_rs'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_public_name_is_there() -> None:
    assert [name for name in package.__all__ if getattr(package, name, None) is None] == []
    assert sorted(package.__all__) == dir(package)
    with pytest.raises(AttributeError, match="nonsense"):
        package.nonsense  # noqa: B018


# -- what is stored


def test_constructing_in_a_block_joins_it(database: DatabaseConfig) -> None:
    with UnitOfWork(database) as uow:
        kept = Automation(name="kept")
        assert uow.automations.count() == 0  # from `create` or the commit on
        in_thread(lambda: seen.append(Automation.where().count()))
    with pytest.raises(LookupError), UnitOfWork(database):
        lost = Automation(name="lost")
        raise LookupError
    assert seen.pop() == 0
    assert (kept.version, lost.version, Automation.where().count()) == (0, -1, 1)


seen: list[int] = []


def test_commit_stores_and_the_block_goes_on(database: DatabaseConfig) -> None:
    with UnitOfWork(database) as uow:
        first = uow.automations.create(Automation(name="first"))
        uow.commit()
        in_thread(lambda: seen.append(Automation.where().count()))
        assert seen.pop() == 1
        uow.commit()
        first.description = "changed, and stored without update"
        uow.automations.create(Automation(name="second"))
        assert uow.automations.get(first.id) is first
        uow.rollback()
        assert (first.description, first.version) == (None, 0)
        uow.automations.create(Automation(name="third"))
        uow.commit()
        uow.commit()
    assert sorted(found.name for found in Automation.where().all()) == ["first", "third"]


def test_what_was_created_and_undone_can_be_created_again(database: DatabaseConfig) -> None:
    with UnitOfWork(database) as uow:
        automation = uow.automations.create(Automation(name="again"), user="ann")
        made = automation.id
        uow.rollback()
        assert not automation.is_stored
        assert uow.automations.get(made) is None
        with pytest.raises(ConcurrencyError, match="not tracked"):
            uow.automations.update(made, automation)
        uow.automations.create(automation, user="bob")
    assert (automation.id, automation.version, automation.created_by) == (made, 0, "bob")


def test_every_move_is_a_version_of_its_own(database: DatabaseConfig) -> None:
    with UnitOfWork(database) as uow:
        automation = uow.automations.create(Automation(name="moves"))
        run = uow.runs.create(Run(automation_id=automation.id))
        run.start()
        run.fail("broken")
        uow.runs.update(run.id, run, user="ann")
    assert [past.status for past in reversed(run.history())] == [S.PENDING, S.PROCESSING, S.FAILED]


def test_a_commit_that_comes_too_late_undoes_all_and_the_block_goes_on(database: DatabaseConfig) -> None:
    run = running()
    with UnitOfWork(database) as uow:
        mine = uow.runs.get_or_raise(run.id)
        other = uow.automations.create(Automation(name="other"))
        mine.error_summary = "mine"
        in_thread(lambda: setattr(Run.hydrate(run.id), "error_summary", "theirs"))
        with pytest.raises(ConcurrencyError) as caught:
            uow.commit()
        assert (caught.value.expected, caught.value.actual, caught.value.entity_id) == (1, 2, run.id)
        assert (mine.error_summary, other.is_stored) == (None, False)
        assert uow.runs.get_or_raise(run.id).error_summary == "theirs"
    assert Automation.where(name="other").first() is None


def test_a_taken_name_at_the_end_undoes_the_block(database: DatabaseConfig) -> None:
    Automation(name="taken")
    with pytest.raises(DuplicateEntityError, match="taken"), UnitOfWork(database):
        fine = Automation(name="fine")
        Automation(name="taken")
    assert not fine.is_stored
    assert Automation.where().count() == 1


def test_a_part_may_fail_by_itself(database: DatabaseConfig) -> None:
    with UnitOfWork(database).transaction() as uow:
        kept = uow.automations.create(Automation(name="kept"))
        with pytest.raises(LookupError), uow.transaction():
            kept.description = "lost"
            lost = uow.automations.create(Automation(name="lost"))
            raise LookupError
        assert (kept.description, lost.is_stored) == (None, False)
    assert [found.name for found in Automation.where().all()] == ["kept"]


def failing_part(uow: UnitOfWork) -> None:
    """Write all that is pending in a part of the block, which is undone."""
    with pytest.raises(LookupError), uow.transaction():
        uow.automations.create(Automation(name="lost"))
        raise LookupError


def test_moves_that_a_failed_part_had_written_are_written_again(database: DatabaseConfig) -> None:
    with UnitOfWork(database) as uow:
        run = uow.runs.create(Run(automation_id=Automation(name="moves").id))
        run.start()
        run.fail("broken")
        failing_part(uow)
    assert [past.status for past in reversed(run.history())] == [S.PENDING, S.PROCESSING, S.FAILED]


def test_what_only_a_failed_part_had_written_may_still_be_taken_out(database: DatabaseConfig) -> None:
    run = running()
    with UnitOfWork(database) as uow:
        mine = uow.runs.get_or_raise(run.id)
        mine.error_summary = "mine"
        failing_part(uow)
        uow.unregister_entity(mine)
        assert mine.error_summary is None
    assert Run.hydrate(run.id).version == run.version


# -- when it may be used


def test_an_inner_block_cannot_end_the_transaction(database: DatabaseConfig) -> None:
    with UnitOfWork(database) as uow:
        automation = uow.automations.create(Automation(name="outer"))
        with automation.edit(), pytest.raises(ScopeError, match="inner block"):
            uow.commit()
        with uow.transaction(), pytest.raises(ScopeError, match="inner block"):
            uow.rollback()
        with pytest.raises(ScopeError, match="open already"), uow:
            pass
        assert uow.is_active()
    assert not uow.is_active()


def test_closing_undoes_what_is_not_committed(database: DatabaseConfig) -> None:
    with UnitOfWork(database) as uow:
        uow.automations.create(Automation(name="kept"))
        uow.commit()
        lost = uow.automations.create(Automation(name="lost"))
        uow.close()
        uow.close()
        assert not uow.is_active()
        for call in (uow.commit, uow.rollback, uow.automations.list, lambda: uow.register_entity(lost)):
            with pytest.raises(ScopeError, match="not open"):
                call()
    assert [found.name for found in Automation.where().all()] == ["kept"]


def test_a_block_belongs_to_its_thread_and_not_to_an_event_loop(database: DatabaseConfig) -> None:
    refused: list[str] = []

    def elsewhere() -> None:
        try:
            uow.automations.list()
        except ScopeError as error:
            refused.append(str(error))

    async def in_loop() -> None:
        with pytest.raises(BlockingInLoop, match="to_thread"), UnitOfWork(database):
            pass

    with UnitOfWork(database) as uow:
        in_thread(elsewhere)
    assert len(refused) == 1
    asyncio.run(in_loop())


def test_entities_take_part_when_registered(database: DatabaseConfig) -> None:
    outside = Automation(name="outside")
    with UnitOfWork(database) as uow:
        assert not uow.has_entity(outside)
        uow.register_entity(outside)
        assert uow.get_entity(outside.id) is outside
        assert uow.has_entity(outside.id)
        draft = Automation.draft({"name": "draft"})
        uow.register_entity(draft)
        outside.description = "dropped"
        uow.unregister_entity(outside)
        assert (outside.description, uow.has_entity(outside), uow.get_entity(outside.id)) == (None, False, None)
        unwanted = Automation(name="unwanted")
        uow.unregister_entity(unwanted)
        with pytest.raises(ScopeError, match="take part"):
            uow.unregister_entity(unwanted)
        written = uow.automations.create(Automation(name="written"))
        with pytest.raises(ScopeError, match="written in this transaction"):
            uow.unregister_entity(written)
    assert [found.name for found in Automation.where().order_by(Automation.fields.name).all()] == [
        "draft",
        "outside",
        "written",
    ]


# -- joining


def test_a_unit_of_work_joins_an_open_one(database: DatabaseConfig, bus: EventBus, told: list[Any]) -> None:
    run = running()
    with pytest.raises(LookupError), Eventic.unit_of_work():
        with UnitOfWork(database, bus) as uow:
            uow.runs.get_or_raise(run.id).complete()
            uow.commit()
            uow.automations.create(Automation(name="undone"))
            uow.rollback()
            uow.automations.create(Automation(name="joined"))
        assert Automation.where(name="undone").count() == 0
        assert Automation.where(name="joined").count() == 1
        raise LookupError
    assert (told, Automation.where().count(), Run.hydrate(run.id).status) == ([], 1, S.PROCESSING)
    with Eventic.transaction():
        with UnitOfWork(database, bus) as uow:
            uow.runs.get_or_raise(run.id).complete()
        assert told == []
    assert [type(event) for event in told] == [RunCompleted]


def test_a_failing_joined_block_undoes_only_itself(database: DatabaseConfig, bus: EventBus, told: list[Any]) -> None:
    run = running()
    with Eventic.unit_of_work():
        kept = Automation(name="kept")
        with pytest.raises(LookupError), UnitOfWork(database, bus) as uow:
            uow.runs.get_or_raise(run.id).complete()
            uow.automations.create(Automation(name="lost"))
            raise LookupError
    assert kept.version == 0
    assert (told, Automation.where(name="lost").count(), Run.hydrate(run.id).status) == ([], 0, S.PROCESSING)


# -- events


def test_events_are_told_after_the_commit_by_whoever_took_part(
    database: DatabaseConfig, bus: EventBus, told: list[Any]
) -> None:
    stored = running()
    committed: list[str] = []
    bus.register(RunCompleted, lambda event: committed.append(Run.hydrate(event.run_id).status))
    with UnitOfWork(database, bus) as uow:
        uow.runs.get_or_raise(stored.id).fail("no")
        made = Run(automation_id=stored.automation_id)  # of no repository
        made.start()
        made.complete()
        assert told == []
        uow.commit()
        assert [(type(event), event.run_id) for event in told] == [(RunFailed, stored.id), (RunCompleted, made.id)]
    assert len(told) == 2
    assert committed == [S.COMPLETED]


def test_events_of_what_is_undone_are_dropped(database: DatabaseConfig, bus: EventBus, told: list[Any]) -> None:
    run = running()
    with UnitOfWork(database, bus) as uow:
        found = uow.runs.get_or_raise(run.id)
        with pytest.raises(LookupError), uow.transaction():
            found.complete()
            raise LookupError
        uow.commit()
        found.complete()
        uow.rollback()
        uow.runs.get_or_raise(run.id).fail("really")
    assert [type(event) for event in told] == [RunFailed]


def test_a_raising_handler_is_no_failed_commit(
    database: DatabaseConfig, bus: EventBus, told: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    run = running()
    failing = EventBus()
    failing.register(RunCompleted, lambda _event: 1 / 0)
    failing.register(RunCompleted, told.append)
    with UnitOfWork(database, failing) as uow:
        uow.runs.get_or_raise(run.id).complete()
    assert Run.hydrate(run.id).status == S.COMPLETED
    assert len(told) == 1
    assert "ZeroDivisionError" in caplog.text


def test_a_handler_may_use_a_unit_of_work(database: DatabaseConfig, bus: EventBus) -> None:
    run = running()

    def follow(event: RunCompleted) -> None:
        with UnitOfWork(database, bus) as inner:
            inner.runs.create(Run(automation_id=event.automation_id, correlation_id="follow-up"), user="bus")

    bus.register(RunCompleted, follow)
    with UnitOfWork(database, bus) as uow:
        uow.runs.get_or_raise(run.id).complete()
        uow.commit()
        assert uow.runs.get_by_correlation_id("follow-up") is not None


# -- the database


@pytest.mark.usefixtures("_disconnected")
def test_one_process_has_one_database(migrated_url: str, database_url: str) -> None:
    first, second = DatabaseConfig(migrated_url), DatabaseConfig(migrated_url, pool_size=2)
    with pytest.raises(ConfigurationError, match="another database"):
        DatabaseConfig(database_url)
    with UnitOfWork(DatabaseConfig()) as uow:
        uow.automations.create(Automation(name="one"))
    assert Eventic.settings().pool_size == 5
    second.dispose_engine()  # it did not connect
    assert Automation.where().count() == 1
    first.dispose_engine()
    first.dispose_engine()
    with pytest.raises(NotInitialised):
        Automation.where().count()
    with UnitOfWork(second) as uow:  # which connects again
        assert uow.automations.count() == 1


@pytest.mark.usefixtures("_disconnected")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"url": "sqlite:///x.db"}, "Postgres"),
        ({"pool_size": 0}, "pool_size"),
        ({"max_overflow": -1}, "max_overflow"),
        ({"engine_kwargs": {"ecko": True}}, "ecko"),
    ],
)
def test_bad_settings_are_refused(migrated_url: str, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        DatabaseConfig(**{"url": migrated_url, **arguments})
    with pytest.raises(NotInitialised):
        Automation.where().count()


def test_sessions_are_transactions_of_the_users_own(database: DatabaseConfig) -> None:
    insert = sa.text("insert into notes values (1)")
    with database.get_session() as session:
        session.execute(sa.text("create table notes (number int)"))
        session.commit()
        session.execute(insert)
        session.rollback()
        session.execute(insert)
        with Eventic.using(session):
            Automation(name="beside")
        session.commit()
    with database.SessionLocal() as session:
        assert session.execute(sa.text("select count(*) from notes")).scalar_one() == 1
    assert Automation.where().count() == 1


def test_children_of_a_stale_parent_are_not_deleted_halfway(database: DatabaseConfig) -> None:
    run = running()
    part = BatchExecution(run_id=run.id, batch_id=Batch(automation_id=run.automation_id, name="b").id)
    with UnitOfWork(database) as uow:
        uow.runs.get(run.id)
        in_thread(lambda: setattr(Run.hydrate(run.id), "error_summary", "theirs"))
        with pytest.raises(ConcurrencyError):
            uow.runs.delete(run.id)
    assert BatchExecution.hydrate(part.id).is_active
    assert Run.hydrate(run.id).is_active


def test_a_second_object_for_an_item_in_a_run_is_refused(database: DatabaseConfig) -> None:
    run = running()
    with UnitOfWork(database) as uow:
        values = {"run_id": run.id, "batch_execution_id": run.id, "item_id": run.id}
        uow.item_executions.create(ItemExecution(**values))
        with pytest.raises(ScopeError, match="Two objects"):
            ItemExecution(**values)
    assert ItemExecution.where().count() == 1
