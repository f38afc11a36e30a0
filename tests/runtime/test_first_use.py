"""The first background work on a database that DBOS has no tables in yet."""

from __future__ import annotations

import pytest
from conftest import execute

from eventic_core import Eventic, NotLaunched, Record
from eventic_core.runtime.process import process
from eventic_core.runtime.takeover import TakeOver
from eventic_core.store.slots import Slot

pytestmark = pytest.mark.usefixtures("eventic")


class Leaf(Record, class_type="FirstUseLeaf"):
    number: int = 0


@Eventic.step(name="first_use.nothing")
def nothing() -> None:
    """Do nothing."""


def enqueue_in_a_transaction() -> None:
    with Eventic.unit_of_work():
        Leaf()
        assert Leaf.where().count() > 0  # which writes, and so opens the transaction
        Eventic.queue("first_use").enqueue(nothing)


def test_tables_that_would_wait_for_the_open_transaction_are_refused_and_nothing_is_stored() -> None:
    with pytest.raises(NotLaunched, match="eventic migrate"):
        enqueue_in_a_transaction()
    assert Leaf.where().count() == 0


def test_once_the_tables_are_there_a_transaction_may_enqueue() -> None:
    Eventic.queue("first_use").enqueue(nothing)
    enqueue_in_a_transaction()
    assert Leaf.where().count() == 1


def test_a_process_begins_while_another_one_is_making_the_tables(eventic: str) -> None:
    """DBOS makes them in steps, and the one that others look at first gets the column they ask for later."""
    half = "create table dbos.workflow_status (workflow_uuid text primary key, status text, executor_id text)"
    execute(eventic, "create schema dbos", half)
    store = process().store
    slot = Slot(store.database)
    slot.take()
    TakeOver(store, slot).inherit()
    assert store.work.owners(slot.name, slot) == []
    slot.give_up()
