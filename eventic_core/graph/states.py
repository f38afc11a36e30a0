"""NodeState: how far a node of a run is, and what that counts as for those after it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class NodeState(StrEnum):
    """How far a node is.

    There are two skips: SKIPPED, by a choice or for want of work, and UPSTREAM_FAILED, since something before the node
    failed. Where one word for both is stored, the second one needs a mark: it counts as a failure.
    """

    WAITING = "WAITING"
    READY = "READY"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"
    UPSTREAM_FAILED = "UPSTREAM_FAILED"

    @property
    def is_finished(self) -> bool:
        """Whether it stays as it is."""
        return self.counts_as is not None

    @property
    def counts_as(self) -> NodeState | None:
        """What a trigger rule takes it for: COMPLETED, FAILED or SKIPPED; `None` while it is unfinished."""
        return _COUNTS_AS.get(self)

    @property
    def words(self) -> str:
        """What a sentence says of a node in this state: `failed`, `was skipped`."""
        return _WORDS[self]


_S = NodeState
_COUNTS_AS = {
    _S.COMPLETED: _S.COMPLETED,
    _S.FAILED: _S.FAILED,
    _S.CANCELLED: _S.FAILED,
    _S.UPSTREAM_FAILED: _S.FAILED,
    _S.SKIPPED: _S.SKIPPED,
}
_WORDS = {
    _S.WAITING: "waits",
    _S.READY: "is ready",
    _S.RUNNING: "runs",
    _S.COMPLETED: "completed",
    _S.FAILED: "failed",
    _S.CANCELLED: "was cancelled",
    _S.SKIPPED: "was skipped",
    _S.UPSTREAM_FAILED: "was skipped after a failure",
}


def mapped_state(instances: Iterable[NodeState]) -> NodeState:
    """Tell the state of a mapped node from those of its instances.

    Returns:
        RUNNING while one is unfinished; else FAILED if one failed or was cancelled, COMPLETED if one completed, and
        SKIPPED if there is none or all were skipped.
    """
    found = {state.counts_as for state in instances}
    if None in found:
        return NodeState.RUNNING
    for state in (NodeState.FAILED, NodeState.COMPLETED):
        if state in found:
            return state
    return NodeState.SKIPPED
