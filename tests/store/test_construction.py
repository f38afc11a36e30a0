"""Construction writes, validation does not; identity never comes from outside."""

from __future__ import annotations

import copy
import pickle
from typing import Generic, TypeVar
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, ConfigDict, PrivateAttr, SecretStr, TypeAdapter, computed_field

from eventic_core import (
    DuplicateRegistration,
    Invalid,
    InvalidRecord,
    InvalidRecordClass,
    NotInitialised,
    Record,
    RecordExists,
    RecordNotFound,
    Ref,
    VersionConflict,
)

T = TypeVar("T")


class Todo(Record):
    text: str
    done: bool = False
    tags: list[str] = []


class Urgent(Todo):
    level: int = 1


class Box(Record, Generic[T]):
    content: T


def stored_count() -> int:
    return Record.where().count()


pytestmark = pytest.mark.usefixtures("eventic")


def test_calling_the_class_stores_version_0() -> None:
    item = Todo(text="Learn")
    assert (item.version, item.is_stored) == (0, True)
    assert Todo.hydrate(item.id) == item
    assert Todo.hydrate(item.id, version=0) == item


def test_every_version_has_a_version_id_of_its_own_and_one_id() -> None:
    item = Todo(text="a")
    first = (item.id, item.version_id)
    item.text = "b"
    assert item.id == first[0]
    assert item.version_id != first[1]


def test_validation_copies_and_pickles_store_nothing() -> None:
    item = Todo(text="a", tags=["x"])
    drafts = [
        Todo.model_validate({"text": "b"}),
        Todo.model_validate_json('{"text": "b"}'),
        TypeAdapter(list[Todo]).validate_python([{"text": "b"}])[0],
        Todo.model_construct(text="b"),
    ]
    copies = [item.model_copy(), item.model_copy(deep=True), copy.copy(item), copy.deepcopy(item)]
    copies.append(pickle.loads(pickle.dumps(item)))
    assert stored_count() == 1
    assert [(draft.is_stored, draft.version, draft.version_id) for draft in drafts] == [(False, -1, None)] * 4
    assert all(twin == item and twin.id == item.id and twin.version == 0 for twin in copies)


def test_copies_have_containers_of_their_own() -> None:
    item = Todo(text="a", tags=["x"])
    twin = item.model_copy()
    with twin.edit():
        twin.tags.append("y")
    assert item.tags == ["x"]
    assert twin.tags == ["x", "y"]


def test_stale_copy_conflicts_when_written() -> None:
    item = Todo(text="a")
    twin = pickle.loads(pickle.dumps(item))
    item.text = "b"
    with pytest.raises(VersionConflict):
        twin.text = "c"


def test_draft_is_stored_by_save_and_changes_freely_before() -> None:
    draft = Todo.model_validate({"text": "a"})
    draft.text = "b"
    draft.tags.append("x")
    draft.properties.add(source="mail")
    assert stored_count() == 0
    draft.save()
    assert (draft.version, Todo.hydrate(draft.id).tags) == (0, ["x"])
    assert Todo.hydrate(draft.id).properties.list() == {"source": "mail"}


def test_save_of_a_stored_record_stores_what_model_copy_changed() -> None:
    item = Todo(text="a")
    changed = item.model_copy(update={"text": "b"})
    assert Todo.hydrate(item.id).text == "a"
    changed.save()
    assert (changed.version, Todo.hydrate(item.id).text) == (1, "b")
    changed.save()
    assert changed.version == 1


def test_model_copy_refuses_identity_and_unknown_names() -> None:
    item = Todo(text="a")
    for name in ("id", "version", "nonsense"):
        with pytest.raises(InvalidRecord, match=name):
            item.model_copy(update={name: 1})


