"""Repositories, method by method as the feature table names them, and the faults they must not have."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from eventic_core import DuplicateKey, Eventic, RecordNotFound, ScopeError, VersionConflict
from eventic_core.automation import (
    Automation,
    Batch,
    BatchExecution,
    ConcurrencyError,
    DatabaseConfig,
    DuplicateEntityError,
    Engine,
    EntityNotFoundError,
    ExecutionStatus,
    InvalidStateError,
    Item,
    ItemExecution,
    OrchestrationInstance,
    ReadOnlyError,
    Repository,
    RepositoryError,
    Run,
    RunOrchestration,
    UnitOfWork,
    ValidationError,
)

S = ExecutionStatus
REPOSITORIES = [
    *("automations", "batches", "items", "runs", "batch_executions", "item_executions", "item_state_history"),
    *("engines", "orchestration_instances", "run_orchestration"),
]


@dataclass
class World:
    uow: UnitOfWork
    automation: Automation
    batch: Batch
    items: list[Item]
    run: Run
    batch_execution: BatchExecution
    executions: list[ItemExecution]
    engine: Engine
    instance: OrchestrationInstance
    link: RunOrchestration


@pytest.fixture
def uow(eventic: str) -> Iterator[UnitOfWork]:
    with UnitOfWork(DatabaseConfig(eventic)) as uow:
        yield uow


@pytest.fixture
def world(uow: UnitOfWork) -> World:
    """One of each kind, with a second automation, three items, and executions of which one has failed."""
    automation = uow.automations.create(Automation(name="import"), user="ann")
    uow.automations.create(Automation(name="export"), user="ann")
    batch = uow.batches.create(Batch(automation_id=automation.id, name="Q1"), user="ann")
    uow.batches.create(Batch(automation_id=automation.id, name="Q0"), user="ann")
    items = [uow.items.create(Item(batch_id=batch.id, sequence_number=n), user="ann") for n in (2, 0, 1)]
    run = uow.runs.create(Run(automation_id=automation.id, correlation_id="ext-1"), user="ann")
    run.start()
    uow.runs.update(run.id, run, user="ann")
    part = uow.batch_executions.create(BatchExecution(run_id=run.id, batch_id=batch.id), user="ann")
    executions = [
        uow.item_executions.create(
            ItemExecution(run_id=run.id, batch_execution_id=part.id, item_id=item.id, number=n, max_attempts=1),
            user="ann",
        )
        for n, item in enumerate(items, start=1)
    ]
    executions[0].start()
    executions[0].fail("no")
    uow.item_executions.update(executions[0].id, executions[0], user="bob")
    engine = uow.engines.create(Engine(name="jenkins", type="ci"), user="ann")
    instance = OrchestrationInstance(engine_id=engine.id, external_id="42")
    uow.orchestration_instances.create(instance, user="ann")
    instance.start()
    uow.orchestration_instances.update(instance.id, instance, user="ann")
    link = RunOrchestration(run_id=run.id, orchestration_instance_id=instance.id)
    uow.run_orchestration.create(link, user="ann")
    uow.commit()
    return World(uow, automation, batch, items, run, part, executions, engine, instance, link)


# -- the table: each method, and what shows that it does what its row says

OWN: list[tuple[str, Callable[[World], Any], Callable[[World], Any]]] = [
    ("automations.get_by_name", lambda w: w.uow.automations.get_by_name("import"), lambda w: w.automation),
    (
        "automations.list_active",
        lambda w: [found.name for found in w.uow.automations.list_active()],
        lambda w: ["export", "import"],
    ),
    (
        "batches.get_by_automation_and_name",
        lambda w: w.uow.batches.get_by_automation_and_name(w.automation.id, "Q1"),
        lambda w: w.batch,
    ),
    (
        "batches.list_by_automation",
        lambda w: [found.name for found in w.uow.batches.list_by_automation(w.automation.id)],
        lambda w: ["Q0", "Q1"],
    ),
    (
        "items.get_by_batch_and_sequence",
        lambda w: w.uow.items.get_by_batch_and_sequence(w.batch.id, 2),
        lambda w: w.items[0],
    ),
    (
        "items.list_by_batch",
        lambda w: [found.sequence_number for found in w.uow.items.list_by_batch(w.batch.id, limit=2, offset=1)],
        lambda w: [1, 2],
    ),
    ("runs.get_by_correlation_id", lambda w: w.uow.runs.get_by_correlation_id("ext-1"), lambda w: w.run),
    (
        "runs.list_by_automation",
        lambda w: [
            w.uow.runs.list_by_automation(w.automation.id),
            w.uow.runs.list_by_automation(w.automation.id, status=S.FAILED),
        ],
        lambda w: [[w.run], []],
    ),
    ("runs.list_by_status", lambda w: w.uow.runs.list_by_status(S.PROCESSING), lambda w: [w.run]),
    (
        "runs.find_running",
        lambda w: [
            w.uow.runs.find_running(),
            w.uow.runs.find_running(w.automation.id),
            w.uow.runs.find_running(uuid4()),
        ],
        lambda w: [[w.run], [w.run], []],
    ),
    (
        "batch_executions.get_by_run_and_batch",
        lambda w: w.uow.batch_executions.get_by_run_and_batch(w.run.id, w.batch.id),
        lambda w: w.batch_execution,
    ),
    (
        "batch_executions.list_by_run",
        lambda w: w.uow.batch_executions.list_by_run(w.run.id),
        lambda w: [w.batch_execution],
    ),
    (
        "batch_executions.list_by_batch",
        lambda w: w.uow.batch_executions.list_by_batch(w.batch.id),
        lambda w: [w.batch_execution],
    ),
    (
        "item_executions.get_by_run_and_item",
        lambda w: w.uow.item_executions.get_by_run_and_item(w.run.id, w.items[1].id),
        lambda w: w.executions[1],
    ),
    (
        "item_executions.list_by_batch_execution",
        lambda w: w.uow.item_executions.list_by_batch_execution(w.batch_execution.id),
        lambda w: w.executions,
    ),
    (
        "item_executions.list_pending_by_run",
        lambda w: w.uow.item_executions.list_pending_by_run(w.run.id),
        lambda w: w.executions[1:],
    ),
    (
        "item_executions.list_failed_by_run",
        lambda w: w.uow.item_executions.list_failed_by_run(w.run.id),
        lambda w: w.executions[:1],
    ),
    (
        "item_executions.count_by_status",
        lambda w: [
            w.uow.item_executions.count_by_status(w.run.id),
            w.uow.item_executions.count_by_status(w.run.id, S.PENDING),
        ],
        lambda w: [{status: {S.PENDING: 2, S.FAILED: 1}.get(status, 0) for status in S}, 2],
    ),
    (
        "item_state_history.list_by_item_execution",
        lambda w: [
            (move.previous_status, move.new_status, move.created_by, move.item_execution_id)
            for move in w.uow.item_state_history.list_by_item_execution(w.executions[0].id)
        ],
        lambda w: [
            (None, S.PENDING, "ann", w.executions[0].id),
            (S.PENDING, S.PROCESSING, "bob", w.executions[0].id),
            (S.PROCESSING, S.FAILED, "bob", w.executions[0].id),
        ],
    ),
    (
        "item_state_history.get_latest_by_item_execution",
        lambda w: [
            w.uow.item_state_history.get_latest_by_item_execution(w.executions[0].id).id,  # type: ignore[union-attr]
            w.uow.item_state_history.get_latest_by_item_execution(uuid4()),
        ],
        lambda w: [w.executions[0].version_id, None],
    ),
    ("item_state_history.create", lambda w: refused(w.uow.item_state_history.create, object()), lambda w: True),
    ("item_state_history.update", lambda w: refused(w.uow.item_state_history.update, uuid4()), lambda w: True),
    ("item_state_history.delete", lambda w: refused(w.uow.item_state_history.delete, uuid4()), lambda w: True),
    ("engines.get_by_name", lambda w: w.uow.engines.get_by_name("jenkins"), lambda w: w.engine),
    ("engines.list_by_type", lambda w: w.uow.engines.list_by_type("ci"), lambda w: [w.engine]),
    (
        "orchestration_instances.get_by_engine_and_external",
        lambda w: w.uow.orchestration_instances.get_by_engine_and_external(w.engine.id, "42"),
        lambda w: w.instance,
    ),
    (
        "orchestration_instances.list_by_engine",
        lambda w: w.uow.orchestration_instances.list_by_engine(w.engine.id),
        lambda w: [w.instance],
    ),
    (
        "orchestration_instances.list_by_status",
        lambda w: w.uow.orchestration_instances.list_by_status("PENDING"),
        lambda w: [],
    ),
    (
        "orchestration_instances.list_running",
        lambda w: w.uow.orchestration_instances.list_running(),
        lambda w: [w.instance],
    ),
    (
        "run_orchestration.get_by_run_and_instance",
        lambda w: w.uow.run_orchestration.get_by_run_and_instance(w.run.id, w.instance.id),
        lambda w: w.link,
    ),
    ("run_orchestration.list_by_run", lambda w: w.uow.run_orchestration.list_by_run(w.run.id), lambda w: [w.link]),
    (
        "run_orchestration.list_by_instance",
        lambda w: w.uow.run_orchestration.list_by_instance(w.instance.id),
        lambda w: [w.link],
    ),
]
GENERIC: dict[str, Callable[[Any, Any], bool]] = {
    "get": lambda r, e: r.get(e.id) is e and r.get(uuid4()) is None and r.get("no uuid") is None,
    "get_or_raise": lambda r, e: (
        r.get_or_raise(str(e.id)) is e and refuses(EntityNotFoundError, r.get_or_raise, uuid4())
    ),
    "exists": lambda r, e: r.exists(e.id) and not r.exists(uuid4()),
    "list": lambda r, e: e in r.list() and r.list(id=e.id) == [e] and r.list(limit=0) == [],
    "count": lambda r, e: r.count() == len(r.list()) and r.count(id=e.id) == 1 and r.count(id=uuid4()) == 0,
    "create": lambda r, e: e.created_by == "ann" and refuses(DuplicateEntityError, r.create, e),
    "update": lambda r, e: r.update(e.id, e) is e and refuses(RepositoryError, r.update, uuid4(), e),
    "delete": lambda r, e: r.delete(e.id, soft=True) and r.get(e.id) is None and not r.delete(e.id),
    "refresh": lambda r, e: r.refresh(e) is e,
}
ENTITIES: dict[str, Callable[[World], Any]] = {
    "automations": lambda w: w.automation,
    "batches": lambda w: w.batch,
    "items": lambda w: w.items[0],
    "runs": lambda w: w.run,
    "batch_executions": lambda w: w.batch_execution,
    "item_executions": lambda w: w.executions[0],
    "engines": lambda w: w.engine,
    "orchestration_instances": lambda w: w.instance,
    "run_orchestration": lambda w: w.link,
}


def refuses(kind: type[Exception], call: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
    with pytest.raises(kind):
        call(*args, **kwargs)
    return True


def refused(call: Callable[..., Any], *args: Any) -> bool:
    return refuses(ReadOnlyError, call, *args) and refuses(NotImplementedError, call, *args)


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_look_up_does_what_its_row_says(world: World, repository: str) -> None:
    rows = [(name, does(world), expected(world)) for name, does, expected in OWN if name.startswith(f"{repository}.")]
    assert rows
    assert [(name, found) for name, found, _ in rows] == [(name, expected) for name, _, expected in rows]


@pytest.mark.parametrize("method", GENERIC)
def test_every_repository_has_what_all_have(world: World, method: str) -> None:
    for name, entity in ENTITIES.items():
        repository = getattr(world.uow, name)
        assert repository.use_versioning
        assert GENERIC[method](repository, entity(world)), name


def test_the_tables_name_every_method_of_every_repository(uow: UnitOfWork) -> None:
    found = set()
    for name in REPOSITORIES:
        repository = getattr(uow, name)
        methods = {each for each, _ in inspect.getmembers(repository, inspect.ismethod) if not each.startswith("_")}
        if isinstance(repository, Repository):
            assert methods >= GENERIC.keys()
            methods -= GENERIC.keys()
        found |= {f"{name}.{method}" for method in methods}
    assert found == {name for name, _, _ in OWN}


# -- reading


def test_an_entity_is_one_object_however_it_is_read(world: World) -> None:
    again = [
        world.uow.runs.get(world.run.id),
        world.uow.runs.get_by_correlation_id("ext-1"),
        *world.uow.runs.list(),
        world.uow.get_entity(world.run.id),
    ]
    assert all(found is world.run for found in again)


def test_reading_a_changed_entity_again_keeps_what_it_expects_to_find(world: World) -> None:
    world.run.complete()
    assert world.uow.runs.get(world.run.id) is world.run
    assert world.uow.runs.update(world.run.id, world.run, user="eve").version == 2
    assert (world.run.updated_by, world.run.created_by) == ("eve", "ann")


@pytest.mark.parametrize("call", ["list", "count"])
@pytest.mark.parametrize("filters", [{"nonsense": 1}, {"automation_id": "no uuid"}, {"status": "DANCING"}])
def test_list_and_count_refuse_the_same_filters(uow: UnitOfWork, call: str, filters: dict[str, Any]) -> None:
    with pytest.raises(RepositoryError, match=next(iter(filters))):
        getattr(uow.runs, call)(**filters)


def test_a_filter_of_none_does_not_filter(world: World) -> None:
    assert world.uow.runs.list(correlation_id=None) == [world.run]
    assert world.uow.runs.count(correlation_id=None, status=S.PROCESSING) == 1


@pytest.mark.parametrize("page", [{"limit": -1}, {"offset": -1}, {"limit": 0, "offset": -1}])
def test_negative_pages_are_refused_everywhere(world: World, page: dict[str, int]) -> None:
    uow, some = world.uow, uuid4()
    calls: list[Callable[..., Any]] = [
        uow.runs.list,
        uow.automations.list_active,
        lambda **page: uow.items.list_by_batch(some, **page),
        lambda **page: uow.runs.list_by_status(S.PENDING, **page),
        lambda **page: uow.item_state_history.list_by_item_execution(some, **page),
    ]
    for call in calls:
        with pytest.raises(RepositoryError, match="negative"):
            call(**page)


def test_pages_follow_each_other(uow: UnitOfWork) -> None:
    automation = uow.automations.create(Automation(name="paged"))
    made = [uow.runs.create(Run(automation_id=automation.id)) for _ in range(7)]
    pages = [uow.runs.list_by_automation(automation.id, limit=3, offset=offset) for offset in (0, 3, 6, 9)]
    assert [run for page in pages for run in page] == made[::-1]
    assert [len(page) for page in pages] == [3, 3, 1, 0]
    assert uow.runs.list(limit=None) == made


def test_deleted_ones_are_found_when_asked_for(world: World) -> None:
    runs = world.uow.runs
    assert runs.delete(world.run.id, soft=True, user="zed")
    assert (runs.list(), runs.count(), runs.exists(world.run.id)) == ([], 0, False)
    assert runs.list(include_soft_deleted=True, status=S.PROCESSING, limit=1) == [world.run]
    assert runs.list(include_soft_deleted=True, status=S.PENDING) == []
    assert runs.count(include_soft_deleted=True, correlation_id="ext-1") == 1
    assert runs.exists(world.run.id, include_soft_deleted=True)
    assert runs.get(world.run.id, include_soft_deleted=True) is world.run
    assert (world.run.is_active, world.run.updated_by, world.run.version) == (False, "zed", 2)


# -- creating


def test_a_duplicate_loses_only_itself(uow: UnitOfWork) -> None:
    first = uow.automations.create(Automation(name="same"), user="ann")
    draft = Automation(name="later")  # not created yet, and untouched by what fails
    other = Automation(name="same")
    with pytest.raises(DuplicateEntityError, match="same") as caught:
        uow.automations.create(other, user="ann")
    assert isinstance(caught.value, DuplicateKey)
    assert not other.is_stored
    assert not uow.has_entity(other)
    uow.automations.create(draft, user="bob")
    uow.commit()
    assert Automation.where().count() == 2
    assert (first.created_by, draft.created_by) == ("ann", "bob")


@pytest.mark.parametrize(
    "make",
    [
        lambda w: ("automations", Automation(name="import")),
        lambda w: ("batches", Batch(automation_id=w.automation.id, name="Q1")),
        lambda w: ("items", Item(batch_id=w.batch.id, sequence_number=2)),
        lambda w: ("batch_executions", BatchExecution(run_id=w.run.id, batch_id=w.batch.id)),
        lambda w: (
            "item_executions",
            ItemExecution(run_id=w.run.id, batch_execution_id=w.batch_execution.id, item_id=w.items[0].id),
        ),
        lambda w: ("engines", Engine(name="jenkins", type="other")),
        lambda w: ("orchestration_instances", OrchestrationInstance(engine_id=w.engine.id, external_id="42")),
        lambda w: (
            "run_orchestration",
            RunOrchestration(run_id=w.run.id, orchestration_instance_id=w.instance.id),
        ),
    ],
)
def test_every_natural_key_is_unique(world: World, make: Callable[[World], tuple[str, Any]]) -> None:
    world.uow.rollback()  # so that the block has no object for the one that is there
    name, entity = make(world)
    with pytest.raises(DuplicateEntityError):
        getattr(world.uow, name).create(entity)
    assert not entity.is_stored
    assert getattr(world.uow, name).get(entity.id) is not entity
    world.uow.commit()


def test_a_taken_sequence_number_is_named_whoever_takes_it(world: World) -> None:
    taken = f"batch_id,sequence_number={world.batch.id}, 2 is that of another item"
    with pytest.raises(DuplicateEntityError, match=taken):
        world.uow.items.create(Item(batch_id=world.batch.id, sequence_number=2))
    world.items[1].sequence_number = 2
    with pytest.raises(DuplicateEntityError, match=taken):
        world.uow.items.update(world.items[1].id, world.items[1])
    world.uow.rollback()
    with pytest.raises(DuplicateKey, match=taken):
        Item.create_many([{"batch_id": world.batch.id, "sequence_number": 2}])


def test_names_can_be_used_again_after_deletion(world: World) -> None:
    for soft in (True, False):
        found = world.uow.batches.get_by_automation_and_name(world.automation.id, "Q1")
        assert found is not None
        assert world.uow.batches.delete(found.id, soft=soft)
        world.uow.batches.create(Batch(automation_id=world.automation.id, name="Q1"))
    assert world.uow.batches.count(name="Q1") == 1
    assert world.uow.batches.count(name="Q1", include_soft_deleted=True) == 3


def test_moves_made_before_create_are_stored_with_it(uow: UnitOfWork) -> None:
    automation = uow.automations.create(Automation(name="moving"))
    run = Run(automation_id=automation.id)
    run.start()
    run.complete()
    assert uow.runs.count() == 0
    uow.runs.create(run, user="ann")
    assert [(past.version, past.status, past.updated_by) for past in reversed(run.history())] == [
        (0, S.PENDING, "ann"),
        (1, S.PROCESSING, "ann"),
        (2, S.COMPLETED, "ann"),
    ]


def test_an_entity_of_another_kind_or_already_stored_is_refused(world: World) -> None:
    with pytest.raises(RepositoryError, match="Run is no Batch"):
        world.uow.batches.create(world.run)  # type: ignore[arg-type]
    with pytest.raises(DuplicateEntityError, match="version 1"):
        world.uow.runs.create(world.run)
    with pytest.raises(ValidationError):
        world.uow.runs.create(Run(automation_id=world.automation.id, correlation_id="x" * 101))
    for user in ("", " ", "x" * 101, 5):
        with pytest.raises(RepositoryError, match="user="):
            world.uow.runs.update(world.run.id, world.run, user=user)  # type: ignore[arg-type]


# -- updating


def test_start_and_update_is_one_more_version(uow: UnitOfWork) -> None:
    automation = uow.automations.create(Automation(name="counted"), user="ann")
    run = uow.runs.create(Run(automation_id=automation.id), user="ann")
    run.start()
    assert uow.runs.update(run.id, run, user="bob").version == 1
    assert uow.runs.update(run.id, run, user="eve").version == 1
    uow.commit()
    assert [(past.version, past.updated_by) for past in run.history()] == [(1, "bob"), (0, "ann")]


def test_update_needs_an_entity_the_block_has_read(world: World) -> None:
    other = Run.draft({"automation_id": world.automation.id})
    with pytest.raises(ConcurrencyError, match="not tracked"):
        world.uow.runs.update(other.id, other)
    with pytest.raises(RepositoryError, match="has the id"):
        world.uow.runs.update(uuid4(), world.run)
    unborn = Run(automation_id=world.automation.id)
    with pytest.raises(EntityNotFoundError):
        world.uow.runs.update(unborn.id, unborn)


def test_a_status_outside_the_table_is_refused_by_assignment_and_update(world: World) -> None:
    with pytest.raises(InvalidStateError):
        world.executions[1].status = S.COMPLETED
    with pytest.raises(InvalidStateError):
        world.executions[0].complete()
    assert (world.executions[0].error_message, world.executions[0].status) == ("no", S.FAILED)
    assert world.uow.item_executions.update(world.executions[1].id, world.executions[1]).status == S.PENDING


def test_a_stale_update_says_who_wrote_and_the_block_goes_on(world: World, eventic: str) -> None:
    write_elsewhere(world.run)
    world.run.error_summary = "mine"
    with pytest.raises(ConcurrencyError, match="theirs") as caught:
        world.uow.runs.update(world.run.id, world.run)
    assert isinstance(caught.value, VersionConflict)
    assert (caught.value.expected, caught.value.actual) == (1, 2)
    assert world.run.error_summary == "mine"
    world.uow.runs.refresh(world.run)
    assert world.run.error_summary == "theirs"
    world.run.error_summary = "ours"
    world.uow.runs.update(world.run.id, world.run)
    world.uow.commit()
    assert world.run.version == 3


def write_elsewhere(run: Run) -> None:
    """Write a run in another thread, as another process would."""

    def write() -> None:
        with Eventic.acting(actor="theirs"):
            Run.hydrate(run.id).error_summary = "theirs"

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()


def test_activity_is_stored_by_update(world: World) -> None:
    world.automation.deactivate()
    assert not world.automation.is_active
    world.uow.automations.update(world.automation.id, world.automation, user="bob")
    assert (world.automation.version, world.automation.updated_by) == (1, "bob")
    assert world.uow.automations.get_by_name("import") is None
    world.automation.activate()
    world.uow.automations.update(world.automation.id, world.automation)
    assert (world.automation.version, world.automation.is_active) == (2, True)
    assert world.uow.automations.get_by_name("import") is world.automation


def test_touch_changes_only_the_audit(world: World) -> None:
    before = world.automation.model_dump(exclude={"version", "version_id"})
    world.automation.touch("tom")
    world.uow.automations.update(world.automation.id, world.automation)
    assert world.automation.model_dump(exclude={"version", "version_id"}) == before
    audit = world.automation.audit
    assert (audit.created_by, audit.updated_by, world.automation.version) == ("ann", "tom", 1)
    assert audit.created_at is not None
    assert audit.updated_at is not None
    assert audit.updated_at > audit.created_at


def test_schemas_and_payloads_can_be_cleared_and_count_as_a_change(world: World) -> None:
    world.batch.payload = {"a": 1}
    assert world.uow.batches.update(world.batch.id, world.batch).version == 1
    world.batch.payload = None
    assert world.uow.batches.update(world.batch.id, world.batch).version == 2
    assert world.batch.payload is None


def test_refresh_needs_a_tracked_entity_that_is_there(world: World) -> None:
    with pytest.raises(RepositoryError, match="not tracked"):
        world.uow.runs.refresh(Run.draft({"automation_id": world.automation.id}))
    world.uow.runs.delete(world.run.id, soft=True)
    with pytest.raises(EntityNotFoundError) as caught:
        world.uow.runs.refresh(world.run)
    assert isinstance(caught.value, (RecordNotFound, KeyError))


# -- deleting


def test_soft_deletion_leaves_the_children_and_the_other_takes_them_along(world: World) -> None:
    uow = world.uow
    assert uow.automations.delete(world.automation.id, soft=True, user="zed")
    assert uow.runs.count() == 1
    world.automation.activate()
    uow.commit()
    assert uow.automations.delete(world.automation.id, user="zed")
    uow.commit()
    counts = {name: getattr(uow, name).count() for name in ENTITIES}
    left = {"automations": 1, "engines": 1, "orchestration_instances": 1}
    assert counts == {name: left.get(name, 0) for name in ENTITIES}
    assert all(child.updated_by == "zed" for child in (world.batch, world.run, *world.items, *world.executions))
    assert not any(child.is_active for child in (world.batch, world.run, world.link, *world.executions))
    assert [past.deleted for past in world.batch.history()] == [True, False]


def test_children_in_memory_are_no_ghosts(world: World) -> None:
    world.uow.runs.delete(world.run.id)
    assert world.uow.item_executions.get(world.executions[0].id) is None
    assert world.uow.batch_executions.list_by_run(world.run.id) == []
    with pytest.raises(RecordNotFound):
        world.executions[1].start()


def test_deletion_can_insist_on_a_version(world: World) -> None:
    with pytest.raises(ConcurrencyError) as caught:
        world.uow.runs.delete(world.run.id, expected_version=0)
    assert (caught.value.expected, caught.value.actual) == (0, 1)
    assert world.run.is_active
    assert world.uow.runs.delete(world.run.id, expected_version=1)
    assert not world.uow.runs.delete(world.run.id, expected_version=1)


def test_a_repository_outside_its_block_says_so(eventic: str) -> None:
    uow = UnitOfWork(DatabaseConfig(eventic))
    for _ in range(2):
        for call in (lambda: uow.runs.list(), lambda: uow.runs.get(uuid4()), lambda: uow.items.count()):
            with pytest.raises(ScopeError, match="not open"):
                call()
        with uow:
            assert uow.runs.list() == []
