"""Random programs against a model that is a dict of lists: memory and table must agree with it after every step."""

from __future__ import annotations

import copy
import json
import pickle
from typing import TYPE_CHECKING, Any, ClassVar

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pydantic import Field

from eventic_core import Eventic, Record
from eventic_core.errors import ChangedOutsideScope, InvalidRecord, RecordDeleted, VersionConflict
from eventic_core.records import state
from eventic_core.records.bag import Properties
from eventic_core.records.scope import Scope

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from eventic_core.records.port import Append
    from eventic_core.records.stamp import Origin

Document = dict[str, Any]
Version = tuple[Document, bool]

names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4)
counts = st.integers(0, 3)
tag_lists = st.lists(names, max_size=3)
metas = st.dictionaries(names, st.integers(-1, 1), max_size=2)
property_names = st.sampled_from(["red", "blue", "green"])
json_values = st.none() | st.booleans() | st.integers(0, 1) | names | st.lists(st.integers(0, 1), max_size=2)
values = st.fixed_dictionaries({}, optional={"name": names, "count": counts, "tags": tag_lists, "meta": metas})
picks = st.integers(0, 1000)

COPIES: tuple[Callable[[Item], Item], ...] = (
    copy.copy,
    copy.deepcopy,
    lambda item: pickle.loads(pickle.dumps(item)),
    lambda item: item.model_copy(),
    lambda item: item.model_copy(deep=True),
)


class Stop(Exception):
    """Ends a block."""


class Item(Record, class_type="machine_item"):
    """A record with one field of each kind."""

    name: str = ""
    count: int = Field(default=0, ge=0)
    tags: list[str] = Field(default_factory=list)
    meta: dict[str, int] = Field(default_factory=dict)

    def bump(self, by: int, tag: str) -> None:
        """Change two fields, one in place."""
        self.count += by
        self.tags.append(tag)

    def fail(self) -> None:
        """Change all fields, then raise."""
        self.count += 1
        self.tags.append("lost")
        self.meta["lost"] = 1
        self.name += "lost"
        self.properties.add(lost=True)
        raise Stop


