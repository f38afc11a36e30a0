"""Erasure: values of one record are nowhere any more, and everything can still be read."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from conftest import until

from eventic_core import Eventic, Record, Retry, on
from eventic_core.automation import automation
from eventic_core.errors import Conflict, Invalid, RecordNotFound, VersionConflict
from eventic_core.jobs import dag, job
from eventic_core.operations import OperatorAct, erase

pytestmark = pytest.mark.usefixtures("workers")
QUEUE = Eventic.queue("erasure.work")


class Person(Record, class_type="ErasedPerson", unique=["email"]):
    name: str
    email: str
    age: int = 1
    nickname: str | None = None
    address: dict[str, str] = {}


class Watched(Record, class_type="ErasedWatched"):
    secret: str


def where(url: str, text: str) -> set[str]:
    """The tables of ours and of DBOS's in which a row holds a text, whatever the column."""
    found = set()
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "select schemaname, tablename from pg_tables where schemaname in ('eventic', 'dbos')"
        ).fetchall()
        for schema, table in tables:
            sql = f'select 1 from {schema}."{table}" t where position(%s in t::text) > 0 limit 1'
            if connection.execute(sql, [text]).fetchone():  # type: ignore[arg-type]
                found.add(f"{schema}.{table}")
    return found


@Eventic.step(name="erasure.greet")
def greet(name: str) -> str:
    return f"Dear {name}!"


@Eventic.workflow(name="erasure.register")
def register(name: str, email: str) -> dict[str, Any]:
    person = Person(name=name, email=email)
    greeting = greet(name)
    person.nickname = f"{name} the first"
    return {"id": str(person.id), "greeting": greeting, "age": 7}


@Eventic.workflow(name="erasure.refuse")
def refuse(person: UUID, name: str) -> None:
    message = f"{name} ({person}) is refused"
    raise ValueError(message)


@Eventic.workflow(name="erasure.copy")
def copy(text: str) -> str:
    return text


@automation("erasure: load")
def load(item: dict[str, Any]) -> dict[str, str]:
    return {"person": item["person"], "said": f"hello {item['name']}"}


@job
def told(name: str, person: str) -> str:
    return f"told {name}"


TELL = dag("erasure: tell", told)


@on.create(Watched, retry=Retry(max_attempts=1))
def fails(watched: Watched) -> None:
    message = f"cannot handle {watched.secret}"
    raise ValueError(message)


@pytest.fixture
def marker() -> str:
    return f'ü"{uuid4().hex}'


def test_no_table_holds_a_value_any_more_and_all_versions_can_be_read(workers: str, marker: str) -> None:
    result = QUEUE.enqueue(register, marker, f"{uuid4().hex}@{marker}").result()
    person = Person.hydrate(result["id"])
    person.address = {"street": f"{marker} street", "city": "Zurich"}
    refused = QUEUE.enqueue(refuse, person.id, marker)
    with pytest.raises(ValueError, match="is refused"):
        refused.result()
    run = load.start(load.batch(uuid4().hex, [{"person": str(person.id), "name": marker}])).wait(timeout_seconds=100)
    held = {"eventic.records", "eventic.record_keys", "dbos.operation_outputs", "dbos.workflow_input"}
    assert held <= where(workers, uuid_of(marker))

    done = erase(person.id, fields=["name", "email", "nickname", "address.street"], reason="asked to")

    assert where(workers, uuid_of(marker)) == set()
    now = Person.hydrate(person.id)
    assert (now.name, now.nickname, now.age) == ("[erased]", None, 1)
    assert now.email.startswith("[erased]")
    assert now.address == {"street": "[erased]", "city": "Zurich"}
    assert [past.name for past in now.history()] == ["[erased]"] * (now.version + 1)
    assert done.versions == now.version
    act = OperatorAct.where(target=str(person.id)).first()
    assert act is not None
    assert act.act == "records.erase"
    assert act.details["fields"] == ["name", "email", "nickname", "address.street"]
    assert [line.count("hello [erased]") for line in run.results()] == [1]
    with pytest.raises(ValueError, match=r"\[erased\]"):
        refused.result()


def uuid_of(marker: str) -> str:
    return marker[2:]


def test_erasing_again_changes_nothing(marker: str) -> None:
    person = Person(name=marker, email=marker)
    erase(person.id, fields=["name"])
    again = erase(person.id, fields=["name"])
    assert (again.versions, again.rows) == (0, {})
    assert Person.hydrate(person.id).version == 1


def test_who_read_it_before_cannot_write_the_values_back(workers: str, marker: str) -> None:
    person = Person(name=marker, email="a@b")
    erase(person.id, fields=["name", "email"])
    with pytest.raises(VersionConflict):
        person.age = 3
    assert where(workers, uuid_of(marker)) == set()


