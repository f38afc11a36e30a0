"""Schemas judge payloads with every reason, and no version is stored whose payload they refuse, by whatever route."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from eventic_core import Eventic, Invalid, InvalidRecord
from eventic_core.automation.definitions import Automation, Batch, Item
from eventic_core.automation.schema import Schema

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name"],
}
SIZED = {"type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"]}


def paths(definition: dict[str, Any], data: Any) -> list[str]:
    return sorted(error.path for error in Schema(definition).validate(data).errors)


@pytest.fixture
def people(eventic: str) -> Automation:
    return Automation(name="people", batch_schema=SIZED, item_schema=PERSON)


@pytest.fixture
def batch(people: Automation) -> Batch:
    return Batch(automation_id=people.id, name="first", payload={"size": 1})


def versions(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("select count(*) from eventic.records").fetchone()
    assert row is not None
    return int(row[0])


# -- schemas


def test_data_that_fits_is_valid_without_errors() -> None:
    result = Schema(PERSON).validate({"name": "Ada", "age": 36, "more": [1]})
    assert result.valid
    assert result.errors == ()


def test_every_reason_is_given_with_its_path_and_message() -> None:
    result = Schema(PERSON).validate({"age": -1, "tags": ["a", 2, None]})
    assert not result.valid
    assert sorted((error.path, error.loc) for error in result.errors) == [
        ("", ()),
        ("age", ("age",)),
        ("tags.1", ("tags", 1)),
        ("tags.2", ("tags", 2)),
    ]
    assert sorted(str(error) for error in result.errors)[1].startswith("age: -1 is less than")


def test_a_message_does_not_repeat_a_large_payload() -> None:
    [error] = Schema({"type": "object"}).validate("x" * 100_000).errors
    assert len(error.message) < 400


@pytest.mark.parametrize("definition", [None, True, "{}", [], 5], ids=repr)
def test_a_schema_must_be_a_dictionary(definition: Any) -> None:
    with pytest.raises(Invalid, match="must be a dictionary"):
        Schema(definition)


BAD_SCHEMAS: dict[str, dict[str, Any]] = {
    "unknown type": {"type": "nope"},
    "nested": {"properties": {"a": {"minimum": "1"}}},
    "pattern": {"pattern": "("},
    "dangling reference": {"$ref": "#/definitions/none"},
    "unknown draft": {"$schema": "https://example.com/mine", "type": "object"},
    "not JSON": {"enum": {1, 2}},
    "NaN": {"const": float("nan")},
    "file": {"$ref": "file:///etc/hostname"},
}


@pytest.mark.parametrize("definition", BAD_SCHEMAS.values(), ids=BAD_SCHEMAS.keys())
def test_what_its_draft_does_not_allow_is_no_schema(definition: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=r"^Invalid JSON Schema: "):
        Schema(definition)


def test_an_error_of_a_schema_says_where() -> None:
    with pytest.raises(Invalid, match=r"properties\.a\.minimum: "):
        Schema(BAD_SCHEMAS["nested"])


def test_draft_7_is_the_default_and_a_newer_one_is_honoured() -> None:
    pair: dict[str, Any] = {"type": "array", "prefixItems": [{"type": "integer"}]}
    assert paths(pair, ["x"]) == []  # Draft 7 does not know the keyword
    assert paths({"$schema": "https://json-schema.org/draft/2020-12/schema", **pair}, ["x"]) == ["0"]
    assert paths({"definitions": {"n": {"type": "integer"}}, "$ref": "#/definitions/n"}, "x") == [""]


def test_a_schema_that_talks_of_a_field_named_like_the_keyword_is_draft_7() -> None:
    assert paths({"properties": {"$schema": {"type": "string"}}}, {"$schema": 1}) == ["$schema"]


@pytest.fixture
def web() -> Iterator[tuple[str, list[str]]]:
    """A server whose every page is a schema, and what was asked of it."""
    asked: list[str] = []

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"type": "string"}')

        def log_message(self, format: str, *args: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_nothing_is_fetched_from_the_network(web: tuple[str, list[str]]) -> None:
    url, asked = web
    for definition in (
        {"$ref": f"{url}/a.json"},
        {"$id": f"{url}/b.json", "$ref": "c.json"},
        {"$schema": f"{url}/d.json"},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": f"{url}/e.json"},
    ):
        with pytest.raises(Invalid, match="Invalid JSON Schema"):
            Schema(definition)
    assert asked == []


def test_data_is_judged_in_the_form_it_is_stored_in() -> None:
    data = {"at": datetime(2026, 1, 1, tzinfo=UTC), "id": uuid4(), "price": Decimal("1.5"), "pair": (1, 2)}
    texts = {name: {"type": "string"} for name in ("at", "id", "price")}
    assert Schema({"properties": {**texts, "pair": {"type": "array"}}}).validate(data).valid


def contains_itself() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


NOT_JSON: dict[str, tuple[Any, str]] = {
    "NaN": ({"a": [1, float("nan")]}, "a.1"),
    "infinity": (float("inf"), ""),
    "bytes": ({"a": {"b": b"x"}}, "a.b"),
    "set": ({"a": {1}}, "a"),
    "key": ({"a": {1: 2}}, "a"),
    "object": ({"a": object()}, ""),
    "cycle": (contains_itself(), ""),
}


@pytest.mark.parametrize(("data", "path"), NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_json_cannot_hold_fits_no_schema(data: Any, path: str) -> None:
    [error] = Schema({}).validate(data).errors
    assert error.path == path


def test_schemas_are_equal_by_definition_and_keep_their_own_copy() -> None:
    definition: dict[str, Any] = {"type": "object", "required": ["a"]}
    schema = Schema(definition)
    definition["required"].append("b")
    schema.definition["required"].append("c")
    assert schema.validate({"a": 1}).valid
    assert schema == Schema({"required": ["a"], "type": "object"})
    assert len({schema, Schema({"required": ["a"], "type": "object"}), Schema(definition)}) == 2


# -- automations


def test_an_automation_without_schemas_takes_any_json(eventic: str) -> None:
    automation = Automation(name="free")
    assert automation.validate_batch_payload({"anything": [1]}).valid
    assert automation.validate_item_payload("anything").valid
    assert not automation.validate_item_payload(b"no JSON").valid


def test_an_automation_judges_payloads_and_lists_all_errors(people: Automation) -> None:
    assert people.validate_batch_payload({"size": 3}).valid
    assert [error.path for error in people.validate_batch_payload({"size": "3"}).errors] == ["size"]
    assert len(people.validate_item_payload({"age": "x", "tags": 1}).errors) == 3
    assert people.version == 0


def test_update_schemas_leaves_what_is_not_given_and_assignment_clears(people: Automation) -> None:
    people.update_schemas(item_schema=SIZED)
    assert (people.version, people.batch_schema, people.item_schema) == (1, SIZED, SIZED)
    people.update_schemas()
    assert people.version == 1
    people.item_schema = None
    stored = Automation.hydrate(people.id)
    assert (stored.version, stored.batch_schema, stored.item_schema) == (2, SIZED, None)
    assert stored.validate_item_payload("anything").valid


def test_a_bad_schema_changes_nothing(people: Automation, eventic: str) -> None:
    before = versions(eventic)
    for change in (
        lambda: Automation(name="other", item_schema={"type": "nope"}),
        lambda: people.update_schemas(batch_schema=SIZED, item_schema={"type": "nope"}),
        lambda: setattr(people, "item_schema", {"type": "nope"}),
        lambda: people.update_schemas(item_schema="text"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidRecord) as caught:
            change()
        assert caught.value.errors[0]["loc"] == ("item_schema",)
    assert people.item_schema == PERSON
    assert versions(eventic) == before


# -- payloads, by whatever route

Change = Callable[[Item, Batch], object]

ITEM_CHANGES: dict[str, Change] = {
    "constructor": lambda item, batch: Item(batch_id=batch.id, sequence_number=2, payload={"age": "x"}),
    "no payload": lambda item, batch: Item(batch_id=batch.id, sequence_number=2),
    "save": lambda item, batch: Item.draft(
        {"batch_id": batch.id, "sequence_number": 2, "payload": {"age": "x"}}
    ).save(),
    "assignment": lambda item, batch: setattr(item, "payload", {"age": "x"}),
    "update": lambda item, batch: item.update(payload={"age": "x"}),
    "update_payload": lambda item, batch: item.update_payload({"age": "x"}),
    "apply": lambda item, batch: Item.apply({**item.model_dump(), "payload": {"age": "x"}}),
    "create_many": lambda item, batch: Item.create_many(
        [
            {"batch_id": batch.id, "sequence_number": 2, "payload": {"name": "fits"}},
            {"batch_id": batch.id, "sequence_number": 3, "payload": {"age": "x"}},
        ]
    ),
    "edit": lambda item, batch: in_place(item),
}


def in_place(item: Item) -> None:
    with item.edit():
        item.payload["age"] = "x"
        del item.payload["name"]


@pytest.fixture
def item(batch: Batch) -> Item:
    return Item(batch_id=batch.id, sequence_number=1, payload={"name": "Ada"})


@pytest.mark.parametrize("change", ITEM_CHANGES.values(), ids=ITEM_CHANGES.keys())
def test_an_items_payload_that_does_not_fit_is_not_stored(
    change: Change, item: Item, batch: Batch, eventic: str
) -> None:
    before = versions(eventic)
    with pytest.raises(InvalidRecord, match="Nothing was stored") as caught:
        change(item, batch)
    assert caught.value.errors[0]["loc"][0] == "payload"
    if change is not ITEM_CHANGES["no payload"]:
        assert {error["loc"] for error in caught.value.errors} == {("payload",), ("payload", "age")}
        assert {error["type"] for error in caught.value.errors} == {"json_schema"}
    assert versions(eventic) == before
    assert (item.version, item.payload) == (0, {"name": "Ada"})


def test_a_batchs_payload_is_optional_and_judged_where_it_is(batch: Batch, people: Automation, eventic: str) -> None:
    assert Batch(automation_id=people.id, name="without").payload is None
    before = versions(eventic)
    for change in (
        lambda: Batch(automation_id=people.id, name="second", payload={}),
        lambda: batch.update_payload({"size": "large"}),
        lambda: Batch.create_many([{"automation_id": people.id, "name": "third", "payload": {"size": 1.5}}]),
        lambda: batch.update_payload({"size": 1, "raw": b"x"}),
    ):
        with pytest.raises(InvalidRecord, match="payload"):
            change()
    assert versions(eventic) == before
    batch.update_payload({"size": 2})
    batch.update_payload(None)
    assert (batch.version, batch.stamp.reason) == (2, "update_payload")


def test_a_payload_is_judged_by_the_schema_as_it_is_now(item: Item, people: Automation) -> None:
    item.update_payload({"name": "Ada", "size": 1})
    people.update_schemas(item_schema=SIZED)
    item.sequence_number = 7  # what is stored is not looked at again
    with pytest.raises(InvalidRecord, match="size"):
        item.revert(0)
    item.update_payload({"size": 2})
    assert item.version == 3


def test_a_unit_of_work_judges_by_what_it_has_changed_itself(eventic: str) -> None:
    with Eventic.unit_of_work():
        automation = Automation(name="new")
        batch = Batch(automation_id=automation.id, name="new")
        Item(batch_id=batch.id, sequence_number=1, payload="anything")
        Item.create_many([{"batch_id": batch.id, "sequence_number": 2, "payload": "more"}])
    with pytest.raises(InvalidRecord, match="is not of type"), Eventic.unit_of_work():
        found = Automation.hydrate(automation.id)
        found.update_schemas(item_schema={"type": "integer"})
        Item(batch_id=batch.id, sequence_number=3, payload="text")
    assert Automation.hydrate(automation.id).item_schema is None


def test_many_items_of_a_stored_batch_are_created_in_a_unit_of_work(batch: Batch, eventic: str) -> None:
    with Eventic.unit_of_work():
        Item.create_many({"batch_id": batch.id, "sequence_number": n, "payload": {"name": "a"}} for n in range(3))
    before = versions(eventic)
    with pytest.raises(InvalidRecord, match=r"^Row 2: .*payload\.name"), Eventic.unit_of_work():
        Item.create_many(
            {"batch_id": batch.id, "sequence_number": n, "payload": {"name": v}} for n, v in ((3, "a"), (4, 1))
        )
    assert versions(eventic) == before


def test_reading_the_owner_leaves_the_users_own_object_usable(people: Automation, batch: Batch) -> None:
    with Eventic.unit_of_work() as unit:
        Item(batch_id=batch.id, sequence_number=1, payload={"name": "Ada"})
        unit.flush()
        people.description = "changed in the same unit of work"
        batch.name = "renamed"
    assert (people.version, batch.version) == (1, 1)


@pytest.mark.parametrize("route", ["constructor", "create_many", "other class"])
def test_what_belongs_to_nothing_is_refused(route: str, people: Automation, batch: Batch, eventic: str) -> None:
    owner: UUID = people.id if route == "other class" else uuid4()
    before = versions(eventic)
    with pytest.raises(InvalidRecord, match="Store the Batch first") as caught:
        if route == "create_many":
            Item.create_many([{"batch_id": owner, "sequence_number": 1, "payload": {"name": "a"}}])
        else:
            Item(batch_id=owner, sequence_number=1, payload={"name": "a"})
    assert caught.value.errors[0]["loc"] == ("batch_id",)
    with pytest.raises(InvalidRecord, match="Store the Automation first") as caught:
        Batch(automation_id=batch.id if route == "other class" else owner, name="lost")
    assert caught.value.errors[0]["loc"] == ("automation_id",)
    assert versions(eventic) == before


def test_what_is_deleted_gets_nothing_new_but_keeps_what_it_has(people: Automation, batch: Batch, item: Item) -> None:
    batch.delete()
    with pytest.raises(InvalidRecord, match="a deleted Batch"):
        Item(batch_id=batch.id, sequence_number=2, payload={"name": "late"})
    item.update_payload({"name": "Grace"})
    people.delete()
    with pytest.raises(InvalidRecord, match="a deleted Automation"):
        Batch(automation_id=people.id, name="late")
    with pytest.raises(InvalidRecord, match="payload"):
        item.update_payload({"name": 1})


async def judge_async(batch: Batch) -> Item:
    return await Item.create_async(batch_id=batch.id, sequence_number=2, payload={"name": "Ada"})


def test_async_routes_judge_too(batch: Batch, item: Item) -> None:
    import asyncio

    made = asyncio.run(judge_async(batch))
    with pytest.raises(InvalidRecord, match="payload"):
        asyncio.run(made.update_async(payload=5))
    assert made.version == 0


@Eventic.workflow()
def items_of_a_workflow(name: str) -> str:
    automation = Automation(name=name, item_schema=SIZED)
    batch = Batch(automation_id=automation.id, name="made")
    Item(batch_id=batch.id, sequence_number=1, payload={"size": 1})
    with pytest.raises(InvalidRecord):
        Item(batch_id=batch.id, sequence_number=2, payload={})
    return str(batch.id)


def test_a_check_is_no_step_of_a_workflow(eventic: str) -> None:
    Eventic.launch(queues=[])
    batch_id = items_of_a_workflow("workflow")
    with psycopg.connect(eventic) as connection:
        query = "select function_name from dbos.operation_outputs order by function_id"
        steps = [name for (name,) in connection.execute(query)]
    assert steps == ["write new Automation", "write new Batch", "write new Item"]
    assert Item.where(batch_id=batch_id).count() == 1


def test_each_owner_is_read_once_for_many(people: Automation, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    from eventic_core.store.engine import Database

    sent: list[str] = []
    run = Database.run

    def counting(self: Database, sql: str, parameters: Any) -> Any:
        sent.append(sql)
        return run(self, sql, parameters)

    Item.create_many([{"batch_id": batch.id, "sequence_number": 1, "payload": {"name": "a"}}])
    monkeypatch.setattr(Database, "run", counting)
    rows = [{"batch_id": batch.id, "sequence_number": n, "payload": {"name": "a"}} for n in range(2, 500)]
    Item.create_many(rows)
    assert len(sent) < 10