def same(one: object, other: object) -> bool:
    """Tell whether two documents are equal as JSON, where `true` is not 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def in_memory(item: Item) -> Document:
    """Give the values an object shows."""
    fields = {name: copy.deepcopy(getattr(item, name)) for name in ("name", "count", "tags", "meta")}
    return {**fields, "properties": dict(copy.deepcopy(item.properties))}


class Machine(RuleBasedStateMachine):
    """Each rule does the same to records and to the model."""

    connection: ClassVar[psycopg.Connection[Any]]

    def __init__(self) -> None:
        super().__init__()
        self.items: dict[UUID, Item] = {}
        self.model: dict[UUID, list[Version]] = {}

    # -- the model

    def now(self, item: Item) -> Document:
        """Give a copy of what the model has as the item's current document."""
        return copy.deepcopy(self.model[item.id][-1][0])

    def write(self, item: Item, document: Document, *, tombstone: bool = False, always: bool = False) -> None:
        """Append to the model what is different from the last version."""
        if always or not same(document, self.model[item.id][-1][0]):
            self.model[item.id].append((document, tombstone))

    def living(self) -> list[Item]:
        return [item for key, item in self.items.items() if not self.model[key][-1][1]]

    def dead(self) -> list[Item]:
        return [item for key, item in self.items.items() if self.model[key][-1][1]]

    def pick(self, number: int) -> Item:
        living = self.living()
        return living[number % len(living)]

    # -- one record

    @initialize(given=values)
    def start(self, given: Document) -> None:
        self.construct(given)

    @rule(given=values)
    def construct(self, given: Document) -> None:
        item = Item(**given)
        self.items[item.id] = item
        empty = {"name": "", "count": 0, "tags": [], "meta": {}, "properties": {}}
        self.model[item.id] = [({**empty, **copy.deepcopy(given)}, False)]

    @precondition(living)
    @rule(which=picks, given=values)
    def assign_one_by_one(self, which: int, given: Document) -> None:
        item = self.pick(which)
        for name, value in given.items():
            setattr(item, name, value)
            self.write(item, {**self.now(item), name: value})

    @precondition(living)
    @rule(which=picks, given=values)
    def update(self, which: int, given: Document) -> None:
        item = self.pick(which)
        item.update(**given)
        self.write(item, {**self.now(item), **given})

    @precondition(living)
    @rule(which=picks, given=values, tag=names, number=counts)
    def edit_in_place(self, which: int, given: Document, tag: str, number: int) -> None:
        item = self.pick(which)
        expected = {**self.now(item), **copy.deepcopy(given)}
        with item.edit():
            for name, value in given.items():
                setattr(item, name, value)
            item.tags.append(tag)
            item.meta[tag] = number
            item.tags.sort()
            item.properties["red"] = number
        expected["tags"] = sorted([*expected["tags"], tag])
        expected["meta"][tag] = number
        expected["properties"]["red"] = number
        self.write(item, expected)

    @precondition(living)
    @rule(which=picks)
    def edit_to_and_fro(self, which: int) -> None:
        """A block whose end is its beginning writes nothing."""
        item = self.pick(which)
        with item.edit():
            item.tags.append("x")
            item.count += 1
            item.tags.pop()
            item.count -= 1

    @precondition(living)
    @rule(which=picks, by=counts, tag=names)
    def method(self, which: int, by: int, tag: str) -> None:
        item = self.pick(which)
        now = self.now(item)
        item.bump(by, tag)
        self.write(item, {**now, "count": now["count"] + by, "tags": [*now["tags"], tag]})

    @precondition(living)
    @rule(which=picks)
    def failing_method(self, which: int) -> None:
        with pytest.raises(Stop):
            self.pick(which).fail()

    @precondition(living)
    @rule(which=picks, name=property_names, value=json_values)
    def add_property(self, which: int, name: str, value: Any) -> None:
        item = self.pick(which)
        item.properties.add(**{name: value})
        now = self.now(item)
        self.write(item, {**now, "properties": {**now["properties"], name: value}})

    @precondition(living)
    @rule(which=picks, name=property_names)
    def remove_property(self, which: int, name: str) -> None:
        item = self.pick(which)
        item.properties.remove(name)
        now = self.now(item)
        now["properties"].pop(name, None)
        self.write(item, now)

    @precondition(living)
    @rule(which=picks)
    def delete(self, which: int) -> None:
        item = self.pick(which)
        item.delete()
        self.write(item, self.now(item), tombstone=True, always=True)
        with pytest.raises(RecordDeleted):
            item.name = "late"
        with pytest.raises(RecordDeleted):
            Item.hydrate(item.id)

    @precondition(dead)
    @rule(which=picks)
    def restore(self, which: int) -> None:
        dead = self.dead()
        item = dead[which % len(dead)]
        self.items[item.id] = Item.restore(item.id)
        self.write(item, self.now(item), always=True)

    @precondition(living)
    @rule(which=picks, version=picks)
    def revert(self, which: int, version: int) -> None:
        item = self.pick(which)
        past = version % len(self.model[item.id])
        item.revert(past)
        self.write(item, copy.deepcopy(self.model[item.id][past][0]))

    @precondition(living)
    @rule(which=picks, version=picks)
    def hydrate_a_version(self, which: int, version: int) -> None:
        item = self.pick(which)
        past = version % len(self.model[item.id])
        document, tombstone = self.model[item.id][past]
        if tombstone:
            with pytest.raises(RecordDeleted):
                Item.hydrate(item.id, version=past)
            return
        found = Item.hydrate(item.id, version=past)
        assert found.version == past
        assert same(in_memory(found), document)
        if past < item.version:
            with pytest.raises(VersionConflict):
                found.name += "stale"
            assert same(in_memory(found), document)

    @precondition(living)
    @rule(which=picks)
    def hydrate_again(self, which: int) -> None:
        item = self.pick(which)
        self.items[item.id] = Item.hydrate(item.id)

    @precondition(living)
    @rule(which=picks, how=st.sampled_from(COPIES))
    def go_on_with_a_copy(self, which: int, how: Callable[[Item], Item]) -> None:
        """A copy is the same stored version, and as good as the original."""
        item = self.pick(which)
        copied = how(item)
        assert copied == item
        assert copied is not item
        self.items[item.id] = copied

    # -- what writes nothing

    @precondition(living)
    @rule(which=picks)
    def assign_the_same(self, which: int) -> None:
        item = self.pick(which)
        for name, value in self.now(item).items():
            setattr(item, name, value)
        item.save()

    @precondition(living)
    @rule(
        which=picks, wrong=st.sampled_from([("count", -1), ("count", "x"), ("tags", [1]), ("meta", 1), ("name", "\0")])
    )
    def assign_what_does_not_fit(self, which: int, wrong: tuple[str, Any]) -> None:
        item = self.pick(which)
        with pytest.raises(InvalidRecord):
            item.update(**{"name": "lost", wrong[0]: wrong[1]})

    @precondition(living)
    @rule(which=picks)
    def edit_to_what_does_not_fit(self, which: int) -> None:
        item = self.pick(which)
        with pytest.raises(InvalidRecord), item.edit():
            item.name += "lost"
            item.meta["lost"] = "no number"

    @precondition(living)
    @rule(which=picks)
    def change_in_place_outside(self, which: int) -> None:
        item = self.pick(which)
        with pytest.raises(ChangedOutsideScope):
            item.tags.append("lost")
        with pytest.raises(ChangedOutsideScope):
            item.properties["lost"] = 1

    # -- several objects and records

    @precondition(living)
    @rule(which=picks, name=names)
    def conflict_and_refresh(self, which: int, name: str) -> None:
        item = self.pick(which)
        before, version = self.now(item), item.version
        other = Item.hydrate(item.id)
        other.name += f"!{name}"
        self.write(item, {**before, "name": f"{before['name']}!{name}"})
        with pytest.raises(VersionConflict) as caught:
            item.bump(1, "lost")
        assert (caught.value.expected, caught.value.actual) == (version, version + 1)
        assert item.version == version
        assert same(in_memory(item), before)
        item.refresh()

    @precondition(living)
    @rule(first=picks, second=picks, given=values, flush=st.booleans(), number=counts)
    def unit_of_work(self, first: int, second: int, given: Document, flush: bool, number: int) -> None:
        one, other = self.pick(first), self.pick(second)
        with Eventic.unit_of_work():
            one.update(**given)
            one.count += 1
            now = {**self.now(one), **copy.deepcopy(given)}
            now["count"] += 1
            if flush:
                assert Item.where(Item.fields.id == one.id).count() == 1
                self.write(one, now)
                assert Item.hydrate(one.id) is one
                assert one.version == len(self.model[one.id]) - 1
            before = now if one is other and not flush else self.now(other)
            other.tags.append("unit")
            other.properties.add(green=number)
            last = {**before, "tags": [*before["tags"], "unit"]}
            last["properties"] = {**before["properties"], "green": number}
        if one is not other and not flush:
            self.write(one, now)
        self.write(other, last)

    @precondition(living)
    @rule(first=picks, second=picks, flush=st.booleans(), given=values)
    def rollback(self, first: int, second: int, flush: bool, given: Document) -> None:
        one, other = self.pick(first), self.pick(second)
        with pytest.raises(Stop), Eventic.unit_of_work():
            one.update(**given)
            one.tags.append("lost")
            draft = Item(name="lost")
            if flush:
                Item.where(name="lost").count()
            one.meta["lost"] = 1
            other.properties.add(lost=True)
            if flush:
                Item.where(name="lost").count()
            other.delete()
            raise Stop
        assert not draft.is_stored

    @precondition(living)
    @rule(first=picks, second=picks, early=st.booleans(), flush=st.booleans())
    def nested_rollback(self, first: int, second: int, early: bool, flush: bool) -> None:
        """The inner block is undone, in memory and in the table; the outer one is kept."""
        one, other = self.pick(first), self.pick(second)
        expected = self.now(one)
        expected["name"] += "+"
        with Eventic.unit_of_work():
            one.name += "+"
            if early:
                Item.where(name="lost").count()
            with pytest.raises(Stop), one.edit():
                one.count += 1
                one.tags.append("lost")
                other.meta["lost"] = 1
                other.name = "lost"
                if flush:
                    Item.where(name="lost").count()
                one.properties.add(lost=1)
                raise Stop
            assert same(in_memory(one), expected)
        self.write(one, expected)

    # -- what must hold

    @invariant()
    def memory_is_the_model(self) -> None:
        for key, item in self.items.items():
            document, tombstone = self.model[key][-1]
            assert (item.version, item.deleted) == (len(self.model[key]) - 1, tombstone)
            assert same(in_memory(item), document)
            assert type(item.properties) is Properties

    @invariant()
    def table_is_the_model(self) -> None:
        sql = """select id, version, data, tombstone, superseded_at is null from eventic.records
                 where id = any(%s) order by id, version"""
        expected = [
            (key, number, document, tombstone, number == len(versions) - 1)
            for key, versions in sorted(self.model.items())
            for number, (document, tombstone) in enumerate(versions)
        ]
        found = self.connection.execute(sql, (list(self.model),)).fetchall()
        assert [row[:2] + row[3:] for row in found] == [row[:2] + row[3:] for row in expected]
        for row, wanted in zip(found, expected, strict=True):
            assert same(row[2], wanted[2]), row[:2]

    @invariant()
    def nothing_else_is_stored(self) -> None:
        [(lost,)] = self.connection.execute(
            "select count(*) from eventic.records where data->>'name' = 'lost'"
        ).fetchall()
        assert lost == 0


