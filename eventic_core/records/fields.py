"""Field expressions: `Todo.fields.done == False` as a filter, checked against the class.

Owns the meaning of names and values in queries. Knows the record class, not the store.
"""

from __future__ import annotations

import functools
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Union, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from eventic_core.errors import InvalidFilter
from eventic_core.records.filters import Comparison, Filter, Kind, Operator, Order, Path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eventic_core.records.record import Record

_COLUMNS = {"id": UUID, "version": int, "recorded_at": datetime}
_TEXTS = (str, UUID, date, time)


class Fields:
    """A class's fields by name; also `id`, `version` and `recorded_at`."""

    __slots__ = ("_cls",)

    def __init__(self, cls: type[Record]) -> None:
        self._cls = cls

    def __getattr__(self, name: str) -> FieldExpression:
        return expression(self._cls, name)

    def __dir__(self) -> list[str]:
        return [*self._cls.model_fields, *_COLUMNS]


def expression(cls: Any, name: str) -> FieldExpression:
    """Give the expression for a field of a class.

    Raises:
        InvalidFilter: The class has no such field; names the ones it has.
    """
    if name in _COLUMNS:
        return FieldExpression(cls.__name__, Path((name,), Kind.COLUMN), _COLUMNS[name])
    info = cls.model_fields.get(name)
    if info is None:
        message = f"{cls.__name__} has no field {name!r}; it has {', '.join([*cls.model_fields, *_COLUMNS])}."
        raise InvalidFilter(message)
    return FieldExpression(cls.__name__, Path((name,), kind_of(info.annotation)), info.annotation)


def property_expression(cls: Any, name: str) -> FieldExpression:
    """Give the expression for a property."""
    return FieldExpression(cls.__name__, Path(("properties", name), Kind.JSON), Any)


def kind_of(annotation: Any) -> Kind:
    """Say how values of an annotation compare."""
    try:
        return _known_kind(annotation)
    except TypeError:  # not hashable
        return _kind_of(annotation)


@functools.lru_cache(maxsize=1024)
def _known_kind(annotation: Any) -> Kind:
    return _kind_of(annotation)


def _kind_of(annotation: Any) -> Kind:
    """Say how values of an annotation compare."""
    annotation = _bare(annotation)
    if not isinstance(annotation, type):
        return Kind.JSON
    if issubclass(annotation, Enum):
        return kind_of(next((type(member.value) for member in annotation), str))
    if issubclass(annotation, datetime):
        return Kind.MOMENT
    if issubclass(annotation, _TEXTS) or getattr(annotation, "__eventic_ref__", False):
        return Kind.TEXT
    if issubclass(annotation, bool):
        return Kind.JSON
    kinds = {Decimal: Kind.DECIMAL, timedelta: Kind.DURATION, int: Kind.NUMBER, float: Kind.NUMBER}
    return next((kind for base, kind in kinds.items() if issubclass(annotation, base)), Kind.JSON)


def _bare(annotation: Any) -> Any:
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        inner = [argument for argument in get_args(annotation) if argument is not NoneType]
        return _bare(inner[0]) if len(inner) == 1 else annotation
    origin = get_origin(annotation)
    return origin if getattr(origin, "__eventic_ref__", False) else annotation


@functools.lru_cache(maxsize=1024)
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


