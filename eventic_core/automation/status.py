"""ExecutionStatus and the one table of moves between its values, for every execution there is."""

from __future__ import annotations

from enum import StrEnum

from eventic_core.records.states import StateMachine


class ExecutionStatus(StrEnum):
    """How far a run, a batch execution, an item execution or an orchestration instance is."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    RETRYING = "RETRYING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"

    def can_transition_to(self, status: ExecutionStatus | str) -> bool:
        """Tell whether the table has the move, apart from the named ones."""
        return str(status) in MOVES[self]

    @property
    def is_finished(self) -> bool:
        """Whether nothing more happens by itself: completed, failed, cancelled or skipped."""
        return self in (self.COMPLETED, self.FAILED, self.CANCELLED, self.SKIPPED)

    @property
    def is_active(self) -> bool:
        """Whether it is not finished: pending, processing or retrying."""
        return not self.is_finished

    @property
    def is_running(self) -> bool:
        """Whether it has begun and is not finished: processing or retrying."""
        return self in (self.PROCESSING, self.RETRYING)


_S = ExecutionStatus
MOVES: dict[str, frozenset[str]] = {
    _S.PENDING: frozenset({_S.PROCESSING, _S.CANCELLED, _S.SKIPPED}),
    _S.PROCESSING: frozenset({_S.COMPLETED, _S.FAILED, _S.RETRYING, _S.CANCELLED}),
    _S.RETRYING: frozenset({_S.PROCESSING, _S.FAILED, _S.CANCELLED}),
    _S.FAILED: frozenset({_S.PENDING, _S.RETRYING}),
    _S.COMPLETED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.SKIPPED: frozenset(),
}
"""What may follow what; a status may also stay."""
NAMED_MOVES: dict[tuple[str, str], str] = {
    (_S.COMPLETED, _S.RETRYING): "redrive",  # of a run that tolerated failures: these are done again
    (_S.PROCESSING, _S.SKIPPED): "skip",  # by the function itself, once it has looked at the item
}
"""Moves beyond the table that only the method of this name makes."""
EXECUTION_STATES = StateMachine("status", _S.PENDING, MOVES, NAMED_MOVES)
