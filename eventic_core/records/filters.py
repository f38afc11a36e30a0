"""Filters, orders and selections as values: what a query asks for, without saying how.

Pure data; the store turns a selection into SQL.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from datetime import datetime

from eventic_core.errors import InvalidFilter


class Kind(StrEnum):
    """How a value compares: the SQL type a JSON value stands for."""

    JSON = "json"
    TEXT = "text"
    NUMBER = "number"
    DECIMAL = "decimal"
    MOMENT = "moment"
    DURATION = "duration"
    COLUMN = "column"


class Operator(StrEnum):
    """What a comparison asks."""

    EQ = "="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    IN = "in"
    CONTAINS = "contains"
    STARTS_WITH = "starts_with"


@dataclass(frozen=True, slots=True)
class Path:
    """Where a value lies: the keys from the document's root, or a column of the table."""

    keys: tuple[str, ...]
    kind: Kind


class Filter:
    """A condition on records; combine with `&`, `|` and `~`. It has no truth value."""

    __slots__ = ()

    def __and__(self, other: Filter) -> Filter:
        return Group("and", (self, _filter(other)))

    def __or__(self, other: Filter) -> Filter:
        return Group("or", (self, _filter(other)))

    def __invert__(self) -> Filter:
        return Not(self)

    def __bool__(self) -> NoReturn:
        message = "A filter has no truth value: combine filters with &, | and ~, in parentheses, not with and, or, not."
        raise InvalidFilter(message)


def _filter(value: object) -> Filter:
    if not isinstance(value, Filter):
        message = f"{value!r} is not a filter. Compare a field: Todo.fields.done == True."
        raise InvalidFilter(message)
    return value


@dataclass(frozen=True, slots=True, eq=False)
class Comparison(Filter):
    """One value against a constant; `value` is JSON data in the form the field stores."""

    path: Path
    operator: Operator
    value: Any


@dataclass(frozen=True, slots=True, eq=False)
class Group(Filter):
    """All (`and`) or any (`or`) of several filters."""

    word: str
    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Not(Filter):
    """Everything a filter does not match, also where the value is absent."""

    filter: Filter


@dataclass(frozen=True, slots=True)
class Order:
    """Sort by one value; absent and null come last either way."""

    path: Path
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """A whole query.

    Attributes:
        class_types: Stored names of the classes to look in.
        filter: What must hold; `None` is everything.
        orders: Sort order; the id always comes last, so an order is total.
        limit: Rows at most.
        moment: Look at the records as they were then; `None` is now.
        after: The sort values and id of the last row of the page before.
    """

    class_types: tuple[str, ...]
    filter: Filter | None = None
    orders: tuple[Order, ...] = ()
    limit: int | None = None
    moment: datetime | None = None
    after: tuple[Any, ...] | None = None
