"""Selections as SQL: filters, orders and keyset pages over the current rows, or those of a moment.

Built with SQLAlchemy Core once per shape of a query; values travel as parameters. Opens no connection.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from pydantic_core import to_json
from sqlalchemy.dialects.postgresql import JSONB, psycopg

from eventic_core.errors import InvalidFilter
from eventic_core.records.filters import Comparison, Filter, Group, Kind, Not, Operator, Order, Path, Selection
from eventic_core.store.sql import COLUMNS
from eventic_core.store.tables import LIVE, records

if TYPE_CHECKING:
    from collections.abc import Callable

_DIALECT: sa.Dialect = psycopg.dialect(paramstyle="pyformat")  # type: ignore[no-untyped-call]
_COLUMNS = {"id": records.c.id, "version": records.c.version, "recorded_at": records.c.recorded_at}
_COLUMN_TYPES: dict[str, sa.types.TypeEngine[Any]] = {
    "id": sa.Uuid(),
    "version": sa.Integer(),
    "recorded_at": sa.TIMESTAMP(timezone=True),
}
_CASTS: dict[Kind, sa.types.TypeEngine[Any]] = {
    Kind.NUMBER: sa.Numeric(),
    Kind.DECIMAL: sa.Numeric(),
    Kind.MOMENT: sa.TIMESTAMP(timezone=True),
    Kind.DURATION: sa.Interval(),
}
_TYPES_OF = {Kind.NUMBER: ("number",), Kind.DECIMAL: ("string", "number")}


class Query(NamedTuple):
    """A statement for psycopg and its parameters."""

    sql: str
    parameters: dict[str, Any]


def select(selection: Selection) -> Query:
    """Give the statement for a selection's rows."""
    return _build(selection, "rows")


def count(selection: Selection) -> Query:
    """Give the statement for a selection's count."""
    return _build(selection, "count")


def _build(selection: Selection, what: str) -> Query:
    values: list[Any] = []
    shape = Selection(
        class_types=("",) * min(len(selection.class_types), 2),
        filter=None if selection.filter is None else _shape(selection.filter, values),
        orders=selection.orders,
        limit=None if selection.limit is None else 0,
        after=None if selection.after is None else tuple(value is None for value in selection.after),
    )
    sql = _compiled(what, _Frozen(shape, at=selection.moment is not None))
    parameters = {f"v{number}": value for number, value in enumerate(values)}
    many = len(selection.class_types) != 1
    parameters["types"] = list(selection.class_types) if many else selection.class_types[0]
    if selection.limit is not None:
        parameters["limit"] = selection.limit
    if selection.moment is not None:
        parameters["moment"] = selection.moment
    for number, value in enumerate(selection.after or ()):
        parameters[f"a{number}"] = _page_value(selection, number, value)
    return Query(sql, parameters)


def _page_value(selection: Selection, number: int, value: Any) -> Any:
    is_json = number < len(selection.orders) and selection.orders[number].path.kind is Kind.JSON
    return to_json(value).decode() if is_json else value


class _Slot(NamedTuple):
    """Stands in a query's shape for a parameter."""

    number: int
    null: bool
    scalar: bool


def _shape(condition: Filter, values: list[Any]) -> Filter:
    """Take the values out of a filter, so that filters of one shape share a compiled statement."""
    match condition:
        case Comparison(path, operator, value):
            as_json = operator in (Operator.EQ, Operator.CONTAINS) and path.kind in (Kind.JSON, Kind.TEXT, Kind.NUMBER)
            if operator is Operator.IN:
                nulls, sent = None in value, [_sent(path, item) for item in value if item is not None]
                slot = _Slot(len(values), nulls, scalar=True)
                values.append(sent)
                return Comparison(path, operator, slot)
            slot = _Slot(len(values), value is None, not isinstance(value, (dict, list)))
            if as_json and operator is Operator.EQ and slot.scalar and not slot.null:
                values.append(to_json(_nest(path.keys, value)).decode())
            else:
                values.append(_sent(path, value, force_json=operator is Operator.CONTAINS and path.kind is Kind.JSON))
            return Comparison(path, operator, slot)
        case Group(word, filters):
            return Group(word, tuple(_shape(inner, values) for inner in filters))
        case Not(inner):
            return Not(_shape(inner, values))
    message = f"{condition!r} is not a filter the store knows."
    raise InvalidFilter(message)


def _nest(keys: tuple[str, ...], value: Any) -> Any:
    for key in reversed(keys):
        value = {key: value}
    return value


def _sent(path: Path, value: Any, *, force_json: bool = False) -> Any:
    if force_json or path.kind is Kind.JSON:
        return to_json(value).decode()
    return value


