"""The application that `test_run_commands` names with --app, and whose worker does its items."""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import BaseModel

from eventic_core import Record
from eventic_core.automation.declared import automation


class Customer(Record, class_type="CliRunCustomer"):
    """One for each row that was imported."""

    name: str
    age: int


class Price(Record, class_type="CliRunPrice"):
    """What `price` reads, so that a replay may find something else than the run did."""

    of: str
    amount: int


class Priced(Record, class_type="CliRunPriced"):
    """What `price` writes."""

    of: str
    amount: int


class Row(BaseModel):
    """A row of a file of customers."""

    name: str
    age: int


class Gate(BaseModel):
    """A file that must be there, or must not."""

    path: str


@automation("cli import", item_schema=Row, group_size=10)
def import_customer(row: Row) -> dict[str, int]:
    """Make a customer of a row."""
    if row.age < 0:
        raise ValueError(f"{row.name} is not born yet")
    Customer(name=row.name, age=row.age)
    return {"age": row.age}


@automation("cli wait", item_schema=Gate, concurrency=1, group_size=1)
def wait_for(gate: Gate) -> None:
    """Wait for a file."""
    deadline = time.monotonic() + 100
    while not Path(gate.path).exists():
        assert time.monotonic() < deadline, f"{gate.path} never came"
        time.sleep(0.01)


@automation("cli repair", item_schema=Gate)
def repair(gate: Gate) -> None:
    """Fail as long as there is a file."""
    if Path(gate.path).exists():
        raise ConnectionError(f"still broken: {Path(gate.path).name}")


@automation("cli never started")
def never(item: int) -> int:
    """Nothing is ever done with it."""
    return item


@automation("cli price")
def price(item: str) -> int:
    """Note what something costs now."""
    found = Price.hydrate(item)
    Priced(of=item, amount=found.amount)
    return found.amount
