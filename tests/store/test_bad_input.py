"""Bad input is refused by a named error, and changes neither memory nor the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from eventic_core import (
    ChangedOutsideScope,
    EventicError,
    InvalidRecord,
    Record,
    RecordNotFound,
    ScopeError,
)


class Note(Record, class_type="BadInputNote"):
    text: str
    number: float = 0.0
    big: int = 0
    tags: list[str] = []
    free: Any = None
    raw: bytes = b""


class Other(Record, class_type="BadInputOther"):
    text: str = ""


def rows(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute("select id, version, data from eventic.records order by position").fetchall()


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


class Opaque:
    pass


BAD: list[tuple[str, Callable[[Note], Any], type[EventicError], str]] = [
    ("unknown field", lambda n: Note(text="a", colour="red"), InvalidRecord, "colour"),  # type: ignore[call-arg]
    ("missing field", lambda n: Note(), InvalidRecord, "text"),  # type: ignore[call-arg]
    ("unknown field assigned", lambda n: setattr(n, "colour", "red"), InvalidRecord, "colour"),
    ("wrong type", lambda n: Note(text=5), InvalidRecord, "text"),  # type: ignore[arg-type]
    ("wrong type assigned", lambda n: setattr(n, "tags", "not a list"), InvalidRecord, "tags"),
    ("id assigned", lambda n: setattr(n, "id", uuid4()), InvalidRecord, "id"),
    ("version assigned", lambda n: setattr(n, "version", 9), InvalidRecord, "version"),
    ("field deleted", lambda n: delattr(n, "text"), InvalidRecord, "text"),
    ("wrong class for an id", lambda n: Other.hydrate(n.id), RecordNotFound, "BadInputOther|Other"),
    ("unknown version", lambda n: Note.hydrate(n.id, version=12), RecordNotFound, "version 12"),
    ("NaN", lambda n: setattr(n, "number", float("nan")), InvalidRecord, "number"),
    ("infinity", lambda n: Note(text="a", number=float("inf")), InvalidRecord, "number"),
    ("NaN in a free value", lambda n: setattr(n, "free", {"deep": [float("nan")]}), InvalidRecord, r"free\.deep\.0"),
    ("bytes in a free value", lambda n: setattr(n, "free", {"deep": [b"x"]}), InvalidRecord, r"free\.deep\.0.*bytes"),
    ("a set in a free value", lambda n: setattr(n, "free", {"deep": {1}}), InvalidRecord, r"free\.deep.*set"),
    ("a key that is no text", lambda n: setattr(n, "free", [{1: 2}]), InvalidRecord, r"free\.0.*key 1"),
    ("bytes added to a free value", lambda n: changed_in_place(n), InvalidRecord, r"free\.k.*bytes"),
    ("NaN in a property", lambda n: n.properties.add(x=float("nan")), InvalidRecord, "properties"),
    ("NUL character", lambda n: setattr(n, "text", "a\x00b"), InvalidRecord, "NUL"),
    ("NUL in a key", lambda n: setattr(n, "free", {"a\x00": 1}), InvalidRecord, "NUL"),
    ("lone surrogate", lambda n: setattr(n, "free", "\ud800"), InvalidRecord, "Note"),
    ("10 MB document", lambda n: setattr(n, "text", "x" * 10_000_000), InvalidRecord, "EVENTIC_MAX_RECORD_BYTES"),
    ("too deep", lambda n: setattr(n, "free", deep(400)), InvalidRecord, "Note"),
    ("no JSON form", lambda n: setattr(n, "free", Opaque()), InvalidRecord, "Note"),
    ("property with a field's name", lambda n: n.properties.add(text="x"), InvalidRecord, "text"),
    ("property named id", lambda n: n.properties.add(id="x"), InvalidRecord, "id"),
    ("property without a JSON form", lambda n: n.properties.add(x=Opaque()), InvalidRecord, "properties"),
    ("list changed outside a scope", lambda n: n.tags.append("x"), ChangedOutsideScope, "edit"),
    ("closed scope left again", lambda n: leave_twice(n), ScopeError, "closed"),
]


def changed_in_place(note: Note) -> None:
    with note.edit():
        note.free["k"] = b"x"


def leave_twice(note: Note) -> None:
    block = note.edit()
    with block:
        pass
    block.__exit__(None, None, None)


@pytest.mark.parametrize(("attempt", "error", "text"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_bad_input_changes_nothing(
    eventic: str, attempt: Callable[[Note], Any], error: type[EventicError], text: str
) -> None:
    note = Note(text="fine", tags=["x"], free={"k": 1}, raw=b"\xff\x00")
    memory, table = note.model_dump(), rows(eventic)
    with pytest.raises(error, match=text):
        attempt(note)
    assert note.model_dump() == memory
    assert rows(eventic) == table
    note.text = "still usable"
    assert Note.hydrate(note.id) == note


def test_error_lists_the_problems_as_pydantic_does(eventic: str) -> None:
    with pytest.raises(InvalidRecord) as caught:
        Note(text=5, number="x")  # type: ignore[arg-type]
    assert [problem["loc"] for problem in caught.value.errors] == [("text",), ("number",)]
    assert caught.value.__cause__ is not None


def test_numbers_and_bytes_come_back_exactly(eventic: str) -> None:
    note = Note(text="\u2028 \\u0000 é 🎉", big=2**80 + 1, number=1e300, raw=bytes(range(256)))
    note.properties.add(huge=10**30, tiny=1e-9)
    found = Note.hydrate(note.id)
    assert (found.text, found.big, found.number, found.raw) == (note.text, 2**80 + 1, 1e300, bytes(range(256)))
    assert found.properties.list() == {"huge": 10**30, "tiny": 1e-9}
    found.number = 1e300
    assert found.version == 1