@dataclass(frozen=True)
class _Frozen:
    """A shape as a cache key."""

    selection: Selection
    at: bool

    @functools.cached_property
    def key(self) -> tuple[Any, ...]:
        shape = self.selection
        return self.at, len(shape.class_types), _key(shape.filter), shape.orders, shape.limit, shape.after

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Frozen) and self.key == other.key


def _key(condition: Filter | None) -> Any:
    match condition:
        case Comparison(path, operator, slot):
            return path.keys, path.kind, operator, slot
        case Group(word, filters):
            return word, *map(_key, filters)
        case Not(inner):
            return "not", _key(inner)
    return None


@functools.lru_cache(maxsize=512)
def _compiled(what: str, shape: _Frozen) -> str:
    selection = shape.selection
    conditions = [_classes(selection)]
    conditions += _moment_conditions() if shape.at else [LIVE]
    if selection.filter is not None:
        conditions.append(_condition(selection.filter))
    if what == "count":
        return _text(sa.select(sa.func.count()).select_from(records).where(*conditions))
    terms = [term for order in selection.orders for term in _terms(order)] + [(records.c.id, False)]
    if selection.after is not None:
        conditions.append(_after(selection, [flag is True for flag in selection.after]))
    statement = sa.select(sa.text(COLUMNS)).select_from(records).where(*conditions)
    statement = statement.order_by(*(term.desc() if down else term.asc() for term, down in terms))
    if selection.limit is not None:
        statement = statement.limit(sa.bindparam("limit", None, type_=sa.Integer()))
    return _text(statement)


def _text(statement: sa.Select[Any]) -> str:
    return str(statement.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True}))


def _classes(selection: Selection) -> sa.ColumnElement[bool]:
    if len(selection.class_types) == 1:
        return records.c.class_type == sa.bindparam("types", None, type_=sa.Text())
    return records.c.class_type == sa.func.any(sa.cast(sa.bindparam("types", None), sa.ARRAY(sa.Text())))


def _moment_conditions() -> list[sa.ColumnElement[bool]]:
    moment = sa.bindparam("moment", None, type_=sa.TIMESTAMP(timezone=True))
    ended = records.c.superseded_at
    return [sa.not_(records.c.tombstone), records.c.recorded_at <= moment, sa.or_(ended.is_(None), ended > moment)]


def _json(path: Path) -> sa.ColumnElement[Any]:
    value: sa.ColumnElement[Any] = records.c.data
    for key in path.keys:
        value = value.op("->", return_type=JSONB())(sa.literal(key, literal_execute=True, type_=sa.Text()))
    return value


def _scalar(path: Path) -> sa.ColumnElement[Any]:
    """The value as its SQL type, null where it is absent, null or of another type."""
    if path.kind is Kind.COLUMN:
        return _COLUMNS[path.keys[0]]
    if path.kind is Kind.JSON:
        return sa.func.nullif(_json(path), sa.cast(sa.literal("null", literal_execute=True), JSONB()))
    outer = _json(replace(path, keys=path.keys[:-1]))
    text = outer.op("->>", return_type=sa.Text())(sa.literal(path.keys[-1], literal_execute=True, type_=sa.Text()))
    if path.kind is Kind.TEXT:
        return text.collate("C")
    types = _TYPES_OF.get(path.kind, ("string",))
    kind = sa.func.jsonb_typeof(_json(path))
    fits = sa.or_(*(kind == sa.literal(name, literal_execute=True) for name in types))
    return sa.case((fits, sa.cast(text, _CASTS[path.kind])))


def _type_of(path: Path) -> sa.types.TypeEngine[Any]:
    """The SQL type that `_scalar` gives a path."""
    if path.kind is Kind.COLUMN:
        return _COLUMN_TYPES[path.keys[0]]
    types: dict[Kind, sa.types.TypeEngine[Any]] = {Kind.JSON: JSONB(), Kind.TEXT: sa.Text(), **_CASTS}
    return types[path.kind]


def _parameter(path: Path, name: str) -> sa.ColumnElement[Any]:
    sent = sa.Text() if path.kind in (Kind.JSON, Kind.TEXT) else None
    return sa.cast(sa.bindparam(name, None, type_=sent), _type_of(path))


def _condition(condition: Filter) -> sa.ColumnElement[bool]:
    match condition:
        case Comparison():
            return _comparison(condition)
        case Group(word, filters):
            return (sa.and_ if word == "and" else sa.or_)(*map(_condition, filters))
        case Not(inner):
            return sa.not_(sa.func.coalesce(_condition(inner), sa.false()))
    message = f"{condition!r} is not a filter the store knows."
    raise InvalidFilter(message)


