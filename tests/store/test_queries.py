"""Queries over current records and past moments: filters, orders, pages, counts, streams, bulk and unique keys."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from pydantic import BaseModel, ConfigDict

from eventic_core import (
    Cursor,
    DuplicateKey,
    Eventic,
    Invalid,
    InvalidFilter,
    InvalidRecord,
    InvalidRecordClass,
    Record,
    RecordDeleted,
    RecordNotFound,
    VersionConflict,
)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Place(BaseModel):
    model_config = ConfigDict(frozen=True)
    city: str
    zips: list[int] = []


class Thing(Record):
    name: str
    size: int = 0
    weight: float | None = None
    price: Decimal = Decimal(0)
    born: date | None = None
    seen: datetime | None = None
    takes: timedelta = timedelta()
    colour: Colour = Colour.RED
    done: bool = False
    tags: list[str] = []
    place: Place | None = None
    free: Any = None


f = Thing.fields
pytestmark = pytest.mark.usefixtures("eventic")


def names(*filters: Any, **equal: Any) -> list[str]:
    return [thing.name for thing in Thing.where(*filters, **equal).order_by(f.name)]


def make(name: str, **values: Any) -> Thing:
    return Thing(name=name, **values)


def test_equality_by_field_and_by_property() -> None:
    a, b = make("a", size=1), make("b", size=2, done=True)
    a.properties.add(status="open", rank=3)
    b.properties.add(status="open", nested={"x": [1, 2]})
    assert names(f.size == 1) == ["a"]
    assert names(f.done == True) == ["b"]  # noqa: E712
    assert names(status="open") == ["a", "b"]
    assert names(status="open", size=2) == ["b"]
    assert names(f.properties["rank"] >= 3) == ["a"]
    assert names(f.properties["nested"]["x"] == [1, 2]) == ["b"]
    assert names(id=a.id) == ["a"]
    assert names(status="closed") == []


def test_only_the_current_version_is_found() -> None:
    a = make("a", size=1)
    a.size = 2
    assert names(f.size == 1) == []
    assert names(f.size == 2) == ["a"]


@pytest.mark.parametrize(
    ("low", "high", "field"),
    [
        (2, 10, "size"),
        (2.5, 1e300, "weight"),
        (Decimal("2.5"), Decimal("10.1"), "price"),
        (date(2024, 2, 1), date(2024, 10, 1), "born"),
        (datetime(2024, 1, 1, 3, tzinfo=timezone(timedelta(hours=5))), datetime(2024, 1, 1, tzinfo=UTC), "seen"),
        (timedelta(minutes=90), timedelta(hours=2), "takes"),
        ("a", "b", "name"),
    ],
)
def test_comparison_follows_the_type_of_the_field(low: Any, high: Any, field: str) -> None:
    make(**{"name": "x", field: low})
    make(**{"name": "y", field: high})
    make(**{"name": "zz", **({"size": 99} if field == "size" else {})})
    expression = getattr(f, field)
    base = Thing.where(f.name != "zz")
    assert [getattr(t, field) for t in base.where(expression > low)] == [high]
    assert [getattr(t, field) for t in base.where(expression < high)] == [low]
    assert base.where(expression >= low, expression <= high).count() == 2
    assert [getattr(t, field) for t in base.where(expression == low)] == [low]
    assert [getattr(t, field) for t in base.where(expression.in_([high, low])).order_by(-expression)] == [high, low]


def test_same_instant_in_another_zone_is_equal() -> None:
    make("a", seen=datetime(2024, 1, 1, 12, tzinfo=UTC))
    assert names(f.seen == datetime(2024, 1, 1, 14, tzinfo=timezone(timedelta(hours=2)))) == ["a"]


def test_filters_combine_and_negation_includes_the_absent() -> None:
    make("a", weight=1.0)
    make("b", weight=2.0)
    make("c")
    assert names((f.weight == 1.0) | (f.weight == 2.0)) == ["a", "b"]
    assert names((f.weight > 0) & (f.name != "a")) == ["b"]
    assert names(~(f.weight > 1)) == ["a", "c"]
    assert names(f.weight != 1.0) == ["b", "c"]
    assert names(f.weight == None) == ["c"]  # noqa: E711
    assert names(f.weight != None) == ["a", "b"]  # noqa: E711
    assert names(f.weight.in_([1.0, None])) == ["a", "c"]
    assert names(f.weight.in_([])) == []


def test_text_lists_and_nested_models() -> None:
    make("alpha", tags=["x", "y"], place=Place(city="Oslo", zips=[1, 2]), colour="blue")
    make("beta", tags=["y"], place=Place(city="Rome"), free={"k": ["deep", 5]})
    assert names(f.name.contains("ph")) == ["alpha"]
    assert names(f.name.starts_with("be")) == ["beta"]
    assert names(f.name.contains("%")) == []
    assert names(f.tags.contains("y")) == ["alpha", "beta"]
    assert names(f.tags == ["x", "y"]) == ["alpha"]
    assert names(f.place.city == "Rome") == ["beta"]
    assert names(f.place.zips.contains(2)) == ["alpha"]
    assert names(f.colour == Colour.BLUE) == ["alpha"]
    assert names(f.free["k"].contains("deep")) == ["beta"]
    assert names(f.place == Place(city="Rome")) == ["beta"]


def test_values_that_look_like_sql_or_formats_are_only_values() -> None:
    nasty = "'; drop table eventic.records; -- %s %(x)s \\ \" {0}"
    thing = make(nasty)
    thing.properties.add(**{nasty: nasty, "50%": 1})
    assert names(f.name == nasty) == [nasty]
    assert names(**{nasty: nasty}) == [nasty]
    assert names(f.properties["50%"] >= 1) == [nasty]
    assert names(f.name.contains("%s")) == [nasty]


def test_mistakes_in_queries_are_named() -> None:
    cases = [
        (lambda: f.colr, "colr"),
        (lambda: Thing.where(f.size > "many"), "compared"),
        (lambda: Thing.where(size="many"), "compared"),
        (lambda: Thing.where(f.size > None), "None"),
        (lambda: Thing.where(True), "not a filter"),
        (lambda: bool(f.size == 1), "truth value"),
        (lambda: bool(f.size), "truth value"),
        (lambda: (f.size > 1) & True, "not a filter"),
        (lambda: Thing.where().order_by("name"), "order_by"),
        (lambda: Thing.where().limit(-1), "negative"),
        (lambda: Thing.where().page(0), "at least one"),
        (lambda: Thing.where().page(2, after="nonsense"), "cursor"),
        (lambda: f.place.street, "street"),
        (lambda: f.size.matches, "matches"),
        (lambda: f.size.starts_with("1"), "text"),
        (lambda: list(f.tags), "iterated"),
    ]
    for attempt, text in cases:
        with pytest.raises(InvalidFilter, match=text):
            attempt()


def test_order_puts_absent_values_last_and_breaks_ties_by_id() -> None:
    for name, weight in [("a", 2.0), ("b", None), ("c", 10.0), ("d", 2.0)]:
        make(name, weight=weight)
    assert [t.name for t in Thing.where().order_by(f.weight)] == ["a", "d", "c", "b"]
    assert [t.name for t in Thing.where().order_by(f.weight.desc(), -f.name)] == ["c", "d", "a", "b"]
    assert [t.name for t in Thing.where()] == ["a", "b", "c", "d"]
    assert [t.name for t in Thing.where().order_by(f.weight).limit(2)] == ["a", "d"]
    assert Thing.where().order_by(f.weight).limit(0).all() == []


@pytest.mark.parametrize("order", [(), (-f.weight,), (f.weight, -f.name), (f.free,), (f.seen, f.price), (-f.version,)])
def test_pages_join_up_to_the_whole_whatever_the_order(order: tuple[Any, ...]) -> None:
    for number in range(11):
        thing = make(
            f"n{number:02}",
            weight=None if number % 4 == 0 else number // 2,
            free=[None, 1, "x", [2], {"a": 1}][number % 5],
            seen=None if number % 3 == 0 else datetime(2024, 1, 1 + number // 2, tzinfo=UTC),
            price=Decimal(number % 2),
        )
        if number % 2:
            thing.size = 5
    query = Thing.where(f.name != "n03").order_by(*order)
    whole, found, cursor = [t.name for t in query], [], None
    while True:
        page = query.page(3, after=cursor)
        found += [t.name for t in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert found == whole
    assert len(whole) == 10


def test_page_is_not_disturbed_by_new_rows_and_cursor_belongs_to_its_order() -> None:
    for name in "bdf":
        make(name)
    first = Thing.where().order_by(f.name).page(2)
    make("a")
    second = Thing.where().order_by(f.name).page(2, after=first.next)
    assert [t.name for t in first.items + second.items] == ["b", "d", "f"]
    with pytest.raises(InvalidFilter, match="same order"):
        Thing.where().order_by(-f.name).page(2, after=first.next)


def test_count_first_and_stream() -> None:
    assert (Thing.where().first(), Thing.where().count()) == (None, 0)
    Thing.create_many({"name": f"n{number:04}"} for number in range(2500))
    assert Thing.where().count() == 2500
    assert Thing.where(f.name > "n2000").limit(3).count() == 499
    first = Thing.where().order_by(-f.name).first()
    assert first is not None
    assert first.name == "n2499"
    streamed = Thing.stream()
    assert next(streamed).name == "n0000"
    assert sum(1 for _ in streamed) == 2499


def test_as_of_sees_every_record_as_it_was() -> None:
    thing = make("a", size=1)
    created = thing.stamp.recorded_at
    thing.size = 2
    changed = thing.stamp.recorded_at
    late = make("b")
    thing.delete()
    deleted = thing.stamp.recorded_at
    Thing.restore(thing.id)
    before = Thing.as_of(created - timedelta(microseconds=1))
    with pytest.raises(RecordNotFound):
        before.hydrate(thing.id)
    assert before.where().count() == 0
    assert Thing.as_of(created).hydrate(thing.id).size == 1
    assert Thing.as_of(changed).hydrate(thing.id).size == 2
    assert [t.size for t in Thing.as_of(created).where(f.size == 1)] == [1]
    assert [t.name for t in Thing.as_of(late.stamp.recorded_at).where().order_by(f.name)] == ["a", "b"]
    assert [t.name for t in Thing.as_of(deleted).where()] == ["b"]
    with pytest.raises(RecordDeleted):
        Thing.as_of(deleted).hydrate(thing.id)
    with pytest.raises(Invalid, match="time zone"):
        Thing.as_of(datetime(2024, 1, 1))  # noqa: DTZ001


def test_past_object_cannot_overwrite_the_present() -> None:
    thing = make("a", size=1)
    thing.size = 2
    past = Thing.hydrate(thing.id, version=0)
    with pytest.raises(VersionConflict):
        past.size = 3
    assert past.size == 1


class Account(Record, unique=["email", ("tenant", "code")]):
    email: str | None = None
    tenant: str = "t"
    code: int = 0


class Admin(Account):
    level: int = 1


def test_unique_key_refuses_a_second_current_holder() -> None:
    first = Account(email="a@x", code=1)
    with pytest.raises(DuplicateKey, match=r'email="a@x"'):
        Account(email="a@x", code=2)
    with pytest.raises(DuplicateKey, match="tenant,code"):
        Account(code=1)
    with pytest.raises(DuplicateKey):
        Admin(email="a@x", code=3)
    second = Account(email="b@x", code=2)
    with pytest.raises(DuplicateKey):
        second.email = "a@x"
    assert (second.email, second.version) == ("b@x", 0)
    assert Account.where().count() == 2
    first.email = "c@x"
    second.email = "a@x"
    assert Account.hydrate(second.id).email == "a@x"


def test_unique_key_is_freed_by_null_and_delete_and_taken_back_by_restore() -> None:
    first = Account(email="a@x", code=1)
    first.email = None
    second = Account(email="a@x", code=2)
    second.delete()
    third = Account(email="a@x", code=2)
    with pytest.raises(DuplicateKey):
        Account.restore(second.id)
    third.delete()
    assert Account.restore(second.id).email == "a@x"
    with pytest.raises(DuplicateKey):
        first.revert(0)
    assert (first.email, first.version) == (None, 1)


def test_unique_keys_hold_within_a_unit_of_work() -> None:
    with pytest.raises(DuplicateKey), Eventic.unit_of_work():
        Account(email="a@x", code=1)
        Account(email="a@x", code=2)
    assert Account.where().count() == 0


def test_unique_and_indexes_name_fields() -> None:
    with pytest.raises(InvalidRecordClass, match="nope"):

        class Wrong(Record, unique=["nope"]):
            name: str


def test_create_many_stores_all_rows_and_gives_their_ids() -> None:
    seen: list[int] = []
    ids = Account.create_many(({"email": f"{n}@x", "code": n} for n in range(2300)), progress=seen.append)
    assert (len(ids), seen) == (2300, [1000, 2000, 2300])
    assert [Account.hydrate(ids[n]).email for n in (0, 2299)] == ["0@x", "2299@x"]
    assert Account.hydrate(ids[5]).stamp.reason == "create_many"
    with pytest.raises(DuplicateKey):
        Account(email="7@x", code=99999)
    assert Account.create_many([]) == []


def test_create_many_refuses_all_when_one_row_is_bad() -> None:
    rows = [{"email": f"{n}@x", "code": n} for n in range(5)]
    with pytest.raises(InvalidRecord, match=r"Row 4.*code"):
        Account.create_many([*rows[:3], {"code": "x"}, *rows[3:]])
    with pytest.raises(DuplicateKey):
        Account.create_many([*rows, rows[0]])
    with pytest.raises(ZeroDivisionError):
        Account.create_many({"email": str(1 // (3 - n)), "code": n} for n in range(5))
    with pytest.raises(InvalidRecord, match="neither"):
        Account.create_many([5])  # type: ignore[list-item]
    assert Account.where().count() == 0


def test_create_many_joins_the_open_unit_of_work_and_takes_drafts() -> None:
    draft = Account.model_validate({"email": "d@x"})
    with pytest.raises(ZeroDivisionError), Eventic.unit_of_work():
        Account.create_many([{"email": "a@x", "code": 1}])
        assert Account.where().count() == 1
        raise ZeroDivisionError
    with Eventic.unit_of_work():
        held = Account(email="h@x", code=4)
        with pytest.raises(DuplicateKey):
            Account.create_many([{"email": "h@x", "code": 5}])
        assert Account.create_many([draft]) == [draft.id]
    assert (Account.where().count(), held.version) == (2, 0)


def test_change_feed_gives_every_version_once_in_order() -> None:
    a = make("a")
    a.size = 1
    b = make("b")
    a.delete()
    whole = [(t.name, t.version, t.deleted) for t in Thing.changes()]
    assert whole == [("a", 0, False), ("a", 1, False), ("b", 0, False), ("a", 2, True)]
    cursor = None
    stepped = []
    while batch := list(Thing.changes(after=cursor, limit=1)):
        cursor = batch[-1].cursor
        stepped += [(t.name, t.version, t.deleted) for t in batch]
    assert stepped == whole
    Account(email="other@x")
    assert list(Thing.changes(after=cursor)) == []
    b.size = 9
    assert [t.version for t in Thing.changes(after=cursor)] == [1]


def test_change_feed_orders_transaction_ids_as_numbers(eventic: str) -> None:
    thing = make("a")
    thing.size = 1
    with psycopg.connect(eventic, autocommit=True) as connection:
        connection.execute("alter table eventic.records disable trigger user")
        connection.execute("update eventic.records set xid = (9 + version)::text::xid8")
    assert [change.cursor.xid for change in Thing.changes()] == [9, 10]
    assert [change.version for change in Thing.changes(after=Cursor(9, 10**9))] == [1]


def test_unknown_ids_are_not_found_and_named() -> None:
    missing = uuid4()
    for attempt in (
        lambda: Thing.hydrate(missing),
        lambda: Thing.hydrate("no uuid"),
        lambda: Thing.hydrate(make("a").id, version=7),
        lambda: Thing.hydrate(make("a").id, version=-1),
        lambda: Account.hydrate(make("a").id),
        lambda: Thing.restore(missing),
    ):
        with pytest.raises(RecordNotFound) as caught:
            attempt()
        assert isinstance(caught.value, KeyError)
    with pytest.raises(RecordNotFound, match=str(missing)):
        Thing.hydrate(missing)
