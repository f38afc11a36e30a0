"""What a type checker says of construction and assignment; read by mypy, never run.

A line with a `type: ignore` must be an error of that code: mypy reports one that is not needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar, assert_type
from uuid import UUID

from pydantic import BaseModel, Field

from eventic_core import Properties, Record, Ref, Stamp, evented, plain

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Customer(Record, class_type="TypedCustomer", unique=["name"]):
    name: str


class Order(Record, unique=["number", ("customer", "state")], indexes=["state"], merge="disjoint"):
    number: int
    customer: Ref[Customer]
    state: str = "open"
    lines: list[str] = Field(default_factory=list)
    note: str | None = None

    def ship(self, carrier: str, *, urgent: bool = False) -> int:
        self.state = f"{carrier} {urgent}"
        return self.number

    @evented
    def close(self) -> str:
        return self.state

    @evented(retry=3)
    def count(self, by: int) -> int:
        self.number += by
        return self.number

    @plain
    def look(self) -> str:
        return self.state

    async def pay(self, amount: int) -> bool:
        return amount > 0


class Rush(Order):
    hours: int


class Box(Record, Generic[T]):
    content: T


def constructor(customer: Customer, key: UUID) -> None:
    assert_type(Customer(name="Acme"), Customer)
    assert_type(Customer(name="Acme", id=key), Customer)
    assert_type(Order(number=1, customer=Ref(customer), lines=["bolt"], note=None), Order)
    assert_type(Rush(number=1, customer=Ref.pinned(customer), hours=2), Rush)
    assert_type(Box[int](content=3), Box[int])
    Customer()  # type: ignore[call-arg]
    Customer("Acme")  # type: ignore[call-arg, arg-type]
    Customer(name=3)  # type: ignore[arg-type]
    Customer(name="Acme", colour="red")  # type: ignore[call-arg]
    Customer(name="Acme", version=3)  # type: ignore[call-arg]
    Customer(name="Acme", id=3)  # type: ignore[arg-type]
    Order(number=1, customer=Ref(Rush(number=1, customer=Ref(customer), hours=2)))  # type: ignore[arg-type]
    Box[int](content="three")  # type: ignore[arg-type]


def assignment(customer: Customer, order: Order) -> None:
    customer.name = "Acme Ltd"
    order.lines = ["nut"]
    order.note = None
    customer.name = 3  # type: ignore[assignment]
    customer.name = None  # type: ignore[assignment]
    customer.colour = "red"  # type: ignore[attr-defined]
    customer.version = 3  # type: ignore[misc]
    customer.version_id = None  # type: ignore[misc]
    customer.deleted = True  # type: ignore[misc]


def values(customer: Customer, order: Order) -> None:
    assert_type(customer.id, UUID)
    assert_type(customer.version, int)
    assert_type(customer.version_id, UUID | None)
    assert_type(customer.stamp, Stamp)
    assert_type(customer.is_stored, bool)
    assert_type(customer.deleted, bool)
    assert_type(customer.properties, Properties)
    assert_type(order.lines, list[str])
    assert_type(order.note, str | None)
    customer.properties.add(status="open", since=3)
    customer.properties.remove("status")


def references(order: Order, key: UUID) -> None:
    assert_type(order.customer, Ref[Customer])
    assert_type(order.customer.get(), Customer)
    assert_type(order.customer.get().name, str)
    assert_type(order.customer.id, UUID)
    assert_type(order.customer.version, int | None)
    assert_type(Ref(order), Ref[Order])
    assert_type(Ref(key, cls=Customer), Ref[Customer])
    order.customer = Ref(order)  # type: ignore[arg-type]


def methods(order: Order) -> None:
    assert_type(order.ship("post"), int)
    assert_type(order.ship("post", urgent=True), int)
    assert_type(order.close(), str)
    assert_type(order.count(2), int)
    assert_type(order.look(), str)
    bound: Callable[[int], int] = order.count
    assert_type(bound(1), int)
    order.ship()  # type: ignore[call-arg]
    order.ship(3)  # type: ignore[arg-type]
    order.count("two")  # type: ignore[arg-type]
    evented(retry="often")  # type: ignore[call-overload]


def validation(text: str) -> None:
    assert_type(Order.model_validate({"number": 1}), Order)
    assert_type(Rush.model_validate_json(text), Rush)
    model: BaseModel = Order.model_validate_json(text)
    assert_type(model.model_dump_json(), str)
