"""What a type checker says of reading and queries; read by mypy, never run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, assert_type

from eventic_core import AsOf, Blame, Change, Cursor, Diff, Eventic, Filter, Page, Query, Record, StoredVersion
from eventic_core.records import FieldExpression, Fields

if TYPE_CHECKING:
    from uuid import UUID


class Todo(Record, class_type="TypedTodo"):
    text: str
    done: bool = False


class Chore(Todo):
    room: str


def hydrate(key: UUID) -> None:
    assert_type(Todo.hydrate(key), Todo)
    assert_type(Todo.hydrate(str(key), version=2), Todo)
    assert_type(Chore.hydrate(key).room, str)
    Todo.hydrate(3)  # type: ignore[arg-type]
    Todo.hydrate(key, 2)  # type: ignore[call-arg]
    Todo.hydrate(key, version="2")  # type: ignore[arg-type]


def query() -> None:
    found = Todo.where(Todo.fields.text == "a", done=False)
    assert_type(found, Query[Todo])
    assert_type(found.where(text="a").order_by(-Todo.fields.text, Todo.fields.id.desc()).limit(3), Query[Todo])
    assert_type(found.all(), list[Todo])
    assert_type(found.first(), Todo | None)
    assert_type(found.count(), int)
    assert_type(found.page(10), Page[Todo])
    assert_type(found.page(10, after="cursor").items, list[Todo])
    assert_type(found.page(10).next, str | None)
    assert_type([item.text for item in found], list[str])
    for item in Chore.where():
        assert_type(item, Chore)
    assert_type(Todo.stream(), Iterator[Todo])
    assert_type(Todo.changes(after=Cursor(), limit=3), Iterator[Todo])
    _ = found.first().text  # type: ignore[union-attr]
    Todo.where("text")  # type: ignore[arg-type]
    Todo.where(True)  # type: ignore[arg-type]
    found.order_by("text")  # type: ignore[arg-type]
    found.limit("3")  # type: ignore[arg-type]


def fields() -> None:
    f = Todo.fields
    assert_type(f, Fields)
    assert_type(f.text, FieldExpression)
    assert_type(f.properties["status"], FieldExpression)
    assert_type(f.text == "a", Filter)
    assert_type(f.text != "a", Filter)
    assert_type(f.text < "a", Filter)
    assert_type(f.text >= "a", Filter)
    assert_type(f.text.in_(["a", "b"]), Filter)
    assert_type(f.text.contains("a"), Filter)
    assert_type(f.text.starts_with("a"), Filter)
    assert_type((f.text == "a") & (f.done == True) | ~(f.version > 3), Filter)  # noqa: E712 - an expression
    assert_type(-f.text, FieldExpression)
    f.text.starts_with(3)  # type: ignore[arg-type]


def history(item: Todo) -> None:
    assert_type(item.history(), list[Todo])
    assert_type(item.history(limit=2, before=9)[0].stamp.recorded_at, datetime)
    assert_type(item.diff(0, 2), Diff)
    assert_type(item.diff(0).changes, tuple[Change, ...])
    assert_type(item.blame(), dict[str, Blame])
    assert_type(item.blame()["text"].actor, str | None)
    assert_type(item.cursor, Cursor)
    assert_type(Eventic.written_by("run"), list[StoredVersion])
    item.diff("0")  # type: ignore[arg-type]


def as_of(moment: datetime, key: UUID) -> None:
    assert_type(Todo.as_of(moment), AsOf[Todo])
    assert_type(Todo.as_of(moment).hydrate(key), Todo)
    assert_type(Chore.as_of(moment).where(text="a").all(), list[Chore])
    Todo.as_of("yesterday")  # type: ignore[arg-type]


async def asynchronous(moment: datetime, key: UUID) -> None:
    assert_type(await Todo.hydrate_async(key), Todo)
    assert_type(await Chore.hydrate_async(key, version=1), Chore)
    assert_type(await Todo.as_of(moment).hydrate_async(key), Todo)
    assert_type(await Todo.where().all_async(), list[Todo])
    assert_type(await Todo.where().first_async(), Todo | None)
    assert_type(await Todo.where().count_async(), int)
    assert_type(await Todo.where().page_async(5), Page[Todo])
