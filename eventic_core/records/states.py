"""State machines of records: which values one field may take after which, checked wherever a version is made.

Owns the table's form and its question. Pure; the tables themselves belong to the classes that have a state.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from eventic_core.errors import InvalidStateError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


@dataclasses.dataclass(frozen=True, slots=True)
class StateMachine:
    """The states of a class, in one field of it.

    Attributes:
        field: The field that holds the state.
        initial: What a new record's state is.
        moves: To each state those that may follow it.
        named: Moves that only a method of this name makes.
    """

    field: str
    initial: str
    moves: Mapping[str, frozenset[str]]
    named: Mapping[tuple[str, str], str] = dataclasses.field(default_factory=dict)

    def allows(self, before: str, after: str, calls: Collection[str] = ()) -> bool:
        """Tell whether `after` may follow `before` in a version that these methods make; a state may stay."""
        if before == after or after in self.moves.get(before, ()):
            return True
        return self.named.get((before, after)) in calls

    def check(
        self, class_type: str, record_id: object, before: str | None, after: object, calls: Collection[str] = ()
    ) -> None:
        """Refuse a move the table does not have.

        Args:
            class_type: Of the record, for the error.
            record_id: As `class_type`.
            before: The state it has; `None` for a new record.
            after: The state it is to have.
            calls: The methods that make the version.

        Raises:
            InvalidStateError: The table has no such move; names it.
        """
        word = str(after)
        if before is None:
            if word != self.initial:
                raise InvalidStateError(class_type, record_id, "new", word)
        elif not self.allows(before, word, calls):
            raise InvalidStateError(class_type, record_id, before, word)
