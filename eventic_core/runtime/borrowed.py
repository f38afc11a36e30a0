"""The records that a workflow's body passes to a transaction: a repeated body must see what became of them.

The first time the transaction changes the objects themselves. When the run is repeated it is not run again, so the
objects become the versions it left them at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from eventic_core.records import Record, state
from eventic_core.records.editing import current_scope

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eventic_core.store import PostgresStore


class Borrowed:
    """The records among the arguments of one call."""

    def __init__(self, arguments: Iterable[Any]) -> None:
        self._records = [value for value in arguments if isinstance(value, Record)]

    def note(self, result: Any) -> Any:
        """Give what goes on record: the result, and the version each record is left at; at the end of the scope."""
        if not self._records:
            return result
        scope = current_scope()
        if scope is not None:
            scope.flush()
        return {"result": result, "records": [[str(record.id), record.version] for record in self._records]}

    def take(self, store: PostgresStore, outcome: Any) -> Any:
        """Make the records what is on record, if they are not, and give the result."""
        if not self._records:
            return outcome
        for record, (record_id, version) in zip(self._records, outcome["records"], strict=True):
            if version >= 0 and (str(record.id), record.version) != (record_id, version):
                state.become(record, store.versions([(UUID(record_id), version)])[0])
        return outcome["result"]
