"""Properties of the pure parts: comparison, differences, blame, names, upcasting and guarded containers."""

from __future__ import annotations

import copy
import json
import pickle
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import jsonpatch
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from eventic_core.errors import ChangedOutsideScope, EvolutionError, InvalidRecordClass
from eventic_core.records import diff, documents
from eventic_core.records.bag import Properties
from eventic_core.records.containers import GuardedDict, GuardedList, GuardedSet, guard, plain
from eventic_core.records.evolution import check_upcasters, unreachable, upcast
from eventic_core.records.record_class import snake_case
from eventic_core.records.stamp import Stamp

if TYPE_CHECKING:
    from collections.abc import Callable

Json = Any
at_any_speed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.integers(2**53 - 1, 2**53 + 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.0, -0.0, 1.0, 2.0])
    | st.text(max_size=3)
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "~1/"]), inner, max_size=3),
    max_leaves=6,
)
field_names = st.sampled_from(["a", "b", "c", "/~", ""])
bags = st.dictionaries(field_names, json_values, max_size=3)
docs = st.builds(
    lambda fields, bag: {**fields, **({} if bag is None else {"properties": bag})},
    st.dictionaries(field_names, json_values, max_size=4),
    st.none() | bags,
)


def canonical(value: Json) -> Json:
    """Say what Postgres sees: numbers by their exact value, and what is no number by its type."""
    if isinstance(value, dict):
        return ("object", frozenset((key, canonical(inner)) for key, inner in value.items()))
    if isinstance(value, list):
        return ("array", tuple(map(canonical, value)))
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return (type(value).__name__, value)
    return ("number", Decimal(value))


def flat(document: dict[str, Any]) -> dict[str, Json]:
    """Give a document's fields with its properties beside them, each by the name the user sees."""
    fields = {name: value for name, value in document.items() if name != "properties"}
    return fields | {f"properties.{name}": value for name, value in document.get("properties", {}).items()}


def naively_changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Name what differs, the simple way."""
    one, other = flat(before), flat(after)
    names = one.keys() | other.keys()
    absent = object()
    return sorted(n for n in names if canonical_or(one, n, absent) != canonical_or(other, n, absent))


def canonical_or(fields: dict[str, Json], name: str, absent: object) -> object:
    """Give a field's value to compare, or the mark of its absence."""
    return canonical(fields[name]) if name in fields else absent


# -- documents


@at_any_speed
@given(json_values, json_values)
def test_same_value_is_equality_as_postgres_sees_it(one: Json, other: Json) -> None:
    assert documents.same_value(one, other) == (canonical(one) == canonical(other))
    assert documents.same_value(one, other) == documents.same_value(other, one)


@at_any_speed
@given(json_values)
def test_same_value_holds_for_a_copy(value: Json) -> None:
    assert documents.same_value(value, copy.deepcopy(value))
    assert documents.same_value(value, json.loads(json.dumps(value)))


@pytest.mark.parametrize(("one", "other"), [(True, 1), (False, 0), ([True], [1]), ({"a": 0}, {"a": False}), (None, 0)])
def test_same_value_keeps_booleans_and_numbers_apart(one: Json, other: Json) -> None:
    assert not documents.same_value(one, other)


def test_same_value_model_is_stricter_than_python() -> None:
    """The other side: a comparison with `==` alone, as a slip would make it, fails the property above."""
    assert [1] == [True]
    assert canonical([1]) != canonical([True])


@at_any_speed
@given(docs, docs)
def test_changed_fields_names_what_differs(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert list(documents.changed_fields(before, after)) == naively_changed(before, after)


@at_any_speed
@given(docs)
def test_changed_fields_is_empty_for_a_copy(document: dict[str, Any]) -> None:
    assert documents.changed_fields(document, copy.deepcopy(document)) == ()


# -- diff and blame


@at_any_speed
@given(docs, docs)
def test_compare_gives_a_patch_that_leads_there(before: dict[str, Any], after: dict[str, Any]) -> None:
    before, after = {"properties": {}, **before}, {"properties": {}, **after}
    found = diff.compare((1, before), (2, after))
    patched = jsonpatch.apply_patch(before, [dict(operation) for operation in found.patch])
    assert canonical(patched) == canonical(after)
    assert [change.field for change in found.changes] == naively_changed(before, after)
    for change in found.changes:
        assert change.before is flat(before).get(change.field, diff.ABSENT)
        assert change.after is flat(after).get(change.field, diff.ABSENT)


@at_any_speed
@given(docs, docs)
def test_compare_is_empty_only_for_the_same_values(before: dict[str, Any], after: dict[str, Any]) -> None:
    before, after = {"properties": {}, **before}, {"properties": {}, **after}
    found = diff.compare((1, before), (2, after))
    same = canonical(before) == canonical(after)
    assert (not found, not found.changes, not found.patch) == (same, same, same)


def stamp(number: int) -> Stamp:
    """Make the stamp of a version."""
    return Stamp(
        version_id=UUID(int=number),
        actor=f"actor {number}",
        reason=f"reason {number}",
        correlation_id=None,
        workflow_id=None,
        step_id=number,
        schema_version=1,
        recorded_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number),
        superseded_at=None,
        xid=number,
        position=number,
        tombstone=False,
    )