def test_new_id_may_be_given_but_not_taken_again() -> None:
    key = uuid4()
    assert Todo(id=key, text="a").id == key
    with pytest.raises(RecordExists, match=str(key)):
        Todo(id=key, text="b")
    assert [item.text for item in Todo.where()] == ["a"]
    with pytest.raises(InvalidRecord, match="UUID"):
        Todo(id="not an id", text="c")


@pytest.mark.parametrize("spoofed", ["id", "version", "version_id"])
def test_identity_is_refused_in_bodies(spoofed: str) -> None:
    body = {"text": "a", spoofed: str(uuid4()) if spoofed != "version" else 7}
    with pytest.raises(ValueError, match=spoofed):
        Todo.model_validate(body)


def test_fastapi_body_stores_nothing_and_spoofed_identity_is_422() -> None:
    app = FastAPI()

    @app.post("/todos")
    def post(body: Todo) -> Todo:
        return body

    @app.post("/stored")
    def store(body: Todo) -> Todo:
        body.save()
        return body

    client = TestClient(app)
    assert client.post("/todos", json={"text": "a"}).json()["version"] == -1
    assert stored_count() == 0
    assert client.post("/todos", json={"text": "a", "version": 9}).status_code == 422
    assert client.post("/todos", json={"text": "a", "id": str(uuid4())}).status_code == 422
    assert client.post("/todos", json={"text": "a", "properties": {"text": 1}}).status_code == 422
    answer = client.post("/stored", json={"text": "a", "tags": ["x"]}).json()
    assert (answer["version"], answer["tags"]) == (0, ["x"])
    assert Todo.hydrate(answer["id"]).text == "a"


def test_apply_puts_a_whole_body_back_at_the_expected_version() -> None:
    item = Todo(text="a", tags=["x"])
    body = item.model_dump(mode="json")
    changed = Todo.apply({**body, "text": "b"})
    assert (changed.version, changed.text, changed.tags) == (1, "b", ["x"])
    with pytest.raises(VersionConflict) as caught:
        Todo.apply({**body, "text": "c"})
    assert (caught.value.expected, caught.value.actual) == (0, 1)
    assert Todo.apply(Todo.model_validate({"text": "d"}), id=item.id, expected_version=1).tags == []
    with pytest.raises(Invalid, match="version"):
        Todo.apply({"text": "e"}, id=item.id)
    with pytest.raises(Invalid, match="body says"):
        Todo.apply(body, expected_version=2)
    assert Todo.hydrate(item.id).text == "d"


def test_class_with_init_is_refused() -> None:
    with pytest.raises(InvalidRecordClass, match="model_post_init"):

        class WithInit(Record):
            def __init__(self) -> None: ...

    class Mixin:
        def __init__(self) -> None: ...

    with pytest.raises(InvalidRecordClass, match="Mixin"):

        class WithMixin(Mixin, Record):
            pass


def test_model_post_init_is_part_of_version_0() -> None:
    class Shout(Record):
        text: str
        loud: str = ""
        _seen: bool = PrivateAttr(default=False)

        def model_post_init(self, _context: object) -> None:
            self._seen = True
            self.loud = self.text.upper()

    item = Shout(text="hey")
    assert (item.version, item.loud, item._seen) == (0, "HEY", True)
    assert Shout.hydrate(item.id).loud == "HEY"


def test_computed_fields_are_shown_but_not_stored() -> None:
    class Priced(Record):
        net: int

        @computed_field
        @property
        def gross(self) -> int:
            return self.net * 2

    item = Priced(net=2)
    assert item.model_dump()["gross"] == 4
    assert Priced.hydrate(item.id).gross == 4
    assert "gross" not in item.history()[0].model_dump(exclude_computed_fields=True)


def test_field_holding_another_record_is_refused_and_ref_is_named() -> None:
    with pytest.raises(InvalidRecordClass, match=r"Ref\[Todo\]"):

        class Holder(Record):
            todo: Todo | None = None


