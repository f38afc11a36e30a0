"""Every error of the package: documented, coded, drawn in the tree, and whole after pickling."""

from __future__ import annotations

import pickle
import re
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from eventic_core import errors
from eventic_core.errors import (
    EventicError,
    InvalidRecord,
    InvalidStateError,
    MigrationRequired,
    RemoteError,
    VersionConflict,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# "│  ├─ VersionConflict        version_conflict 409    1   somebody wrote in between"
TREE_LINE = re.compile(
    r"^ {4}(?P<branch>[│├└─ ]*)(?P<name>\w+) +(?P<code>\w+) +(?P<http>\d{3}) +(?P<exit>\d+)\b", re.MULTILINE
)


def _tree(kind: type[EventicError] = EventicError) -> Iterator[type[EventicError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _tree(child)


KINDS = sorted(set(_tree()), key=lambda kind: kind.__name__)


def _example(kind: type[EventicError]) -> EventicError:
    if issubclass(kind, VersionConflict):
        changed = [(4, "ann", "typo", ("text", "done")), (5, None, None, ())]
        return kind("Todo", UUID(int=1), expected=3, actual=5, changed=changed)
    if issubclass(kind, InvalidStateError):
        return kind("Run", UUID(int=1), "COMPLETED", "PENDING")
    if issubclass(kind, MigrationRequired):
        return kind(found=None, needed="0001", database="db")
    if issubclass(kind, RemoteError):
        return kind("No.", "app:Odd")
    if issubclass(kind, InvalidRecord):
        return kind("No.", errors=[{"loc": ("a", 0), "msg": "m", "type": "t"}])
    return kind('It\'s "odd".')


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in KINDS]
    assert len(set(codes)) == len(codes)


def test_the_drawn_tree_is_the_real_one() -> None:
    drawn: list[tuple[str, str, str, int, int]] = []
    path = ["EventicError"]  # its line in the drawing holds the headings
    for line in TREE_LINE.finditer(errors.__doc__ or ""):
        depth = len(line["branch"]) // 3
        path[depth:] = [line["name"]]
        drawn.append((line["name"], path[depth - 1], line["code"], int(line["http"]), int(line["exit"])))
    real = [
        (kind.__name__, kind.__bases__[0].__name__, kind.code, kind.http_status, kind.exit_code)
        for kind in KINDS
        if kind is not EventicError
    ]
    assert sorted(drawn) == sorted(real)


@pytest.mark.parametrize("kind", KINDS)
def test_error_has_what_every_door_needs(kind: type[EventicError]) -> None:
    assert "__doc__" in vars(kind)
    assert (kind.__doc__ or "").strip()
    assert "code" in vars(kind)
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", kind.code)
    assert 400 <= kind.http_status < 600
    assert kind.exit_code in {1, 3}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_error_survives_pickling(kind: type[EventicError], protocol: int) -> None:
    error = _example(kind)
    copy = pickle.loads(pickle.dumps(error, protocol))
    assert type(copy) is kind
    assert (str(copy), copy.message, copy.args) == (str(error), error.message, error.args)
    assert vars(copy) == vars(error)
