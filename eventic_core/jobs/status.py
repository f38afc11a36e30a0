"""The words for how far a job's run is: the four of the earlier library, read as the statuses of every execution."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from eventic_core.automation.status import MOVES, NAMED_MOVES, ExecutionStatus
from eventic_core.records.states import StateMachine

_S = ExecutionStatus


_RERUN: dict[tuple[str, str], str] = {
    **{(status, _S.PENDING): "rerun" for status in (_S.COMPLETED, _S.SKIPPED, _S.CANCELLED)},
    **{(status, _S.RETRYING): "rerun" for status in (_S.COMPLETED, _S.CANCELLED)},
}
JOB_STATES = StateMachine("status", _S.PENDING, MOVES, {**NAMED_MOVES, **_RERUN})
"""The table of moves of executions, and those that only a rerun makes: of jobs to PENDING, of their run to RETRYING."""


class JobStatus(StrEnum):
    """The four statuses of the earlier library; each is equal to the `ExecutionStatus` it stands for."""

    PENDING = "PENDING"
    RUNNING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


WORDS: dict[str, ExecutionStatus] = {
    "pending": _S.PENDING,
    "started": _S.PROCESSING,
    "running": _S.PROCESSING,
    "completed": _S.COMPLETED,
    "failed": _S.FAILED,
}
"""What each word of the earlier library means."""
WAY_TO: dict[ExecutionStatus, tuple[ExecutionStatus, ...]] = {
    _S.PROCESSING: (_S.PROCESSING,),
    _S.COMPLETED: (_S.PROCESSING, _S.COMPLETED),
    _S.FAILED: (_S.PROCESSING, _S.FAILED),
}
"""How a new run comes to a status that it may be made with, from PENDING."""


def status_of(word: Any) -> Any:
    """Give the status that a word of the earlier library means, in capitals or not; anything else as it is."""
    return WORDS.get(word.lower(), word) if isinstance(word, str) else word