@at_any_speed
@given(st.lists(docs, min_size=1, max_size=6))
def test_blame_finds_the_first_version_of_the_present_value(found: list[dict[str, Any]]) -> None:
    blamed = diff.blame((number, document, stamp(number)) for number, document in enumerate(found))
    last = flat(found[-1])
    assert blamed.keys() == last.keys()
    for name, value in last.items():
        since = len(found) - 1
        while since and name in flat(found[since - 1]) and canonical(flat(found[since - 1])[name]) == canonical(value):
            since -= 1
        blame = blamed[name]
        assert (blame.version, blame.actor, blame.reason, blame.step_id) == (
            since,
            f"actor {since}",
            f"reason {since}",
            since,
        )
        assert canonical(blame.value) == canonical(value)
        assert blame.recorded_at == stamp(since).recorded_at


# -- names

words = st.from_regex(r"[A-Z][a-z]{1,5}", fullmatch=True)


@at_any_speed
@given(st.lists(words, min_size=1, max_size=4))
def test_snake_case_joins_the_words_of_a_name(parts: list[str]) -> None:
    assert snake_case("".join(parts)) == "_".join(parts).lower()


@at_any_speed
@given(st.from_regex(r"[A-Z]{2,5}", fullmatch=True), words)
def test_snake_case_keeps_a_run_of_capitals_together(run: str, word: str) -> None:
    assert snake_case(run + word) == f"{run}_{word}".lower()
    assert snake_case(word + run) == f"{word}_{run}".lower()


@at_any_speed
@given(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,12}", fullmatch=True))
def test_snake_case_only_lowers_and_separates(name: str) -> None:
    found = snake_case(name)
    assert found.replace("_", "") == name.replace("_", "").lower()
    assert snake_case(found) == found
    assert re.fullmatch(r"[a-z0-9_]+", found)


# -- upcasting


def chain(schema_version: int, missing: set[int]) -> dict[int, Callable[[dict[str, Any]], dict[str, Any]]]:
    """Make upcasters that each note their number."""
    return {
        source: lambda document, source=source: {**document, "path": [*document["path"], source]}
        for source in range(1, schema_version)
        if source not in missing
    }


@at_any_speed
@given(st.integers(1, 6), st.integers(1, 8), st.sets(st.integers(1, 5), max_size=2))
def test_upcast_runs_each_step_once_in_order(schema_version: int, stored: int, missing: set[int]) -> None:
    upcasters = chain(schema_version, missing)
    check_upcasters("Item", schema_version, upcasters)
    document = {"path": []}
    needed = list(range(stored, schema_version))
    if stored > schema_version or missing & set(needed):
        assert unreachable(schema_version, upcasters, stored)
        with pytest.raises(EvolutionError, match=str(stored)):
            upcast("Item", document, stored=stored, schema_version=schema_version, upcasters=upcasters)
    else:
        assert unreachable(schema_version, upcasters, stored) is None
        found = upcast("Item", document, stored=stored, schema_version=schema_version, upcasters=upcasters)
        assert found["path"] == needed
    assert document == {"path": []}


@at_any_speed
@given(st.integers(1, 5), st.integers(-2, 8))
def test_upcasters_lead_from_a_version_below_the_class(schema_version: int, source: int) -> None:
    assume(not 1 <= source < schema_version)
    with pytest.raises(InvalidRecordClass):
        check_upcasters("Item", schema_version, {source: dict})


# -- containers


class Owner:
    """Lets no change through."""

    def _before_change(self) -> None:
        message = "closed"
        raise ChangedOutsideScope(message)