class FieldExpression:
    """One field in a query: compare it, or give it to `order_by`."""

    __slots__ = ("_annotation", "_owner", "_path", "_reverse")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, owner: str, path: Path, annotation: Any, *, reverse: bool = False) -> None:
        self._owner = owner
        self._path = path
        self._annotation = annotation
        self._reverse = reverse

    def __getattr__(self, name: str) -> FieldExpression:
        inner = _bare(self._annotation)
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)) or name not in inner.model_fields:
            message = f"{self._label} has no field or operator {name!r}. See the fields reference for the operators."
            raise InvalidFilter(message)
        annotation = inner.model_fields[name].annotation
        return FieldExpression(self._owner, Path((*self._path.keys, name), kind_of(annotation)), annotation)

    def __getitem__(self, key: str) -> FieldExpression:
        """Look into a free-form object: `fields.properties["status"]`."""
        if self._path.kind is not Kind.JSON or not isinstance(key, str):
            message = f"{self._label} is not a JSON object to look into with [{key!r}]."
            raise InvalidFilter(message)
        return FieldExpression(self._owner, Path((*self._path.keys, key), Kind.JSON), Any)

    def __eq__(self, other: object) -> Filter:  # type: ignore[override]
        return self._compare(Operator.EQ, self._encode(other))

    def __ne__(self, other: object) -> Filter:  # type: ignore[override]
        return ~self._compare(Operator.EQ, self._encode(other))

    def __lt__(self, other: Any) -> Filter:
        return self._compare(Operator.LT, self._ordered(other))

    def __le__(self, other: Any) -> Filter:
        return self._compare(Operator.LE, self._ordered(other))

    def __gt__(self, other: Any) -> Filter:
        return self._compare(Operator.GT, self._ordered(other))

    def __ge__(self, other: Any) -> Filter:
        return self._compare(Operator.GE, self._ordered(other))

    def in_(self, values: Iterable[Any]) -> Filter:
        """Match any of the values; an empty iterable matches nothing."""
        return self._compare(Operator.IN, [self._encode(value) for value in values])

    def contains(self, value: Any) -> Filter:
        """Match texts that contain `value`, lists and sets that hold it, objects that hold its pairs."""
        if self._path.kind is Kind.TEXT and not isinstance(value, str):
            message = f"{self._label}.contains({value!r}): give text."
            raise InvalidFilter(message)
        return self._compare(Operator.CONTAINS, self._jsonable(value))

    def starts_with(self, text: str) -> Filter:
        """Match texts that begin with `text`, by code point."""
        if self._path.kind not in (Kind.TEXT, Kind.JSON) or not isinstance(text, str):
            message = f"{self._label}.starts_with({text!r}): only text begins with text."
            raise InvalidFilter(message)
        return self._compare(Operator.STARTS_WITH, text)

    def desc(self) -> FieldExpression:
        """Sort by it from high to low."""
        return FieldExpression(self._owner, self._path, self._annotation, reverse=True)

    def __neg__(self) -> FieldExpression:
        return self.desc()

    def __bool__(self) -> NoReturn:
        message = f"{self._label} has no truth value: compare it, for example with == True."
        raise InvalidFilter(message)

    def __iter__(self) -> NoReturn:
        message = f"{self._label} cannot be iterated: it is an expression, not a value."
        raise InvalidFilter(message)

    def __repr__(self) -> str:
        return f"<field {self._label}>"

    @property
    def _label(self) -> str:
        return f"{self._owner}.{'.'.join(self._path.keys)}"

    def _compare(self, operator: Operator, value: Any) -> Filter:
        return Comparison(self._path, operator, value)

    def _encode(self, value: Any) -> Any:
        if value is None:
            return None
        adapter = _adapter(self._annotation)
        try:
            return adapter.dump_python(adapter.validate_python(value), mode="json")
        except (ValidationError, PydanticSerializationError) as error:
            message = f"{self._label} cannot be compared with {value!r}: its values are {self._annotation!r}."
            raise InvalidFilter(message) from error

    def _ordered(self, value: Any) -> Any:
        if value is None:
            message = f"{self._label}: nothing is smaller or greater than None. Compare with == None."
            raise InvalidFilter(message)
        return self._encode(value)

    def _jsonable(self, value: Any) -> Any:
        try:
            return to_jsonable_python(value)
        except PydanticSerializationError as error:
            message = f"{self._label}: {value!r} has no JSON form to look for."
            raise InvalidFilter(message) from error


def order_of(value: object) -> Order:
    """Give the order that an `order_by` argument asks for.

    Raises:
        InvalidFilter: It is no field expression.
    """
    if not isinstance(value, FieldExpression):
        message = f"order_by takes fields such as Todo.fields.text, not {value!r}."
        raise InvalidFilter(message)
    return Order(value._path, value._reverse)
