"""The first background work on a database that DBOS has no tables in yet."""

from __future__ import annotations

import pytest

from eventic_core import Eventic, NotLaunched, Record

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