def test_nested_models_must_be_frozen() -> None:
    class Loose(BaseModel):
        city: str

    class Firm(BaseModel):
        model_config = ConfigDict(frozen=True)
        city: str

    with pytest.raises(InvalidRecordClass, match="frozen"):

        class Bad(Record):
            places: list[Loose] = []

    class Good(Record):
        place: Firm

    item = Good(place=Firm(city="Rome"))
    item.place = Firm(city="Oslo")
    assert Good.hydrate(item.id).place.city == "Oslo"


@pytest.mark.filterwarnings("ignore:Field name")
def test_fields_that_would_not_be_stored_whole_are_refused() -> None:
    from pydantic import Field

    with pytest.raises(InvalidRecordClass, match="excluded"):

        class Excluding(Record):
            hidden: str = Field(default="", exclude=True)

    with pytest.raises(InvalidRecordClass, match="secret"):

        class Secretive(Record):
            token: SecretStr

    with pytest.raises(InvalidRecordClass, match="extra"):

        class Open(Record):
            model_config = ConfigDict(extra="allow")

    with pytest.raises(InvalidRecordClass, match="belongs to every record"):

        class Shadowing(Record):
            history: list[str] = []  # type: ignore[assignment]


def test_misspelt_class_keyword_is_refused() -> None:
    with pytest.raises(InvalidRecordClass, match="Did you mean unique"):

        class Typo(Record, uniqe=["text"]):  # type: ignore[call-arg]
            text: str


def test_generic_takes_class_type_and_queue_from_its_origin() -> None:
    item = Box[int](content=3)
    assert Box[int]._queue_name == Box._queue_name == "queue_box"
    assert Box[int].hydrate(item.id).content == 3
    assert [found.content for found in Box.where()] == [3]
    with pytest.raises(InvalidRecord):
        Box[int](content="three")


def test_two_classes_with_one_stored_name_are_refused() -> None:
    namespace = {"__module__": "elsewhere", "__qualname__": "Todo", "__annotations__": {"text": str}}
    with pytest.raises(DuplicateRegistration, match="class_type"):
        type(Todo)("Todo", (Record,), namespace)
    other = type(Todo)("Todo", (Record,), dict(namespace), class_type="elsewhere.Todo")
    item = other(text="a")
    with pytest.raises(RecordNotFound):
        Todo.hydrate(item.id)


def test_subclass_is_found_through_its_base_and_keeps_its_class() -> None:
    item = Urgent(text="now", level=3)
    found = Todo.hydrate(item.id)
    assert isinstance(found, Urgent)
    assert found.level == 3
    assert [type(one) for one in Todo.where()] == [Urgent]
    with pytest.raises(RecordNotFound, match="Urgent"):
        Urgent.hydrate(Todo(text="calm").id)


def test_record_itself_cannot_be_stored() -> None:
    with pytest.raises(InvalidRecord, match="inherits"):
        Record()


def test_unconnected_record_says_what_to_call() -> None:
    from eventic_core import Eventic

    Eventic.shutdown()
    with pytest.raises(NotInitialised, match=r"Eventic\.init"):
        Todo(text="a")


def test_reference_floats_or_is_pinned_and_checks_its_class() -> None:
    class Customer(Record):
        name: str

    class Order(Record):
        customer: Ref[Customer]
        snapshot: Ref[Customer] | None = None

    ada = Customer(name="Ada")
    order = Order(customer=ada, snapshot=Ref.pinned(ada))
    ada.name = "Countess"
    stored = Order.hydrate(order.id)
    assert stored.customer.get().name == "Countess"
    assert stored.snapshot is not None
    assert stored.snapshot.get().name == "Ada"
    assert [found.id for found in Order.where(customer=ada)] == [order.id]
    order.customer = Ref(uuid4())
    with pytest.raises(RecordNotFound):
        order.customer.get()
    with pytest.raises(InvalidRecord, match="refers to Customer"):
        order.customer = Todo(text="a")  # type: ignore[assignment]
    assert isinstance(UUID(str(stored.customer)), UUID)