def _comparison(condition: Comparison) -> sa.ColumnElement[bool]:
    path, slot = condition.path, condition.value
    name = f"v{slot.number}"
    match condition.operator:
        case Operator.EQ:
            return _equal(path, slot, name)
        case Operator.IN:
            return _in(path, slot, name)
        case Operator.CONTAINS if path.kind is Kind.TEXT:
            return sa.func.strpos(_scalar(path), _parameter(path, name)) > sa.literal_column("0")
        case Operator.CONTAINS:
            return _contains(path, name)
        case Operator.STARTS_WITH:
            text = _scalar(replace(path, kind=Kind.TEXT))
            return sa.func.starts_with(text, _unquoted(path, name))
    comparisons: dict[Operator, Callable[[Any, Any], Any]] = {
        Operator.LT: lambda left, right: left < right,
        Operator.LE: lambda left, right: left <= right,
        Operator.GT: lambda left, right: left > right,
        Operator.GE: lambda left, right: left >= right,
    }
    compare = comparisons[condition.operator](_scalar(path), _parameter(path, name))
    if path.kind is Kind.JSON:
        same_type = sa.func.jsonb_typeof(_json(path)) == sa.func.jsonb_typeof(_parameter(path, name))
        return sa.and_(same_type, compare)
    return compare  # type: ignore[no-any-return]


def _unquoted(path: Path, name: str) -> sa.ColumnElement[Any]:
    if path.kind is not Kind.JSON:
        return _parameter(path, name)
    root = sa.cast(sa.literal("{}", literal_execute=True), sa.ARRAY(sa.Text()))
    return _parameter(path, name).op("#>>", return_type=sa.Text())(root)


def _equal(path: Path, slot: _Slot, name: str) -> sa.ColumnElement[bool]:
    if slot.null:
        return _scalar(path).is_(None)
    if path.kind in (Kind.JSON, Kind.TEXT, Kind.NUMBER) and slot.scalar:
        # Containment of the whole document, so that the index over it finds the rows.
        return records.c.data.op("@>", return_type=sa.Boolean())(
            sa.cast(sa.bindparam(name, None, type_=sa.Text()), JSONB())
        )
    return _scalar(path) == _parameter(path, name)


def _in(path: Path, slot: _Slot, name: str) -> sa.ColumnElement[bool]:
    found = _scalar(path) == sa.func.any(sa.cast(sa.bindparam(name, None), sa.ARRAY(_type_of(path))))
    return sa.or_(found, _scalar(path).is_(None)) if slot.null else found


def _contains(path: Path, name: str) -> sa.ColumnElement[bool]:
    value, given = _json(path), sa.cast(sa.bindparam(name, None, type_=sa.Text()), JSONB())
    text = value.op("#>>", return_type=sa.Text())(sa.cast(sa.literal("{}", literal_execute=True), sa.ARRAY(sa.Text())))
    part = given.op("#>>", return_type=sa.Text())(sa.cast(sa.literal("{}", literal_execute=True), sa.ARRAY(sa.Text())))
    is_text = sa.func.jsonb_typeof(value) == sa.literal("string", literal_execute=True)
    return sa.case(
        (is_text, sa.func.strpos(text, part) > sa.literal_column("0")),
        else_=value.op("@>", return_type=sa.Boolean())(given),
    )


def _terms(order: Order) -> list[tuple[sa.ColumnElement[Any], bool]]:
    value = _scalar(order.path)
    if order.path.kind is Kind.COLUMN:
        return [(value, order.descending)]
    return [(value.is_(None), False), (value, order.descending)]


def _after(selection: Selection, nulls: list[bool]) -> sa.ColumnElement[bool]:
    """Rows that sort after the last one of the page before: first difference decides."""
    parts: list[tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]] = []  # (comes after, is equal)
    for number, order in enumerate(selection.orders):
        value = _scalar(order.path)
        if nulls[number]:
            parts.append((sa.false(), value.is_(None)))
            continue
        given = _parameter(order.path, f"a{number}")
        later = value < given if order.descending else value > given
        if order.path.kind is not Kind.COLUMN:
            later = sa.or_(later, value.is_(None))
        parts.append((later, value == given))
    last = sa.cast(sa.bindparam(f"a{len(selection.orders)}", None), sa.Uuid())
    condition: sa.ColumnElement[bool] = records.c.id > last
    for later, equal in reversed(parts):
        condition = sa.or_(later, sa.and_(equal, condition))
    return condition
