"""Random nesting of blocks in one unit of work: what a block did is stored if it, and all around it, ended well."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from conftest import new_database, rows
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some

from eventic_core import Eventic, Record
from eventic_core.records.states import StateMachine

if TYPE_CHECKING:
    from collections.abc import Iterator

LAST = 30
STATES = StateMachine("state", "0", {str(number): frozenset({str(number + 1)}) for number in range(LAST)})
QUEUE = Eventic.queue("levels")

Program = tuple[Any, ...]


class LevelStep(Record, states=STATES):
    state: str = "0"
    text: str = ""


class Stop(Exception):
    """Ends a block."""


@Eventic.step(name="levels.send")
def send(number: int) -> int:
    return number


@dataclass(frozen=True)
class Model:
    """What is to be stored, if all ends well from here on."""

    state: int = 0
    text: str = ""
    born: tuple[str, ...] = ()
    sent: tuple[str, ...] = ()


def play(program: Program, step: LevelStep, model: Model, level: int = 0) -> Model:
    """Do what a program says, and give what is to come of it."""
    for number, (what, *more) in enumerate(program):
        match what:
            case "move":
                step.state = str(model.state + 1)
                model = replace(model, state=model.state + 1)
            case "edit":
                step.text += "x"
                model = replace(model, text=f"{model.text}x")
            case "make":
                text = f"{level}.{number}"
                LevelStep(text=text)
                model = replace(model, born=(*model.born, text))
            case "send":
                model = replace(model, sent=(*model.sent, QUEUE.enqueue(send, number).id))
            case "read":
                assert LevelStep.where(text="nothing").count() == 0
            case "block":
                model = block(*more, step, model, level + 1)
        assert (step.state, step.text) == (str(model.state), model.text)
    return model


def block(fails: bool, program: Program, step: LevelStep, model: Model, level: int) -> Model:
    try:
        with Eventic.unit_of_work():
            outcome = play(program, step, model, level)
            if fails:
                raise Stop
    except Stop:
        return model
    return outcome


ACTS = some.sampled_from([("move",), ("edit",), ("make",), ("send",), ("read",)])
PROGRAMS = some.recursive(
    some.lists(ACTS, max_size=4).map(tuple),
    lambda inner: some.lists(ACTS | some.tuples(some.just("block"), some.booleans(), inner), max_size=4).map(tuple),
    max_leaves=8,
)


@pytest.fixture
def url(server_url: str, prepared: str) -> Iterator[str]:
    """A database with all tables and nobody who does any work."""
    with new_database(server_url, prepared) as made:
        Eventic.init(name="levels", database_url=made)
        yield made
        Eventic.shutdown()


def sent(url: str) -> set[str]:
    return {run_id for (run_id,) in rows(url, "select workflow_uuid from dbos.workflow_status")}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(program=(("send",), ("block", True, (("read",),))))
@example(program=(("move",), ("move",), ("block", True, (("read",),))))
@example(program=(("send",), ("block", False, (("send",), ("block", True, (("read",),))))))
@example(program=(("block", True, (("send",), ("move",), ("move",), ("block", False, (("read",),)))),))
@given(program=PROGRAMS)
def test_what_is_stored_is_what_blocks_that_ended_well_did(url: str, program: Program) -> None:
    step = LevelStep()
    known = sent(url)
    born = LevelStep.where().count()
    with Eventic.unit_of_work():
        model = play(program, step, Model())
    stored = [str(version.state) for version in reversed(step.history())]
    assert sorted(set(stored), key=int) == [str(number) for number in range(model.state + 1)]
    assert stored == sorted(stored, key=int)
    assert LevelStep.hydrate(step.id).text == model.text
    assert LevelStep.where().count() == born + len(model.born)
    assert sent(url) == known | set(model.sent)