OWNER = Owner()
hashable = st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=2)
contained = st.recursive(
    hashable | st.sets(hashable, max_size=3) | st.frozensets(hashable, max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3) | st.tuples(inner, inner)
    ),
    max_leaves=8,
)


def kinds(value: Any) -> Any:
    """Describe the shape and types of a value."""
    if isinstance(value, dict):
        return (type(value), [(key, kinds(inner)) for key, inner in value.items()])
    if isinstance(value, (list, tuple)):
        return (type(value), [kinds(inner) for inner in value])
    return type(value)


def containers_in(value: Any) -> list[Any]:
    """List every list, dict and set in a value."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    own = [value] if isinstance(value, (list, dict, set)) else []
    return own + [each for item in inner for each in containers_in(item)]


@at_any_speed
@given(contained)
def test_plain_undoes_guard(value: Any) -> None:
    guarded = guard(value, OWNER)
    assert guarded == value
    assert plain(guarded) == value
    assert kinds(plain(guarded)) == kinds(value)


@at_any_speed
@given(contained)
def test_copies_of_guarded_values_are_ordinary(value: Any) -> None:
    guarded = guard(value, OWNER)
    for made in (copy.deepcopy(guarded), pickle.loads(pickle.dumps(guarded))):
        assert made == value
        assert kinds(made) == kinds(value)


@at_any_speed
@given(json_values)
def test_guarded_values_are_the_same_json(value: Json) -> None:
    assert json.dumps(guard(value, OWNER)) == json.dumps(value)


@at_any_speed
@given(contained)
def test_guard_reaches_every_container_and_copies_it(value: Any) -> None:
    before = copy.deepcopy(value)
    guarded = guard(value, OWNER)
    originals = {id(each) for each in containers_in(value)}
    for each in containers_in(guarded):
        assert isinstance(each, (GuardedList, GuardedDict, GuardedSet))
        assert id(each) not in originals
        with pytest.raises(ChangedOutsideScope):
            each.clear()
    for each in containers_in(plain(guarded)):
        each.clear()
    assert guarded == before
    assert value == before


@pytest.mark.parametrize(
    ("kind", "guarded"), [(list, guard([3, 1, 2], OWNER)), (dict, guard({"a": 1}, OWNER)), (set, guard({1, 2}, OWNER))]
)
def test_every_method_that_changes_a_container_asks_first(kind: type[Any], guarded: Any) -> None:
    """Two-sided: what is tried on the guarded value does change an ordinary one."""
    attempts: dict[str, tuple[Any, ...]] = {
        "__delitem__": (0 if kind is list else "a",),
        "__iadd__": ([9],),
        "__iand__": ({1},),
        "__imul__": (2,),
        "__ior__": ({"b": 1} if kind is dict else {9},),
        "__isub__": ({1},),
        "__ixor__": ({1},),
        "__setitem__": (0 if kind is list else "a", 9),
        "add": (9,),
        "append": (9,),
        "clear": (),
        "difference_update": ({1},),
        "discard": (1,),
        "extend": ([9],),
        "insert": (0, 9),
        "intersection_update": ({1},),
        "pop": ("a",) if kind is dict else (),
        "popitem": (),
        "remove": (1,),
        "reverse": (),
        "setdefault": ("b", 1),
        "sort": (),
        "symmetric_difference_update": ({1},),
        "update": ({"b": 1} if kind is dict else {9},),
    }
    harmless = {name for name in dir(kind) if name.startswith("__")} - attempts.keys()
    readers = {"copy", "count", "difference", "fromkeys", "get", "index", "intersection", "isdisjoint", "issubset"}
    readers |= {"issuperset", "items", "keys", "symmetric_difference", "union", "values"}
    for name in set(dir(kind)) - harmless - readers:
        ordinary = kind(plain(guarded))
        getattr(ordinary, name)(*attempts[name])
        assert ordinary != plain(guarded), name
        before = plain(guarded)
        with pytest.raises(ChangedOutsideScope):
            getattr(guarded, name)(*attempts[name])
        assert plain(guarded) == before, name


@at_any_speed
@given(bags)
def test_guarded_properties_stay_a_property_bag(bag: dict[str, Json]) -> None:
    guarded = guard(Properties(bag), OWNER)
    assert type(guarded) is Properties
    assert guarded == bag
    assert type(plain(guarded)) is Properties  # what a snapshot keeps, and restores
    assert kinds(plain(dict(guarded))) == kinds(bag)
