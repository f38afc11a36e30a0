"""Assignment, edit blocks, methods and scopes: one scope, one version, restored exactly after an error."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, field_validator, model_validator
from sqlalchemy.orm import Session

from eventic_core import (
    ChangedOutsideScope,
    DuplicateKey,
    Eventic,
    Invalid,
    InvalidRecord,
    InvalidRecordClass,
    Record,
    RecordDeleted,
    RecordNotFound,
    ScopeError,
    VersionConflict,
    evented,
    plain,
)


class Todo(Record, class_type="AssignedTodo"):
    text: str
    done: bool = False
    count: int = 0
    tags: list[str] = []
    marks: set[str] = set()
    extra: dict[str, Any] = {}

    @field_validator("text")
    @classmethod
    def _stripped(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("text is blank")
        return value.strip()

    def finish(self) -> str:
        self.done = True
        self.text = self.text + "!"
        return "finished"

    def finish_twice(self) -> None:
        self.finish()
        self.finish()

    def look(self) -> str:
        return self.text

    def fail(self) -> None:
        self.done = True
        self.tags.append("half")
        raise RuntimeError("midway")

    @evented(retry=5)
    def bump(self) -> None:
        self.count += 1

    @plain
    def two_steps(self) -> None:
        self.count = 1
        self.count = 2


pytestmark = pytest.mark.usefixtures("eventic")


def versions(item: Record) -> list[int]:
    return [past.version for past in reversed(item.history())]


def test_assignment_stores_the_next_version_and_keeps_the_old() -> None:
    item = Todo(text="Learn")
    item.text = "Ship v1"
    assert (item.version, Todo.hydrate(item.id).text) == (1, "Ship v1")
    assert Todo.hydrate(item.id, version=0).text == "Learn"


def test_memory_and_row_hold_the_validated_value() -> None:
    item = Todo(text="a")
    item.text = "  b  "
    item.count = "3"  # type: ignore[assignment]
    assert (item.text, item.count) == ("b", 3)
    assert Todo.hydrate(item.id) == item


def test_equal_value_writes_nothing() -> None:
    item = Todo(text="a", marks={"x", "y"}, extra={"k": 1, "j": 2})
    item.text = "a"
    item.marks = {"y", "x"}
    item.extra = {"j": 2, "k": 1}
    with item.edit():
        item.text = "b"
        item.text = "a"
    assert item.look() == "a"
    assert versions(Todo.hydrate(item.id)) == [0]


def test_edit_block_is_one_version() -> None:
    item = Todo(text="a")
    with item.edit(reason="typo"):
        item.text = "b"
        item.properties.add(status="open")
        item.tags.append("x")
        assert item.version == 0
    assert (item.version, item.stamp.reason) == (1, "typo")
    assert Todo.hydrate(item.id) == item


def test_public_method_is_one_version_and_returns_its_result() -> None:
    item = Todo(text="a")
    assert item.finish() == "finished"
    assert (item.version, item.text, item.stamp.reason) == (1, "a!", "finish")


def test_nested_scopes_join() -> None:
    item = Todo(text="a")
    item.finish_twice()
    assert (item.version, item.text, item.stamp.reason) == (1, "a!!", "finish_twice")
    with Eventic.unit_of_work(), item.edit():
        item.finish()
        item.count = 4
    assert item.version == 2


def test_plain_method_is_no_scope() -> None:
    item = Todo(text="a")
    item.two_steps()
    assert item.version == 2


def test_methods_of_mixins_are_evented_and_others_are_not() -> None:
    class Closing:
        def close(self) -> None:
            self.state = "closed"
            self.note = "by mixin"

    class Door(Closing, Record):
        state: str = "open"
        note: str = ""

        @staticmethod
        def helper() -> int:
            return 1

        @classmethod
        def build(cls) -> Door:
            return cls(state="new")

        @property
        def shown(self) -> str:
            return self.state

        def _private(self) -> None:
            self.state = "a"
            self.note = "b"

    door = Door.build()
    assert (Door.helper(), door.shown, door.version) == (1, "new", 0)
    door.close()
    assert door.version == 1
    door._private()
    assert door.version == 3


def test_exception_restores_memory_and_writes_nothing() -> None:
    item = Todo(text="a", tags=["x"], marks={"m"}, extra={"deep": [1]})
    before = item.model_dump()
    with pytest.raises(RuntimeError), item.edit():
        item.text = "b"
        item.tags.append("y")
        item.marks.add("n")
        item.extra["deep"].append(2)
        item.properties.add(a=1)
        raise RuntimeError
    with pytest.raises(RuntimeError):
        item.fail()
    assert item.model_dump() == before
    assert Todo.hydrate(item.id) == item
    item.text = "still works"
    assert item.version == 1


def test_invalid_assignment_leaves_memory_and_row() -> None:
    class Span(Record):
        low: int
        high: int

        @model_validator(mode="after")
        def _ordered(self) -> Span:
            if self.low > self.high:
                raise ValueError("low is above high")
            return self

    span = Span(low=1, high=2)
    with pytest.raises(InvalidRecord, match="low is above high"):
        span.low = 3
    assert (span.low, span.version) == (1, 0)
    with span.edit():
        span.high = 9
        span.low = 3
    assert Span.hydrate(span.id) == span


def test_in_place_change_to_a_wrong_value_is_found_on_leaving() -> None:
    item = Todo(text="a", tags=["x"])
    with pytest.raises(InvalidRecord, match="tags"), item.edit():
        item.tags.append(5)  # type: ignore[arg-type]
    assert (item.tags, item.version) == (["x"], 0)


def test_containers_refuse_changes_outside_a_scope() -> None:
    item = Todo(text="a", tags=["x"], marks={"m"}, extra={"deep": {"list": [1]}})
    attempts = [
        lambda: item.tags.append("y"),
        lambda: item.tags.__iadd__(["y"]),
        lambda: item.tags.sort(),
        lambda: item.tags.__setitem__(0, "z"),
        lambda: item.marks.add("n"),
        lambda: item.marks.__ior__({"n"}),
        lambda: item.extra.update(a=1),
        lambda: item.extra["deep"]["list"].append(2),
        lambda: item.properties.__setitem__("a", 1),
        lambda: Todo.hydrate(item.id).tags.append("y"),
    ]
    for attempt in attempts:
        with pytest.raises(ChangedOutsideScope, match=r"edit\(\)"):
            attempt()
    assert Todo.hydrate(item.id) == item
    assert versions(item) == [0]


def test_escaped_change_is_raised_at_the_next_write_and_can_be_kept_or_dropped() -> None:
    class Address(BaseModel):
        model_config = ConfigDict(frozen=True)
        zips: list[str]

    class Person(Record):
        name: str
        address: Address
        tags: list[str] = []

    person = Person(name="Ada", address=Address(zips=["1"]))
    person.address.zips.append("2")
    with pytest.raises(ChangedOutsideScope, match="address"):
        person.name = "B"
    with pytest.raises(ChangedOutsideScope, match="address"), person.edit():
        pass
    assert (person.name, versions(person)) == ("Ada", [0])
    person.refresh()
    assert person.address.zips == ["1"]
    list.append(person.tags, "sneaked")
    with pytest.raises(ChangedOutsideScope, match="tags"):
        person.name = "B"
    person.save()
    assert Person.hydrate(person.id).tags == ["sneaked"]


def test_properties_add_and_remove_are_versions() -> None:
    item = Todo(text="a")
    bag = item.properties
    bag.add(status="open", owner={"name": "Ada"})
    bag.remove("status", "never there")
    assert (item.version, item.properties.list(), bag.list()) == (
        2,
        {"owner": {"name": "Ada"}},
        {"owner": {"name": "Ada"}},
    )
    bag.add(owner={"name": "Ada"})
    assert item.version == 2


def test_stale_write_is_a_loud_conflict_that_says_who_changed_what() -> None:
    mine = Todo(text="a")
    other = Todo.hydrate(mine.id)
    with Eventic.acting(actor="eve", reason="cleanup"):
        other.text = "b"
    with pytest.raises(VersionConflict) as caught:
        mine.done = True
    conflict = caught.value
    assert (conflict.expected, conflict.actual) == (0, 1)
    assert conflict.changed == ((1, "eve", "cleanup", ("text",)),)
    assert "eve" in str(conflict)
    assert (mine.done, mine.version) == (False, 0)
    mine.refresh()
    mine.done = True
    assert Todo.hydrate(mine.id).text == "b"


def test_retry_reruns_the_method_on_fresh_state_only_when_asked() -> None:
    mine, other = (item := Todo(text="a")), Todo.hydrate(item.id)
    other.count = 5
    mine.bump()
    assert (mine.count, mine.version) == (6, 2)
    other.refresh()
    other.text = "x"
    with pytest.raises(VersionConflict):
        mine.finish()
    with pytest.raises(VersionConflict), Eventic.unit_of_work():
        mine.bump()
    assert Todo.hydrate(mine.id).count == 6


def test_disjoint_merge_reapplies_other_fields_and_refuses_the_same() -> None:
    class Wide(Record, merge="disjoint"):
        left: int = 0
        right: int = 0

        @model_validator(mode="after")
        def _small(self) -> Wide:
            if self.left + self.right > 10:
                raise ValueError("too much")
            return self

    mine = Wide()
    other = Wide.hydrate(mine.id)
    other.left = 4
    other.properties.add(seen=True)
    mine.right = 5
    assert (mine.left, mine.right, mine.version) == (4, 5, 3)
    mine.properties.add(mine=1)
    assert mine.properties.list() == {"seen": True, "mine": 1}
    stale = Wide.hydrate(mine.id)
    mine.left = 1
    with pytest.raises(VersionConflict):
        stale.left = 2
    stale.refresh()
    mine.left = 5
    with pytest.raises(VersionConflict):
        stale.right = 9
    with Eventic.unit_of_work():
        stale.refresh()
        stale.right = 1
    assert Wide.hydrate(mine.id).right == 1


def test_unit_of_work_is_one_transaction_and_one_version_per_record() -> None:
    a, b = Todo(text="a"), Todo(text="b")
    with Eventic.unit_of_work(reason="swap"):
        a.text, b.text = b.text, a.text
        a.count = 1
        c = Todo(text="c")
    assert (a.version, b.version, c.version) == (1, 1, 0)
    assert {item.stamp.reason for item in (a, b, c)} == {"swap"}
    assert [item.text for item in Todo.where().order_by(Todo.fields.text)] == ["a", "b", "c"]


def test_unit_of_work_stores_nothing_when_it_fails() -> None:
    a, b = Todo(text="a"), Todo(text="b")
    other = Todo.hydrate(b.id)
    other.text = "changed"
    with pytest.raises(VersionConflict), Eventic.unit_of_work():
        a.text = "x"
        b.text = "y"
        Todo(text="new")
    assert (a.text, a.version, b.text, b.version) == ("a", 0, "b", 0)
    assert Todo.where().count() == 2


def test_scope_reads_see_and_return_its_own_objects() -> None:
    item = Todo(text="a")
    with Eventic.unit_of_work():
        Todo.hydrate(item.id).text = "held strongly"
        mine = Todo.hydrate(item.id)
        assert mine.text == "held strongly"
        assert Todo.where(text="held strongly").all()[0] is mine
        assert mine.version == 1
        mine.done = True
    assert (Todo.hydrate(item.id).version, Todo.hydrate(item.id).done) == (2, True)
    assert Todo.where(text="a").count() == 0


def test_second_object_for_a_record_in_one_scope_is_refused() -> None:
    item = Todo(text="a")
    with pytest.raises(ScopeError, match="Two objects"), Eventic.unit_of_work():
        Todo.hydrate(item.id).text = "b"
        item.text = "c"
    assert Todo.hydrate(item.id).text == "a"


def test_flushed_changes_are_restored_with_the_scope() -> None:
    item = Todo(text="a")
    with pytest.raises(ZeroDivisionError), Eventic.unit_of_work():
        item.text = "b"
        assert Todo.where(text="b").count() == 1
        assert item.version == 1
        item.count = 1 // 0
    assert (item.text, item.version) == ("a", 0)
    assert versions(item) == [0]
    item.text = "c"
    assert item.version == 1


def test_failed_inner_scope_undoes_only_itself() -> None:
    item, other = Todo(text="a"), Todo(text="o")
    with Eventic.unit_of_work():
        item.text = "b"
        with pytest.raises(RuntimeError):
            other.fail()
        try:
            with Eventic.unit_of_work():
                item.count = 7
                born = Todo(text="born")
                assert Todo.where(text="born").count() == 1
                raise RuntimeError
        except RuntimeError:
            pass
        assert (item.text, item.count, born.is_stored) == ("b", 0, False)
    assert (item.version, Todo.hydrate(item.id).count, Todo.hydrate(item.id).text) == (1, 0, "b")
    assert (other.version, Todo.where(text="born").count()) == (0, 0)


def test_inner_scope_undoes_in_place_changes_of_a_record_born_outside_it() -> None:
    with Eventic.unit_of_work():
        born = Todo(text="born", tags=["x"])
        with pytest.raises(RuntimeError):
            born.fail()
        assert (born.tags, born.done) == (["x"], False)
    assert Todo.hydrate(born.id) == born


def test_draft_has_nothing_to_edit() -> None:
    with pytest.raises(Invalid, match="draft"):
        Todo.model_validate({"text": "a"}).edit()


def test_refused_save_keeps_what_was_to_be_saved() -> None:
    item = Todo(text="a")
    changed = item.model_copy(update={"text": " "})
    with pytest.raises(InvalidRecord, match="blank"):
        changed.save()
    assert (changed.text, changed.version, Todo.hydrate(item.id).text) == (" ", 0, "a")


def test_refused_write_inside_a_unit_of_work_leaves_the_rest() -> None:
    class Named(Record, unique=["name"]):
        name: str

    Named(name="taken")
    with Eventic.unit_of_work():
        kept = Named(name="kept")
        try:
            with Eventic.unit_of_work():
                Named(name="taken")
                Named.where().count()
        except DuplicateKey:
            pass
    assert kept.version == 0
    assert sorted(item.name for item in Named.where()) == ["kept", "taken"]


def test_scope_belongs_to_the_task_that_opened_it() -> None:
    item, problems = Todo(text="a"), []

    def intrude() -> None:
        try:
            item.text = "from a thread"
        except ScopeError as error:
            problems.append(error)
        Todo(text="free")

    with item.edit():
        item.text = "mine"
        thread = threading.Thread(target=intrude)
        thread.start()
        thread.join()
    assert len(problems) == 1
    assert Todo.hydrate(item.id).text == "mine"
    assert Todo.where(text="free").count() == 1


def test_transaction_decorates_and_its_connection_runs_own_sql() -> None:
    @Eventic.transaction()
    def rename(key: object, text: str) -> int:
        item = Todo.hydrate(key)  # type: ignore[arg-type]
        item.text = text
        found = Eventic.connection().execute(
            sa.text("select count(*) from eventic.records where data ->> 'text' = :text"), {"text": text}
        )
        return int(found.scalar_one())

    item = Todo(text="a")
    assert rename(item.id, "b") == 1
    assert Todo.hydrate(item.id).stamp.reason == "rename"
    with pytest.raises(ScopeError, match="unit of work"):
        Eventic.connection()


def test_using_joins_the_callers_session(eventic: str) -> None:
    engine = sa.create_engine(eventic.replace("postgresql://", "postgresql+psycopg://"))
    item = Todo(text="a")
    with Session(engine) as session:
        with Eventic.using(session):
            item.text = "b"
            Todo(text="new")
        assert Todo.where(text="new").count() == 0
        session.commit()
    assert Todo.where(text="new").count() == 1
    with Session(engine) as session:
        with Eventic.using(session):
            item.text = "c"
            born = Todo(text="unborn")
        assert item.version == 2
        session.rollback()
    assert (item.text, item.version, born.is_stored) == ("b", 1, False)
    with engine.connect() as connection:
        with connection.begin(), Eventic.using(connection):
            item.text = "d"
        connection.execute(sa.text("select 1"))
        connection.rollback()
    assert (item.text, Todo.hydrate(item.id).text) == ("d", "d")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        with pytest.raises(Invalid, match="autocommit"), Eventic.using(connection):
            pass
    with pytest.raises(Invalid, match="no SQLAlchemy"), Eventic.using(object()):  # type: ignore[arg-type]
        pass
    engine.dispose()


def test_delete_is_a_tombstone_and_restore_brings_the_values_back() -> None:
    item = Todo(text="a", tags=["x"])
    item.delete(reason="obsolete")
    assert (item.version, item.deleted, item.stamp.reason) == (1, True, "obsolete")
    for attempt in (
        lambda: Todo.hydrate(item.id),
        lambda: Todo.hydrate(item.id, version=1),
        lambda: setattr(item, "text", "b"),
        lambda: item.delete(),
        lambda: item.edit(),
        lambda: item.refresh(),
    ):
        with pytest.raises(RecordDeleted):
            attempt()
    assert Todo.where().all() == []
    assert Todo.hydrate(item.id, version=0).text == "a"
    back = Todo.restore(item.id)
    assert (back.version, back.text, back.tags, back.deleted) == (2, "a", ["x"], False)
    assert [past.deleted for past in back.history()] == [False, True, False]
    with pytest.raises(Exception, match="not deleted"):
        Todo.restore(item.id)


def test_draft_cannot_be_deleted_and_a_record_born_in_the_scope_keeps_its_first_version() -> None:
    with pytest.raises(Invalid, match="draft"):
        Todo.model_validate({"text": "a"}).delete()
    with Eventic.unit_of_work():
        born = Todo(text="short-lived")
        born.delete()
    assert [(past.version, past.deleted) for past in reversed(born.history())] == [(0, False), (1, True)]
    assert Todo.restore(born.id).text == "short-lived"


def test_delete_inside_a_scope_hides_the_record_at_once() -> None:
    item = Todo(text="a")
    with Eventic.unit_of_work():
        Todo.hydrate(item.id).delete()
        with pytest.raises(RecordDeleted):
            Todo.hydrate(item.id)
        assert Todo.where().count() == 0
        with pytest.raises(RecordDeleted):
            Todo.hydrate(item.id)


def test_revert_writes_old_values_as_a_new_version() -> None:
    item = Todo(text="a", tags=["x"])
    item.text = "b"
    item.properties.add(k=1)
    item.revert(0)
    assert (item.version, item.text, item.properties.list(), item.stamp.reason) == (3, "a", {}, "revert")
    item.revert(0)
    assert item.version == 3
    with pytest.raises(RecordNotFound, match="version 99"):
        item.revert(99)


def test_update_is_one_version_of_several_fields() -> None:
    item = Todo(text="a")
    item.update(text="b", count=2)
    assert (item.version, item.text, item.count) == (1, "b", 2)
    with pytest.raises(InvalidRecord, match="colour"):
        item.update(text="c", colour="red")
    assert item.text == "b"


def test_retry_count_cannot_be_negative() -> None:
    with pytest.raises(InvalidRecordClass, match="negative"):
        evented(retry=-1)


def test_moments_are_aware_utc_and_rise_with_the_versions() -> None:
    item = Todo(text="a")
    for number in range(5):
        item.count = number + 1
    moments = [past.stamp.recorded_at for past in reversed(item.history())]
    assert moments == sorted(set(moments))
    assert all(moment.utcoffset() == datetime.now(UTC).utcoffset() for moment in moments)
