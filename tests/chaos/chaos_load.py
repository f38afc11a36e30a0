"""What the workers of the chaos suite do: all kinds of work, each piece leaving a name that must be there once.

Steps leave a side effect through a connection of their own: no rollback takes it back, no fault keeps it from coming.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from limits import CONCURRENCY

from eventic_core import Eventic, Record, Retry, evented, later, on
from eventic_core.automation import ItemContext, automation
from eventic_core.jobs import DagRun, JobContext, dag, job

T = TypeVar("T")
ELEMENTS = 3
PATIENT = Retry(max_attempts=1000, delay_seconds=0)
"""Where workers die so often that the innocent would be blamed."""
SCHEMA = """
create schema if not exists chaos;
create table if not exists chaos.effects (
    run text not null, step text not null, key text, pid int not null,
    began_at timestamptz not null, ended_at timestamptz not null default clock_timestamp()
);
"""


class ChaosItem(Record):
    """What a run, or plain code, makes and changes: 0, 1, 11, 111."""

    name: str
    value: int = 0

    def bump(self) -> int:
        self.value += 100
        return self.value


class ChaosSeen(Record):
    """One for each version of an item that the handler saw."""

    name: str


class ChaosMade(Record):
    """One for whatever else was done, by its name."""

    name: str


class ChaosLedger(Record):
    """What keyed work for one key came to, in its order."""

    name: str
    entries: list[int] = []


class ChaosCounter(Record):
    """Raised from everywhere."""

    name: str
    value: int = 0

    @evented(retry=1000)
    def raise_by_one(self) -> None:
        self.value += 1


queue = Eventic.queue("chaos", concurrency=CONCURRENCY)


def patiently(work: Callable[[psycopg.Connection[Any]], T]) -> T:
    """Do something on a connection of its own, for as long as it takes."""
    while True:
        try:
            with psycopg.connect(os.environ["CHAOS_URL"], autocommit=True, connect_timeout=5) as connection:
                return work(connection)
        except (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction):
            time.sleep(0.1)


def effect(run: str, step: str) -> None:
    """Leave a side effect, some time after the step began."""
    row = patiently(lambda connection: connection.execute("select clock_timestamp()").fetchone())
    assert row is not None
    time.sleep(random.uniform(0, 0.03))
    values = (run, step, Eventic.idempotency_key(), os.getpid(), row[0])
    sql = "insert into chaos.effects (run, step, key, pid, began_at) values (%s, %s, %s, %s, %s)"
    patiently(lambda connection: connection.execute(sql, values))


@Eventic.step()
def first(run: str) -> str:
    effect(run, "first")
    return run


@Eventic.step()
def second(run: str) -> str:
    effect(run, "second")
    return run


@Eventic.step()
async def async_first(run: str) -> str:
    effect(run, "first")
    return run


@Eventic.transaction()
def settle(run: str, item: UUID) -> None:
    found = ChaosItem.hydrate(item)
    found.value += 10
    ChaosMade(name=f"settled {run}")


@Eventic.transaction(name="chaos.follow")
def follow(run: str) -> None:
    ChaosMade(name=f"followed {run}")


@Eventic.transaction()
def enter(ledger: UUID, number: int) -> None:
    found = ChaosLedger.hydrate(ledger)
    found.entries = [*found.entries, number]


@Eventic.workflow()
def story(run: str) -> str:
    """A record of four versions, two effects, and work that follows."""
    item = ChaosItem(name=first(run))
    item.value += 1
    settle(run, item.id)
    later(item.bump)
    queue.enqueue(follow, run)
    return second(run)


@Eventic.workflow()
async def async_story(run: str) -> str:
    """One of two versions and an effect, which DBOS runs on its event loop."""
    item = await ChaosItem.create_async(name=await async_first(run))
    await item.update_async(value=1)
    return item.name


@on.create(ChaosItem)
@on.update(ChaosItem)
def chaos_seen(item: ChaosItem) -> None:
    ChaosSeen(name=f"{item.id} {item.version}")


@automation("chaos import", retry=PATIENT, group_size=20, group_seconds=0.2, tolerated_failures="100%")
def chaos_import(item: dict[str, Any], context: ItemContext) -> int:
    number = int(item["number"])
    time.sleep(random.uniform(0, 0.01))
    if number % 9 == 4 and context.attempt == 1:
        raise ConnectionError("try again")
    ChaosMade(name=f"imported {item['of']} {number}")
    return number


@job(name="chaos root", retry=PATIENT)
def root(context: JobContext) -> list[int]:
    ChaosMade(name=f"root {context.run_id}")
    return list(range(ELEMENTS))


@job(name="chaos mapped", retry=PATIENT, map="number", inputs={"number": root})
def mapped(number: int, context: JobContext) -> int:
    time.sleep(random.uniform(0, 0.02))
    ChaosMade(name=f"mapped {context.run_id} {number}")
    return number


@job(name="chaos inner", retry=PATIENT)
def inner(context: JobContext) -> None:
    ChaosMade(name=f"inner {context.run_id}")


INNER = dag("chaos inner", inner)


@job(name="chaos nested", retry=PATIENT, depends_on=[root])
def nested() -> DagRun:
    return INNER.start()


@job(name="chaos gathered", retry=PATIENT, inputs={"numbers": mapped}, depends_on=[nested])
def gathered(numbers: list[int], context: JobContext) -> int:
    ChaosMade(name=f"gathered {context.run_id}")
    return sum(numbers)


CHAOS_DAG = dag("chaos dag", root, mapped, nested, gathered)


@job(name="chaos tick", retry=PATIENT)
def tick(due_at: str) -> None:
    ChaosMade(name=f"tick {due_at}")


CHAOS_TICKS = dag("chaos ticks", tick)


@Eventic.transaction()
def kill_worker(name: str) -> None:
    """Poison: whoever runs it dies, before anything is stored."""
    ChaosMade(name=name)
    os.kill(os.getpid(), 9)
