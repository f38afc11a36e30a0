"""What each call costs: statements and round trips on the wire, read from libpq's own trace."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from eventic_core import Eventic, Record
from eventic_core.records import current_store


class Coin(Record, class_type="CountedCoin"):
    name: str
    value: int = 0
    tags: list[str] = []

    def spend(self) -> None:
        self.value -= 1
        self.name = "spent"

    def look(self) -> int:
        return self.value


class Keyed(Record, class_type="CountedKeyed", unique=["name"]):
    name: str


@dataclass
class Cost:
    """Messages one block sent."""

    statements: int = 0
    round_trips: int = 0


@contextlib.contextmanager
def wire() -> Iterator[Cost]:
    """Count what the connection for single statements sends; one thread uses the one that came back last."""
    store: Any = current_store()
    store.database.run("select 1", ())
    pgconn = store.database._kept[-1].driver_connection.pgconn
    cost = Cost()
    with tempfile.TemporaryFile("w+") as trace:
        pgconn.trace(trace.fileno())
        try:
            yield cost
        finally:
            pgconn.untrace()
        os.lseek(trace.fileno(), 0, os.SEEK_SET)
        kinds = re.findall(r"^[^\t\n]*\tF\t\d+\t(\w+)", trace.read(), re.MULTILINE)
    cost.statements = kinds.count("Execute") + kinds.count("Query")
    cost.round_trips = kinds.count("Sync") + kinds.count("Query")


@pytest.fixture(autouse=True)
def _warm(eventic: str) -> None:
    for number in range(8):  # past psycopg's threshold for preparing, and the first note of each class
        coin = Coin(name=f"warm{number}")
        coin.value = 1
        Coin.hydrate(coin.id)
        Coin.hydrate(coin.id, version=0)
    Keyed(name="warm")


def cost_of(action: Any) -> tuple[int, int]:
    with wire() as cost:
        action()
    return cost.statements, cost.round_trips


def test_construction_and_bare_assignment_are_one_statement_in_one_round_trip() -> None:
    coin = Coin(name="a")
    assert cost_of(lambda: Coin(name="b")) == (1, 1)
    assert cost_of(lambda: setattr(coin, "value", 5)) == (1, 1)
    assert cost_of(coin.spend) == (1, 1)
    assert cost_of(lambda: coin.properties.add(a=1)) == (1, 1)
    assert cost_of(coin.delete) == (1, 1)


def test_construction_with_unique_keys_is_one_statement() -> None:
    assert cost_of(lambda: Keyed(name="b")) == (1, 1)


def test_hydrate_is_one_statement() -> None:
    coin = Coin(name="a")
    assert cost_of(lambda: Coin.hydrate(coin.id)) == (1, 1)
    assert cost_of(lambda: Coin.hydrate(coin.id, version=0)) == (1, 1)
    assert cost_of(lambda: Coin.where(name="a").all()) == (1, 1)
    assert cost_of(lambda: Coin.where(name="a").count()) == (1, 1)
    assert cost_of(coin.history) == (1, 1)


def test_nothing_changed_is_no_statement() -> None:
    coin = Coin(name="a", tags=["x"])

    def nothing() -> None:
        coin.name = "a"
        coin.look()
        with coin.edit():
            coin.value = 9
            coin.value = 0
        with Eventic.unit_of_work():
            coin.tags = ["x"]
        coin.properties.remove("absent")

    assert cost_of(nothing) == (0, 0)


def test_unit_of_work_over_many_records_is_one_statement() -> None:
    coins = [Coin(name=f"c{number}") for number in range(20)]

    def work() -> None:
        with Eventic.unit_of_work():
            for coin in coins:
                coin.value += 1
            Coin(name="new")

    assert cost_of(work) == (1, 1)
    assert Coin.where(value=1).count() >= 20


def test_count_can_fail_when_a_statement_is_added() -> None:
    coin = Coin(name="a")

    def twice() -> None:
        coin.value = 5
        coin.value = 6

    assert cost_of(twice) == (2, 2)
