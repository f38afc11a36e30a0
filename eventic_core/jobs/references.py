"""Records in what jobs hand on: stored as references to the versions they are, and read again where a type says so."""

from __future__ import annotations

import types
from functools import partial
from typing import Annotated, Any, Union, get_args, get_origin
from uuid import UUID

from pydantic import PlainValidator

from eventic_core.jobs.awaited import Awaited
from eventic_core.records import Record, Ref
from eventic_core.records.editing import current_scope


def answer(result: Any) -> Any:
    """Give what a job answers: a run it started and ends with, or its result with references for records."""
    from eventic_core.automation.run import Run
    from eventic_core.jobs.dag_run import DagRun

    return Awaited(result.id) if isinstance(result, Run | DagRun) else referring(result)


def referring(value: Any) -> Any:
    """Give a value with a reference in place of each record in its lists, tuples, sets and mappings.

    In a scope that is flushed first, so that a record that it has changed is the version it is about to be.
    """
    if not _holds_record(value):
        return value
    scope = current_scope()
    if scope is not None:
        scope.flush()
    return _referring(value)


def _holds_record(value: Any) -> bool:
    if isinstance(value, Record):
        return True
    if isinstance(value, dict):
        return any(map(_holds_record, value.values()))
    return isinstance(value, list | tuple | set | frozenset) and any(map(_holds_record, value))


def _referring(value: Any) -> Any:
    if isinstance(value, Record):
        return str(Ref.pinned(value))
    if isinstance(value, dict):
        return {key: _referring(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_referring(one) for one in value]
    return value


def reading(kind: Any) -> Any:
    """Give a type whose validation reads a record from a reference, wherever the given one has a record class."""
    if isinstance(kind, type) and issubclass(kind, Record):
        return Annotated[kind, PlainValidator(partial(_read, kind))]
    inner = get_args(kind)
    if not inner:
        return kind
    changed = tuple(map(reading, inner))
    if changed == inner:
        return kind
    if get_origin(kind) in (Union, types.UnionType):
        return Union[changed]  # noqa: UP007 - made of what is known at run time only
    return kind.copy_with(changed) if hasattr(kind, "copy_with") else get_origin(kind)[changed]


def _read(cls: type[Record], value: Any) -> Any:
    if isinstance(value, cls):
        return value
    if not isinstance(value, str):
        message = f"no reference to {cls.__name__}: give the record or '<id>@<version>'"
        raise ValueError(message)  # noqa: TRY004 - which Pydantic reports
    record_id, _, version = value.partition("@")
    return cls.hydrate(UUID(record_id), version=int(version) if version else None)
