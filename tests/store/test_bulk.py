"""Bulk creation among other work: its rows may read and write records, and what fails leaves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
import sqlalchemy as sa

from eventic_core import DuplicateKey, Eventic, InvalidRecord, Record
from eventic_core.records.editing import edit_scope


class Shelf(Record, unique=["place"]):
    place: str
    books: int = 0


class Book(Record, unique=["title"]):
    title: str
    shelf: str = ""


pytestmark = pytest.mark.usefixtures("eventic")
SCOPES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "unit of work": Eventic.unit_of_work,
    "transaction": Eventic.transaction,
    "edit": lambda: Shelf(place="other").edit(),
}


@pytest.mark.parametrize("scope", SCOPES)
def test_rows_may_read_and_change_records_of_the_open_scope(scope: str) -> None:
    def rows(shelf: Shelf) -> Iterator[dict[str, str]]:
        for number in range(7):
            found = Shelf.where(place="hall").first()
            assert found is shelf
            found.books += 1
            yield {"title": f"t{number}", "shelf": Shelf.hydrate(shelf.id).place}

    with SCOPES[scope]():
        shelf = Shelf(place="hall")
        assert len(Book.create_many(rows(shelf))) == 7
    assert Book.where(shelf="hall").count() == 7
    assert Shelf.hydrate(shelf.id).books == shelf.books == 7


def test_rows_are_sent_as_they_come() -> None:
    stored: list[int] = []

    def rows() -> Iterator[dict[str, str]]:
        for number in range(20_001):
            if number % 10_000 == 0:
                stored.append(Book.where().count())
            yield {"title": f"t{number}"}

    with Eventic.unit_of_work():
        Book.create_many(rows())
    assert stored == [0, 10_000, 20_000]


def bad_row() -> Iterator[dict[str, Any]]:
    yield from ({"title": f"t{number}"} for number in range(12_000))
    Shelf.where(place="hall").all()[0].books = 5
    Shelf.where().count()
    yield {"title": 5}


@pytest.mark.parametrize(
    ("rows", "error"),
    [(bad_row, InvalidRecord), (lambda: [{"title": f"t{n % 6000}"} for n in range(6001)], DuplicateKey)],
)
def test_what_fails_in_the_middle_leaves_nothing_of_itself(rows: Callable[[], Any], error: type[Exception]) -> None:
    with Eventic.unit_of_work():
        shelf = Shelf(place="hall")
        with pytest.raises(error):
            Book.create_many(rows())
        assert (Book.where().count(), shelf.books) == (0, 0)
        Book.create_many([{"title": "t0"}])
    assert (Book.where().count(), Shelf.hydrate(shelf.id).books) == (1, 0)


def test_an_inner_block_that_fails_takes_its_bulk_creation_along() -> None:
    with Eventic.unit_of_work():
        with pytest.raises(LookupError), edit_scope():
            Book.create_many([{"title": "lost"}])
            raise LookupError
        Book.create_many([{"title": "kept"}])
    assert [book.title for book in Book.where()] == ["kept"]


def test_an_inner_block_that_fails_takes_its_own_sql_along() -> None:
    insert = sa.text("insert into shop (n) values (1)")
    with Eventic.unit_of_work():
        Eventic.connection().execute(sa.text("create table shop (n int)"))
        with pytest.raises(LookupError), edit_scope():
            Eventic.connection().execute(insert)
            raise LookupError
        Eventic.connection().execute(insert)
        assert Eventic.connection().execute(sa.text("select count(*) from shop")).scalar_one() == 1