def test_copies_that_do_not_name_the_record_go_by_their_value(workers: str, marker: str) -> None:
    person = Person(name=marker, email=uuid4().hex)
    TELL.start(name=marker, person=str(person.id)).wait(timeout_seconds=100)
    QUEUE.enqueue(copy, f"copied {marker}").result()
    erase(person.id, fields=["name"])
    assert where(workers, uuid_of(marker)) == {"dbos.workflow_input", "dbos.workflow_output"}
    erase(person.id, fields=["name"], values=[marker])
    assert where(workers, uuid_of(marker)) == set()


def test_a_dead_letter_loses_the_value_and_can_be_read(workers: str, marker: str) -> None:
    watched = Watched(secret=marker)
    until(lambda: [letter for letter in Eventic.dead_letters.list() if letter.record_id == watched.id])
    erase(watched.id, fields=["secret"])
    assert where(workers, uuid_of(marker)) == set()
    letter = next(letter for letter in Eventic.dead_letters.list() if letter.record_id == watched.id)
    assert str(letter.error) == "cannot handle [erased]"


def test_an_unfinished_run_that_holds_the_data_is_named_and_nothing_is_erased(workers: str, marker: str) -> None:
    person = Person(name=marker, email=uuid4().hex)
    waiting = QUEUE.enqueue(copy, f"{person.id}")
    waiting.result()
    with psycopg.connect(workers, autocommit=True) as connection:
        connection.execute("update dbos.workflow_status set status = 'DELAYED' where workflow_uuid = %s", [waiting.id])
    with pytest.raises(Conflict, match=waiting.id):
        erase(person.id, fields=["name"])
    assert Person.hydrate(person.id).name == marker
    done = erase(person.id, fields=["name"], leave_unfinished=True)
    assert done.left == [waiting.id]
    assert Person.hydrate(person.id).name == "[erased]"
    with psycopg.connect(workers, autocommit=True) as connection:
        connection.execute("update dbos.workflow_status set status = 'SUCCESS' where workflow_uuid = %s", [waiting.id])


def test_all_but_ids_and_a_dry_run_changes_nothing(workers: str, marker: str) -> None:
    person = Person(name=marker, email=uuid4().hex, age=44, address={"street": marker})
    planned = erase(person.id, fields=None, dry_run=True)
    assert Person.hydrate(person.id).name == marker
    assert OperatorAct.where(target=str(person.id)).all() == []
    done = erase(person.id, fields=None)
    assert planned == done
    now = Person.hydrate(person.id)
    assert (now.name, now.age, now.address) == ("[erased]", 0, {})
    assert where(workers, uuid_of(marker)) == set()


def test_a_deleted_record_is_erased_where_it_lies(workers: str, marker: str) -> None:
    person = Person(name=marker, email=uuid4().hex)
    person.delete()
    erase(person.id, fields=["name"])
    assert where(workers, uuid_of(marker)) == set()
    assert Person.restore(person.id).name == "[erased]"


def test_a_request_key_erases_once(marker: str) -> None:
    person = Person(name=marker, email=uuid4().hex)
    key = uuid4().hex
    first = erase(person.id, fields=["name"], request_key=key)
    assert first == erase(person.id, fields=["name"], request_key=key)
    with pytest.raises(Conflict, match="was given for"):
        erase(uuid4(), fields=["name"], request_key=key)


def test_what_makes_no_sense_is_refused(marker: str) -> None:
    person = Person(name=marker, email=uuid4().hex)
    with pytest.raises(RecordNotFound):
        erase(uuid4(), fields=["name"])
    with pytest.raises(Invalid, match="no field 'nam'"):
        erase(person.id, fields=["nam"])
    with pytest.raises(Invalid, match="empty"):
        erase(person.id, fields=["name"], values=[" "])
    assert Person.hydrate(person.id).version == 0


def test_the_guard_lets_nothing_else_through(workers: str, marker: str) -> None:
    one, other = Person(name=marker, email=uuid4().hex), Person(name="x", email=uuid4().hex)
    one.age = 2
    statements = [
        ("update eventic.records set data = '{}' where id = %s", other.id),
        ("update eventic.records set data = '{}', actor = 'x' where id = %s", one.id),
        ("update eventic.records set data = '{}', superseded_at = clock_timestamp() where id = %s", one.id),
        ("update eventic.records set superseded_at = null where id = %s and version = 0", one.id),
    ]
    for sql, record_id in statements:
        with psycopg.connect(workers) as connection:
            connection.execute("select set_config('eventic.erasure', %s, true)", [str(one.id)])
            with pytest.raises(psycopg.errors.RestrictViolation):
                connection.execute(sql, [record_id])
    with psycopg.connect(workers) as connection, pytest.raises(psycopg.errors.RestrictViolation):
        connection.execute("update eventic.records set data = '{}' where id = %s", [one.id])