def run_machine(url: str, examples: int, *, shrink: bool = True) -> None:
    """Run random programs in one database."""
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    chosen = settings(
        phases=phases,
        report_multiple_bugs=False,
        max_examples=examples,
        stateful_step_count=25,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    with psycopg.connect(url, autocommit=True) as Machine.connection:
        run_state_machine_as_test(Machine, settings=chosen)


def test_records_follow_the_model(eventic: str) -> None:
    run_machine(eventic, 40)


def forgetful_undo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant: a failed block leaves its changes in memory."""
    monkeypatch.setattr(state, "restore", lambda _snapshot: None)


def eager_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant: an assignment of the same value is a version."""
    monkeypatch.setattr(state, "is_changed", lambda _record, _data: True)


def forgetful_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant: an inner block that fails drops the outer block's change too."""
    undo = Scope._undo_level

    def drop(self: Scope) -> None:
        undo(self)
        self._pending.clear()

    monkeypatch.setattr(Scope, "_undo_level", drop)


def lost_tombstones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant: a deletion is written as an ordinary version."""
    original = state.next_version

    def write_alive(record: Record, origin: Origin, **how: Any) -> Append | None:
        return original(record, origin, **{**how, "delete": False, "restore": how["delete"] or how["restore"]})

    monkeypatch.setattr(state, "next_version", write_alive)


def missing_savepoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plant: a failed inner block leaves in the transaction what it had flushed."""
    from eventic_core.store.transaction import PostgresTransaction

    original = PostgresTransaction.rollback_to
    wanted = Scope._undo_level

    def undo(self: Scope) -> None:
        monkeypatch.setattr(PostgresTransaction, "rollback_to", lambda *_: None)
        try:
            wanted(self)
        finally:
            monkeypatch.setattr(PostgresTransaction, "rollback_to", original)

    monkeypatch.setattr(Scope, "_undo_level", undo)


@pytest.mark.parametrize(
    "plant", [forgetful_undo, eager_versions, forgetful_pending, lost_tombstones, missing_savepoints]
)
def test_machine_finds_a_planted_bug(eventic: str, monkeypatch: pytest.MonkeyPatch, plant: Any) -> None:
    """The other side: programs that are as random find each of these."""
    plant(monkeypatch)
    with pytest.raises((Exception, pytest.fail.Exception)):
        for _ in range(10):  # what few programs meet, forty may miss by chance
            run_machine(eventic, 40, shrink=False)


@pytest.mark.parametrize(("change", "error"), [({"count": 5}, VersionConflict), ({"count": "x"}, InvalidRecord)])
def test_failed_save_leaves_the_object_as_it_was(eventic: str, change: dict[str, Any], error: type[Exception]) -> None:
    """What a copy was changed to is still there to be corrected, or saved after a refresh of another object."""
    item = Item(count=1)
    copied = item.model_copy(update=change)
    if error is VersionConflict:
        item.count = 3
    with pytest.raises(error):
        copied.save()
    assert (copied.count, copied.version) == (change["count"], 0)
    with psycopg.connect(eventic) as connection:
        found = connection.execute("select max(version) from eventic.records").fetchall()
    assert found == [(item.version,)]
