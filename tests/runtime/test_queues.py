"""Enqueueing many calls: all or none, in the transaction of whoever does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from eventic_core import Eventic, Record
from eventic_core.errors import NotSerialisable
from eventic_core.runtime import queues

QUEUE = Eventic.queue("queued many")


class Letter(Record, class_type="QueuedLetter"):
    text: str


@Eventic.step(name="queued.many")
def send(number: Any) -> Any:
    return number


@pytest.fixture(autouse=True)
def launched(eventic: str) -> None:
    """The tables of background work, and nobody who does any."""
    Eventic.launch(queues=[])


def enqueued(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("select count(*) from dbos.workflow_status").fetchone()
    assert row is not None
    return int(row[0])


def numbers(count: int) -> Iterator[tuple[int]]:
    return ((number,) for number in range(count))


def test_many_calls_are_enqueued_in_the_transaction_that_is_open(eventic: str) -> None:
    with Eventic.unit_of_work():
        ids = QUEUE.enqueue_many(send, numbers(2_500))
        assert enqueued(eventic) == 0
    assert len(set(ids)) == enqueued(eventic) == 2_500


def bad_argument() -> Iterator[tuple[Any]]:
    yield from numbers(1_500)
    yield (object(),)


def raising() -> Iterator[tuple[Any]]:
    yield from numbers(1_500)
    raise LookupError


@pytest.mark.parametrize(("calls", "error"), [(bad_argument, NotSerialisable), (raising, LookupError)])
@pytest.mark.parametrize("level", [1, 2])
def test_what_fails_half_way_enqueues_nothing_and_leaves_the_rest(
    eventic: str, calls: Callable[[], Any], error: type[Exception], level: int
) -> None:
    with Eventic.unit_of_work():
        letter = Letter(text="before")
        if level == 1:
            with pytest.raises(error):
                QUEUE.enqueue_many(send, calls())
        else:
            with Eventic.unit_of_work(), pytest.raises(error):
                QUEUE.enqueue_many(send, calls())
        letter.text = "after"
    assert enqueued(eventic) == 0
    assert Letter.hydrate(letter.id).text == "after"
    with pytest.raises(error):
        QUEUE.enqueue_many(send, calls())
    assert enqueued(eventic) == 0


def test_what_is_enqueued_in_a_part_that_is_undone_is_undone_with_it(eventic: str) -> None:
    with Eventic.unit_of_work():
        kept = QUEUE.enqueue_many(send, numbers(3))
        with pytest.raises(LookupError), Eventic.unit_of_work():
            QUEUE.enqueue_many(send, numbers(1_500))
            raise LookupError
    assert enqueued(eventic) == 3
    assert {queues.Handle[Any](run_id).status() for run_id in kept} == {"ENQUEUED"}
