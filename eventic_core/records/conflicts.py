"""What to do about a stale write: merge changes to other fields, or say who changed what.

Called by a scope after the store refused a batch; reads heads, writes nothing.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from eventic_core.errors import RecordNotFound, VersionConflict
from eventic_core.records import documents, state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventic_core.records.identity import Identified
    from eventic_core.records.port import Append, Store, StoredVersion, Transaction

_LISTED_VERSIONS = 10


def resolve(store: Store, records: Sequence[Identified], transaction: Transaction | None, stale: Exception) -> None:
    """Lift each stale record onto the current version if its class merges disjoint changes.

    Raises:
        VersionConflict: A record cannot be merged: its class does not ask for it, both sides changed a field, the
            merged values are invalid, or the record was deleted.
    """
    for record in records:
        stored = state.stored_of(record)
        if stored is None:
            continue
        head = store.head(record.id, transaction)
        if head is None:
            message = f"{type(record).__name__} {record.id} is not stored any more."
            raise RecordNotFound(message) from stale
        if head.version == stored.version:
            continue
        if record.__eventic__.merge != "disjoint" or head.stamp.tombstone or not _merge(record, head):
            raise _conflict(store, record, stored.version, head.version, transaction) from stale


def of_sealed(store: Store, appends: Sequence[Append], transaction: Transaction | None) -> VersionConflict:
    """Make the error for versions of which some were to be written one after the other, so that nothing is merged."""
    first: dict[Any, Append] = {}
    for append in appends:
        if append.version and append.id not in first:
            first[append.id] = append
    for append in first.values():
        head = store.head(append.id, transaction)
        actual = -1 if head is None else head.version
        if actual != append.version - 1:
            return VersionConflict(append.class_type, append.id, expected=append.version - 1, actual=actual)
    some = appends[0]
    return VersionConflict(some.class_type, some.id, expected=some.version - 1, actual=some.version)


def _merge(record: Identified, head: StoredVersion) -> bool:
    base = state.stored_document(record)
    mine = set(documents.changed_fields(base, state.current_document(record)))
    merged = state.validated(type(record), head)
    theirs = set(documents.changed_fields(base, state.current_document(merged)))
    if mine & theirs:
        return False
    values: dict[str, Any] = {name: record.__dict__[name] for name in mine if not name.startswith("properties.")}
    bag = _merged_bag(dict(merged.properties), record.properties, mine)
    try:
        if bag is not None:
            values["properties"] = bag
        state.assign(merged, values)
    except (ValidationError, ValueError):
        return False
    object.__setattr__(record, "_stored", state.Stored(head.version, head.data, head.stamp))
    state.adopt_values(record, merged)
    return True


def _merged_bag(theirs: dict[str, Any], mine: dict[str, Any], changed: set[str]) -> dict[str, Any] | None:
    names = [name.removeprefix("properties.") for name in changed if name.startswith("properties.")]
    if not names:
        return None
    for name in names:
        if name in mine:
            theirs[name] = mine[name]
        else:
            theirs.pop(name, None)
    return theirs


def _conflict(
    store: Store, record: Identified, expected: int, actual: int, transaction: Transaction | None
) -> VersionConflict:
    rows = store.history(
        record.id, limit=max(0, min(actual - expected + 1, _LISTED_VERSIONS)), before=None, tx=transaction
    )
    rows = [row for row in reversed(rows) if row.version >= expected]
    changed = []
    for before, after in pairwise(rows):
        fields = documents.changed_fields(documents.load(before.data), documents.load(after.data))
        what = ("deleted",) if after.stamp.tombstone else fields
        changed.append((after.version, after.stamp.actor, after.stamp.reason, what))
    return VersionConflict(record.__eventic__.class_type, record.id, expected=expected, actual=actual, changed=changed)
