"""Appends that pass through versions: stored as if each version had been written whole, all or none."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some
from pydantic_core import to_json

from eventic_core import Eventic
from eventic_core.automation import Item, ItemExecution, automation
from eventic_core.automation.executions import BatchExecution, item_execution_id
from eventic_core.automation.outcomes import pending
from eventic_core.errors import InvalidStateError
from eventic_core.records.ids import new_id
from eventic_core.records.port import Append, Passed, current_store
from eventic_core.store import PostgresStore
from eventic_core.store.handlers import HandlerList, Subscribed, Subscription


def stored(url: str, record_id: UUID) -> list[tuple[Any, ...]]:
    """Read a record's versions, the first one first."""
    sql = """
    select version, reason, calls, recorded_at, superseded_at, version_id, position, data::text
    from eventic.records where id = %s order by version
    """
    with psycopg.connect(url) as connection:
        return connection.execute(sql, (record_id,)).fetchall()


WORDS = some.sampled_from([None, True, False, 0, 1, 1.0, "1", ""])  # of which some are equal to others
VALUES = some.recursive(WORDS, lambda inner: some.lists(inner, max_size=2) | some.dictionaries(some.text("xy"), inner))
PROPERTIES = some.dictionaries(some.sampled_from("abc"), VALUES, max_size=3)
PATHS = some.sampled_from(
    [
        ["PENDING", "PROCESSING", "COMPLETED"],
        ["PENDING", "PROCESSING", "RETRYING", "PROCESSING", "FAILED"],
        ["PENDING", "CANCELLED"],
        ["PENDING"],
    ]
)


def chain(path: list[str], properties: list[dict[str, Any]], results: list[Any], *, steps: bool = False) -> Append:
    """Make the append of an item that goes this way, each version with values of its own, the third with a key more."""
    base = {**pending(str(uuid4()), str(uuid4()), None), "item_id": str(uuid4()), "number": 1}
    documents = []
    for place, status in enumerate(path):
        own = {"properties": properties[place % len(properties)], "result_payload": results[place % len(results)]}
        documents.append({**base, **own, "status": status, **({"steps": None} if steps and place == 2 else {})})
    *passed, (reason, calls, document) = [Passed(f"move {place}", None, one) for place, one in enumerate(documents)]
    definition = ItemExecution.__eventic__
    stamp = ("eve", reason, None, "a run", 1, False, (), new_id(), calls, None, document, tuple(passed))
    last, data = len(passed), to_json(document)
    return Append(new_id(), last, definition.class_type, data, definition.schema_version, *stamp)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(paths=[["PENDING", "PROCESSING", "COMPLETED"]], properties=[{}], results=[1, True, 1.0], steps=False)
@given(
    paths=some.lists(PATHS, min_size=1, max_size=4),
    properties=some.lists(PROPERTIES, min_size=1, max_size=3),
    results=some.lists(VALUES, min_size=1, max_size=4),
    steps=some.booleans(),
)
def test_versions_sent_as_what_differs_are_stored_as_those_sent_whole(
    eventic: str, paths: list[list[str]], properties: list[dict[str, Any]], results: list[Any], *, steps: bool
) -> None:
    chains = [chain(path, properties, results, steps=steps) for path in paths]
    current_store().append(chains)
    for made in chains:
        twin = made._replace(id=new_id(), version_id=new_id())
        for version in twin.each():
            current_store().append([version])
        ours, theirs = stored(eventic, made.id), stored(eventic, twin.id)
        assert [(row[:3], row[7]) for row in ours] == [(row[:3], row[7]) for row in theirs]
        assert ours[-1][5] == made.version_id


@pytest.mark.parametrize("path", [["COMPLETED", "PROCESSING"], ["RETRYING", "PROCESSING"], ["PROCESSING", "PENDING"]])
def test_a_chain_is_refused_whole_where_one_of_its_moves_is_illegal(eventic: str, path: list[str]) -> None:
    good = chain(["PENDING", "PROCESSING", "COMPLETED"], [{}], [None])
    bad = chain(["PENDING", *path], [{}], [None])
    with pytest.raises(InvalidStateError):
        current_store().append([good, bad])
    assert stored(eventic, good.id) == stored(eventic, bad.id) == []


@pytest.mark.usefixtures("eventic")
def test_handlers_hear_of_each_version_that_is_passed_through() -> None:
    Eventic.launch()
    store = current_store()
    assert isinstance(store, PostgresStore)
    handlers = HandlerList(store.database, store.work)
    wanted: dict[str, tuple[Literal["create", "update", "call"], str]] = {
        "born": ("create", ""),
        "moved": ("update", ""),
        "second": ("call", "move 1"),
    }
    handlers.all = tuple(
        Subscribed(Subscription(name, "ItemExecution", kind, method), "0", caught_up=True)
        for name, (kind, method) in wanted.items()
    )
    made = chain(["PENDING", "PROCESSING", "COMPLETED"], [{}], [None])
    made = made._replace(passed=tuple(one._replace(calls=one.reason) for one in made.passed))
    heard = [work.id.replace(str(made.id), "it") for work in handlers.follow_ups([made])]
    assert heard == ["born:it:0", "moved:it:1", "second:it:1", "moved:it:2"]


# -- who was there first


@automation("passed: squares")
def passed_squares(item: dict[str, int]) -> int:
    return item["number"] ** 2


def test_an_execution_that_somebody_else_made_meanwhile_is_gone_on_with(eventic: str) -> None:
    batch = passed_squares.batch("five", [{"number": number} for number in range(1, 6)])
    run = passed_squares.start(batch)
    (part,) = BatchExecution.where(run_id=run.id).all()
    item = Item.where(batch_id=batch.id, sequence_number=3).all()[0]
    document = {
        **pending(str(run.id), str(part.id), 3),
        "item_id": str(item.id),
        "number": 3,
        "properties": {"by": "hand"},
    }
    made = chain(["PENDING"], [{}], [None])
    hand = {"id": item_execution_id(run.id, item.id), "data": to_json(document), "document": document}
    current_store().append([made._replace(**hand, before="PENDING")])  # the run has counted it as that already
    Eventic.launch()
    run.wait(timeout_seconds=100)
    found = {execution.number: execution for execution in ItemExecution.where(run_id=run.id).all()}
    assert [found[number].result_payload for number in range(1, 6)] == [1, 4, 9, 16, 25]
    assert [str(version.status) for version in found[3].history()] == ["COMPLETED", "PROCESSING", "PENDING"]
    assert found[3].properties == {"by": "hand"}
