"""What old and new workers do beside each other: by names that both releases know, so it uses nothing that is newer."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from eventic_core import Eventic, Record, Retry, evented, later, on
from eventic_core.automation import ItemContext, automation
from eventic_core.jobs import JobContext, dag, job

GATE = Path(os.environ.get("UPGRADE_GATE", os.devnull))
ITEMS, ELEMENTS = 120, 4
PATIENT = Retry(max_attempts=1000, delay_seconds=0)
"""Where workers die so often that the innocent would be blamed."""
queue = Eventic.queue("upgrade", concurrency=8)


def hold(about: str) -> None:
    """Note outside of the database who began it, and take as long as the file says that is there while it must."""
    with Path(f"{GATE}.begun").open("a") as file:
        file.write(f"{about} {os.getpid()}\n")
    while Path(f"{GATE}.{about}").exists():
        time.sleep(0.02)


class UpgradeNote(Record):
    """What is made, changed and handled."""

    name: str
    value: int = 0

    @evented(retry=100)
    def raise_by(self, number: int) -> None:
        self.value += number


class UpgradeKey(Record, unique=["code"]):
    """One with a key."""

    code: str


class UpgradeMade(Record):
    """One for whatever was done, by its name."""

    name: str


@on.create(UpgradeNote, retry=Retry(max_attempts=2, delay_seconds=0.01))
@on.update(UpgradeNote, retry=Retry(max_attempts=2, delay_seconds=0.01))
def upgrade_seen(note: UpgradeNote) -> None:
    hold("handler")
    if note.name.startswith("bad"):
        raise ValueError(f"{note.name} is bad")
    UpgradeMade(name=f"seen {note.id} {note.version}")


@Eventic.step(name="upgrade.outside")
def outside(name: str) -> int:
    hold(name)
    return os.getpid()


@Eventic.transaction(name="upgrade.settle")
def settle(name: str) -> None:
    UpgradeMade(name=f"settled {name}")


@Eventic.transaction(name="upgrade.enter")
def enter(note: UUID) -> None:
    UpgradeNote.hydrate(note).value += 1


@Eventic.workflow(name="upgrade.trip")
def trip(name: str) -> int:
    """A record of three versions around a step, and work that follows."""
    note = UpgradeNote(name=name)
    note.value += 1
    by = outside(name)
    settle(name)
    later(note.raise_by, 10)
    return by


@automation("upgrade import", retry=PATIENT, concurrency=2, group_size=20, tolerated_failures="100%")
def upgrade_import(item: dict[str, Any], context: ItemContext) -> int:
    number = int(item["number"])
    if number == ITEMS // 2:
        hold(f"{item['of']} half")
    UpgradeMade(name=f"imported {item['of']} {number}")
    return number


@job(name="upgrade root", retry=PATIENT)
def root(context: JobContext) -> list[int]:
    UpgradeMade(name=f"root {context.run_id}")
    return list(range(ELEMENTS))


@job(name="upgrade mapped", retry=PATIENT, map="number", inputs={"number": root})
def mapped(number: int, context: JobContext) -> int:
    if number == 1:
        hold("mapped")
    UpgradeMade(name=f"mapped {context.run_id} {number}")
    return number


@job(name="upgrade gathered", retry=PATIENT, inputs={"numbers": mapped})
def gathered(numbers: list[int], context: JobContext) -> int:
    UpgradeMade(name=f"gathered {context.run_id}")
    return sum(numbers)


UPGRADE_DAG = dag("upgrade dag", root, mapped, gathered)


@job(name="upgrade tick", retry=PATIENT)
def tick(due_at: str) -> None:
    UpgradeMade(name=f"tick {due_at}")


UPGRADE_TICKS = dag("upgrade ticks", tick)


def start(label: str) -> set[str]:
    """Begin some of everything; gives the names that must be made of it, once."""
    queue.enqueue(trip, label, run_id=label)
    batch = upgrade_import.batch(label, ({"of": label, "number": number} for number in range(ITEMS)))
    upgrade_import.start(batch)
    run = UPGRADE_DAG.start()
    note = UpgradeNote(name=f"plain {label}")
    note.value += 5
    for number in range(3):
        queue.enqueue(enter, note.id, run_id=f"{label} enter {number}")
    queue.enqueue(settle, f"late {label}", run_id=f"{label} late", delay_seconds=0.5)
    return {
        f"settled {label}",
        f"settled late {label}",
        *(f"{what} {run.id}" for what in ("root", "gathered")),
        *(f"mapped {run.id} {number}" for number in range(ELEMENTS)),
        *(f"imported {label} {number}" for number in range(ITEMS)),
    }
