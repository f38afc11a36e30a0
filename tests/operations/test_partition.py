"""Two hosts, and a network that is cut between one of them and Postgres and healed later."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import until
from fleet import PROGRAM, Fleet
from fleet_worker import LOADS, FleetNote, trip
from network import Host

from eventic_core.operations.workers import list_workers


@pytest.fixture
def hosts(server_url: str) -> Iterator[list[Host]]:
    found = [Host(number, server_url) for number in range(2)]
    yield found
    for host in found:
        host.remove()


@pytest.fixture
def fleet(eventic: str, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(eventic, tmp_path / "marks") as found:
        yield found


def start(fleet: Fleet, host: Host) -> int:
    """Start a worker on a host; gives its process, also as this machine counts processes."""
    return fleet.start(host.url(fleet.url), command=host.command(sys.executable, str(PROGRAM))).pid


def test_a_host_that_is_cut_off_loses_its_work_to_the_other_and_writes_nothing_when_it_is_back(
    fleet: Fleet, hosts: list[Host]
) -> None:
    lone, cut = (start(fleet, host) for host in reversed(hosts))
    held = {f"trip-{number}": fleet.hold(f"trip-{number}") for number in range(8)}
    handles = []
    for about in held:  # one after the other, so that none is claimed ahead by a worker that has no room for it
        handles.append(LOADS.enqueue(trip, about))
        until(lambda about=about: fleet.begun(about))
    assert {process for about in held for process in fleet.begun(about)} == {lone, cut}
    of_cut = [about for about in held if cut in fleet.begun(about)]
    hosts[0].cut()
    for about, file in held.items():  # those of the other end, and make room
        if about not in of_cut:
            file.unlink()
    until(lambda: all(lone in fleet.begun(about) for about in of_cut))
    for about in of_cut:
        held[about].unlink()  # both end the step now, one of them cut off
    until(lambda: all(f"ended-{about} {cut}" in fleet.marks.read_text() for about in of_cut))
    assert {handle.result(timeout_seconds=100) for handle in handles} == {lone}
    hosts[0].heal()
    back = until(lambda: [row for row in list_workers() if row.pid == cut and row.state == "alive"])
    assert back[0].recovered == 0
    counts = Counter(note.about for note in FleetNote.where().all())
    assert counts == {f"{about}-{when}": 1 for about in held for when in ("before", "after")}
    assert {note.pid for note in FleetNote.where().all() if note.about.endswith("-after")} == {lone}
    again = [LOADS.enqueue(trip, f"again-{number}") for number in range(16)]
    assert {handle.result(timeout_seconds=100) for handle in again} <= {lone, cut}


@pytest.mark.parametrize("seed", [1, 2])
def test_a_network_that_comes_and_goes_neither_loses_work_nor_does_it_twice(
    fleet: Fleet, hosts: list[Host], seed: int
) -> None:
    chance = random.Random(seed)
    for host in hosts:
        start(fleet, host)
    handles = []
    for step in range(6):
        handles += [LOADS.enqueue(trip, f"trip-{step}-{number}") for number in range(10)]
        host = hosts[0] if step % 2 else chance.choice(hosts)
        host.cut()
        until(lambda: None if chance.random() < 0.97 else True)
        host.heal()
    for handle in handles:
        handle.result(timeout_seconds=100)
    counts = Counter(note.about for note in FleetNote.where().all())
    assert set(counts.values()) == {1}
    assert len(counts) == 2 * 6 * 10
