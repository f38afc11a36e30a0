"""What the workers of the soak do: all kinds of work, small and many, each leaving a name that must be there once."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from eventic_core import Eventic, Record, Retry, later, on
from eventic_core.automation import ItemContext, automation
from eventic_core.jobs import JobContext, dag, job

queue = Eventic.queue("soak", concurrency=4)


class SoakOrder(Record):
    """What is made and changed all the time, by plain code and runs."""

    name: str
    cents: int = 0

    def raise_by(self, cents: int) -> int:
        self.cents += cents
        return self.cents


class SoakSeen(Record):
    """One for each version of an order that the handler saw."""

    name: str


class SoakMade(Record):
    """One for whatever else was done, by its name."""

    name: str


class SoakLedger(Record):
    """What keyed work for one key came to."""

    name: str
    entered: int = 0


@on.create(SoakOrder)
@on.update(SoakOrder)
def soak_seen(order: SoakOrder) -> None:
    SoakSeen(name=f"{order.id} {order.version}")


@Eventic.step(name="soak.price")
def price(name: str) -> int:
    return len(name)


@Eventic.transaction(name="soak.bill")
def bill(name: str) -> None:
    SoakMade(name=f"billed {name}")


@Eventic.transaction(name="soak.enter")
def enter(ledger: UUID) -> None:
    SoakLedger.hydrate(ledger).entered += 1


@Eventic.workflow(name="soak.trade")
def trade(name: str) -> int:
    """Two versions, a step, a transaction, and work that follows."""
    order = SoakOrder(name=name)
    order.cents += price(name)
    bill(name)
    later(order.raise_by, 1)
    return order.cents


@Eventic.workflow(name="soak.trade_async")
async def trade_async(name: str) -> str:
    """One that DBOS runs on its event loop."""
    order = await SoakOrder.create_async(name=name)
    await order.update_async(cents=1)
    return order.name


@automation("soak import", retry=Retry(max_attempts=3, delay_seconds=0.1), group_size=50, tolerated_failures="100%")
def soak_import(item: dict[str, Any], context: ItemContext) -> int:
    number = int(item["number"])
    if number % 10 == 3 and context.attempt == 1:
        raise ConnectionError("try again")
    SoakMade(name=f"imported {item['of']} {number}")
    return number


@job(name="soak root")
def root() -> list[int]:
    return [1, 2, 3]


@job(name="soak mapped", map="number", inputs={"number": root})
def mapped(number: int, context: JobContext) -> int:
    SoakMade(name=f"mapped {context.run_id} {number}")
    return number


@job(name="soak gathered", inputs={"numbers": mapped})
def gathered(numbers: list[int], context: JobContext) -> int:
    SoakMade(name=f"gathered {context.run_id}")
    return sum(numbers)


SOAK_DAG = dag("soak dag", root, mapped, gathered)


@job(name="soak tick")
def tick(due_at: str) -> None:
    SoakMade(name=f"tick {due_at}")


SOAK_TICKS = dag("soak ticks", tick)
