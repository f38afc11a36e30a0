"""Erasures beside each other, beside retention and beside writers: nothing is left, nothing is lost."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

from ageing import age, caught_up, rows, rule, settle_workflows
from test_erasure import QUEUE, Person, register, uuid_of, where

from eventic_core import Eventic
from eventic_core.errors import Conflict, VersionConflict
from eventic_core.operations import OperatorAct, erase
from eventic_core.operations.retention import apply

PEOPLE, ERASERS, SWEEPS, CHANGES = 12, 2, 3, 6


def erased(person: UUID) -> int:
    """Erase a person, again where somebody wrote them meanwhile; gives how often that was."""
    for times in range(50):
        try:
            erase(person, fields=["name", "email", "nickname"])
        except Conflict:
            continue
        return times
    raise AssertionError("it never comes to an end")


def aged(person: UUID) -> None:
    done = 0
    while done < CHANGES:
        found = Person.hydrate(person)
        with contextlib.suppress(VersionConflict):
            found.age += 1
            done += 1


def test_erasures_beside_each_other_retention_and_writers_leave_no_value_and_lose_no_change(eventic: str) -> None:
    Eventic.launch()
    caught_up(eventic)
    marker = uuid4().hex
    runs = [QUEUE.enqueue(register, f"{marker} {number}", f"{number}@{marker}") for number in range(PEOPLE)]
    people = [UUID(run.result()["id"]) for run in runs]
    for person in people:
        aged(person)
    settle_workflows(eventic)
    age(eventic)
    with ThreadPoolExecutor(6) as threads:
        swept = [
            threads.submit(apply, one)
            for _ in range(SWEEPS)
            for one in (rule("history", of="ErasedPerson"), rule("workflows"))
        ]
        erasing = [threads.submit(erased, person) for person in people for _ in range(ERASERS)]
        writing = [threads.submit(aged, person) for person in people]
    for future in (*erasing, *writing):
        future.result()
    removed = sum(future.result().count for future in swept)
    assert removed >= PEOPLE * CHANGES  # versions, and the runs
    assert where(eventic, uuid_of(marker)) == set()
    for person in people:
        found = Person.hydrate(person)
        assert (found.age, found.nickname) == (1 + 2 * CHANGES, None)
        versions = [version.version for version in found.history()]
        assert versions == list(range(versions[0], versions[-1] - 1, -1))
    acts = OperatorAct.where(OperatorAct.fields.act == "records.erase").all()
    assert sorted(act.target for act in acts) == sorted(str(person) for person in people * ERASERS)
    assert rows(eventic, "select 1 from dbos.workflow_status where status = 'ERROR'") == []
