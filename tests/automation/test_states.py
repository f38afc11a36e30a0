"""The table of moves: each legal one is a version of its own, each other one is refused however it is tried."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from pydantic_core import to_json

from eventic_core import Eventic
from eventic_core.automation import (
    BatchExecution,
    ExecutionStatus,
    InvalidStateError,
    ItemExecution,
    OrchestrationInstance,
    Run,
)
from eventic_core.automation.status import MOVES, NAMED_MOVES
from eventic_core.records.ids import new_id
from eventic_core.records.port import Append, current_store

S = ExecutionStatus
KINDS: list[type[Any]] = [Run, BatchExecution, ItemExecution, OrchestrationInstance]
PATHS: dict[str, list[str]] = {
    "PENDING": [],
    "PROCESSING": ["PROCESSING"],
    "RETRYING": ["PROCESSING", "RETRYING"],
    "COMPLETED": ["PROCESSING", "COMPLETED"],
    "FAILED": ["PROCESSING", "FAILED"],
    "CANCELLED": ["CANCELLED"],
    "SKIPPED": ["SKIPPED"],
}
"""How to come to each status."""
LEGAL = [(str(before), str(after)) for before, allowed in MOVES.items() for after in sorted(allowed)]
ILLEGAL = [(str(b), str(a)) for b, a in product(S, S) if b != a and a not in MOVES[b]]
METHODS: dict[type[Any], dict[str, tuple[str, Callable[[Any], Any]]]] = {
    kind: {
        "start": ("PROCESSING", lambda entity: entity.start()),
        "complete": ("COMPLETED", lambda entity: entity.complete()),
        "fail": ("FAILED", (lambda e: e.fail("no")) if kind is ItemExecution else (lambda e: e.fail())),
        "cancel": ("CANCELLED", (lambda e: e.cancel("no")) if kind is Run else (lambda e: e.cancel())),
        "skip": ("SKIPPED", lambda entity: entity.skip()),
    }
    for kind in KINDS
}
for _kind in (Run, ItemExecution):
    METHODS[_kind]["reopen"] = ("PENDING", lambda entity: entity.reopen())
METHODS[BatchExecution]["redrive"] = ("RETRYING", lambda entity: entity.redrive())


@pytest.fixture(autouse=True)
def url(eventic: str) -> str:
    return eventic


def values(kind: type[Any]) -> dict[str, Any]:
    names = {
        Run: ("automation_id",),
        BatchExecution: ("run_id", "batch_id"),
        ItemExecution: ("run_id", "batch_execution_id", "item_id"),
        OrchestrationInstance: ("engine_id",),
    }[kind]
    return {name: uuid4() for name in names} | ({"external_id": str(uuid4())} if kind is OrchestrationInstance else {})


def brought_to(kind: type[Any], status: str) -> Any:
    entity = kind(**values(kind))
    for step in PATHS[status]:
        entity.update(status=step)
    return entity


def versions(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("select count(*) from eventic.records").fetchone()
    assert row is not None
    return int(row[0])


def path_of(entity: Any) -> list[str]:
    return [str(past.status) for past in reversed(entity.history())]


# -- what is allowed


@pytest.mark.parametrize("kind", KINDS)
def test_every_legal_move_is_a_version_of_its_own(kind: type[Any]) -> None:
    for before, after in LEGAL:
        entity = brought_to(kind, before)
        entity.update(status=after)
        assert path_of(entity) == ["PENDING", *PATHS[before], after]
        assert entity.stamp.workflow_id is None


@pytest.mark.parametrize("kind", KINDS)
def test_moves_of_one_unit_of_work_are_a_version_each(kind: type[Any]) -> None:
    long = ["PROCESSING", "RETRYING", "PROCESSING", "FAILED", "PENDING", "PROCESSING", "FAILED", "RETRYING", "FAILED"]
    long += ["RETRYING", "PROCESSING", "COMPLETED"]
    assert set(pairwise(["PENDING", *long])) <= set(LEGAL)
    with Eventic.unit_of_work():
        entity = kind(**values(kind))
        for step in long:
            entity.status = S(step)
    assert path_of(entity) == ["PENDING", *long]
    assert [past.version for past in entity.history()] == list(range(len(long), -1, -1))
    assert entity.status == S.COMPLETED


def test_moves_of_several_in_one_unit_of_work_do_not_mix() -> None:
    with Eventic.unit_of_work():
        made = [kind(**values(kind)) for kind in KINDS]
        for step in ("PROCESSING", "FAILED", "RETRYING"):
            for entity in made:
                entity.update(status=step)
    assert [path_of(entity) for entity in made] == [["PENDING", "PROCESSING", "FAILED", "RETRYING"]] * len(KINDS)


# -- what is refused


def by_method(entity: Any, after: str) -> bool:
    for target, call in METHODS[type(entity)].values():
        if target == after:
            call(entity)
            return True
    return False


def by_update(entity: Any, after: str) -> bool:
    entity.update(status=after, started_at=None)
    return True


def by_assignment(entity: Any, after: str) -> bool:
    entity.status = S(after)
    return True


def by_assignment_in_a_block(entity: Any, after: str) -> bool:
    with Eventic.unit_of_work():
        entity.status = S(after)
    return True


def append_of(entity: Any, after: str, **values: Any) -> Append:
    definition = type(entity).__eventic__
    data = to_json({**entity.model_dump(mode="json", exclude={"id", "version", "version_id"}), "status": after})
    made = Append(
        entity.id,
        entity.version + 1,
        definition.class_type,
        data,
        definition.schema_version,
        "eve",
        None,
        None,
        None,
        None,
        False,
        (),
        new_id(),
    )
    return made._replace(**values)


def by_append(entity: Any, after: str) -> bool:
    current_store().append([append_of(entity, after)])
    return True


def refusal(how: Callable[..., bool], entity: Any, after: str) -> InvalidStateError | None:
    """Give the error of trying a move; `None` if the class has no method for it."""
    try:
        found = how(entity, after)
    except InvalidStateError as error:
        return error
    assert not found, (entity.status, after)
    return None


HOW = [by_method, by_update, by_assignment, by_assignment_in_a_block, by_append]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", KINDS)
def test_every_other_move_is_refused_and_changes_nothing(kind: type[Any], how: Callable[..., bool], url: str) -> None:
    entities = {status: brought_to(kind, status) for status in PATHS}
    stored, tried = versions(url), 0
    for before, after in ILLEGAL:
        entity = entities[before]
        if (kind, how) == (ItemExecution, by_method) and (before, after) == ("PROCESSING", "SKIPPED"):
            continue  # a named move
        if how is by_method and NAMED_MOVES.get((before, after)) in METHODS[kind]:
            continue
        known = entity.model_dump()
        error = refusal(how, entity, after)
        if error is not None:
            assert (error.entity_name, error.entity_id) == (kind.__name__, entity.id)
            assert (error.current_state, error.operation) == (before, after)
            tried += 1
        assert entity.model_dump() == known
    assert tried
    assert versions(url) == stored
    for before, entity in entities.items():
        assert str(kind.hydrate(entity.id).status) == before


@pytest.mark.parametrize("status", [status for status in S if status != S.PENDING])
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_one_is_pending_however_it_is_made(kind: type[Any], status: ExecutionStatus, url: str) -> None:
    ways: list[Callable[[], object]] = [
        lambda: kind(**values(kind), status=status),
        lambda: kind.draft({**values(kind), "status": status}).save(),
        lambda: kind.create_many([values(kind), {**values(kind), "status": status}]),
    ]
    fresh = brought_to(kind, "PENDING")
    stored = versions(url)
    new = append_of(fresh, str(status), id=uuid4(), version=0)
    ways.append(lambda: current_store().append([new]))
    for way in ways:
        with pytest.raises(InvalidStateError) as caught:
            way()
        error = caught.value
        assert (error.entity_name, error.current_state, error.operation) == (kind.__name__, "new", str(status))
    assert versions(url) == stored


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_moves_with_a_wrong_one_is_refused_as_a_whole(kind: type[Any], url: str) -> None:
    entity = brought_to(kind, "PENDING")
    stored = versions(url)
    steps = ["PROCESSING", "COMPLETED", "FAILED"]
    row = [append_of(entity, step, version=entity.version + place) for place, step in enumerate(steps, 1)]
    with pytest.raises(InvalidStateError, match="is COMPLETED, which does not allow FAILED"):
        current_store().append(row)
    with pytest.raises(InvalidStateError), Eventic.unit_of_work():
        for step in steps:
            entity.status = S(step)
    assert versions(url) == stored
    assert entity.status == S.PENDING


# -- named moves


@pytest.mark.parametrize(("before", "after", "call"), [(str(b), str(a), call) for (b, a), call in NAMED_MOVES.items()])
@pytest.mark.parametrize("kind", KINDS)
def test_a_named_move_is_made_by_its_method_alone(
    kind: type[Any], before: str, after: str, call: str, url: str
) -> None:
    entity = brought_to(kind, before)
    stored = versions(url)
    for other in [name for name in ("redrive", "skip", "complete", "reopen", "start,fail", "") if name != call]:
        with pytest.raises(InvalidStateError):
            current_store().append([append_of(entity, after, calls=other)])
    for how in (by_update, by_assignment, by_assignment_in_a_block):
        with pytest.raises(InvalidStateError):
            how(entity, after)
    assert versions(url) == stored
    if call in METHODS[kind]:
        METHODS[kind][call][1](entity)
    else:
        current_store().append([append_of(entity, after, calls=call)])
        entity.refresh()
    assert path_of(entity) == ["PENDING", *PATHS[before], after]
