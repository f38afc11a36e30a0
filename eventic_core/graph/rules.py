"""Trigger rules: whether a node may run, must wait or is skipped, told from the states of the nodes before it.

One table says all of it, in numbers that a database can count; names only explain the answer. Branches come first:
what a branch did not choose is skipped, whatever its rule.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from eventic_core.errors import Invalid, UnknownRule
from eventic_core.graph.states import NodeState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


class TriggerRule(StrEnum):
    """When a node runs, told from those directly before it. With nothing before it, it always runs.

    A failure is a node that failed, was cancelled, or was skipped since something before it failed. A skip is one that
    a branch did not choose, or that skipped itself.
    """

    ALL_SUCCESS = "all_success"
    ALL_DONE = "all_done"
    ALL_FAILED = "all_failed"
    ONE_SUCCESS = "one_success"
    ONE_FAILED = "one_failed"
    NONE_FAILED = "none_failed"
    NONE_SKIPPED = "none_skipped"
    ALWAYS = "always"

    @classmethod
    def _missing_(cls, value: object) -> TriggerRule:
        message = f"There is no trigger rule {value!r}. The rules are {', '.join(cls)}."
        raise UnknownRule(message)


_R, _S = TriggerRule, NodeState
_AT_ONCE: dict[TriggerRule, dict[NodeState, NodeState]] = {
    _R.ALL_SUCCESS: {_S.FAILED: _S.UPSTREAM_FAILED},
    _R.ALL_FAILED: {_S.COMPLETED: _S.SKIPPED, _S.SKIPPED: _S.SKIPPED},
    _R.ONE_SUCCESS: {_S.COMPLETED: _S.READY},
    _R.ONE_FAILED: {_S.FAILED: _S.READY},
    _R.NONE_FAILED: {_S.FAILED: _S.UPSTREAM_FAILED},
    _R.NONE_SKIPPED: {_S.SKIPPED: _S.SKIPPED},
}
"""What the first node before it that counts as so makes of a node, whatever the others do."""
_AT_END: dict[TriggerRule, dict[NodeState, NodeState]] = {
    # Not at once: a failure may still come, and then it is one. Which came first would decide otherwise.
    _R.ALL_SUCCESS: {_S.SKIPPED: _S.SKIPPED},
    _R.ONE_SUCCESS: {_S.FAILED: _S.UPSTREAM_FAILED, _S.SKIPPED: _S.SKIPPED},
    _R.ONE_FAILED: {_S.COMPLETED: _S.SKIPPED, _S.SKIPPED: _S.SKIPPED},
}
"""What the first line that fits makes of a node when all before it have finished; otherwise it is ready."""


@dataclass(frozen=True, slots=True)
class Cause:
    """A node, and what it did that another was skipped for; as text, `a failed`."""

    node: str
    why: str

    def __str__(self) -> str:
        return f"{self.node} {self.why}"


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a node.

    Attributes:
        state: READY, WAITING, SKIPPED or UPSTREAM_FAILED.
        waiting_for: The unfinished nodes before it, if it waits.
        because: What it is skipped for, if it is; the more have finished, the more may be here.
    """

    state: NodeState
    waiting_for: tuple[str, ...] = ()
    because: tuple[Cause, ...] = ()

    def __str__(self) -> str:
        if self.waiting_for:
            return f"waiting for: {', '.join(self.waiting_for)}"
        if self.because:
            return f"skipped: {', '.join(map(str, self.because))}"
        return str(self.state.words)


def decide(
    rule: TriggerRule,
    upstream: Mapping[str, NodeState],
    *,
    branches: Collection[str] = (),
    not_chosen_by: Collection[str] = (),
) -> Decision:
    """Decide as soon as the answer is certain; it stays the same however the rest finish, and in whatever order.

    Args:
        rule: The node's.
        upstream: The nodes directly before it, with their states now.
        branches: Those of them that choose what follows. The node waits for all of these, whatever its rule.
        not_chosen_by: Those of the branches that have chosen, and not this node.
    """
    count = Counter(state.counts_as for state in upstream.values())
    state = decide_from_counts(
        rule,
        total=len(upstream),
        done=len(upstream) - count[None],
        failed=count[NodeState.FAILED],
        skipped=count[NodeState.SKIPPED],
        branches_left=sum(not upstream[name].is_finished for name in branches),
        not_chosen=len(not_chosen_by),
    )
    if state is NodeState.READY:
        return Decision(state)
    if state is NodeState.WAITING:
        return Decision(state, waiting_for=tuple(name for name, was in upstream.items() if not was.is_finished))
    if not_chosen_by:
        return Decision(state, because=tuple(Cause(name, "did not choose it") for name in not_chosen_by))
    lines = _AT_ONCE.get(rule, {}) | _AT_END.get(rule, {})
    causes = [
        Cause(name, was.words) for name, was in upstream.items() if was.counts_as and lines.get(was.counts_as) is state
    ]
    return Decision(state, because=tuple(causes))


def decide_from_counts(
    rule: TriggerRule,
    *,
    total: int,
    done: int,
    failed: int,
    skipped: int,
    branches_left: int = 0,
    not_chosen: int = 0,
) -> NodeState:
    """Decide as `decide` does, from how many nodes before it are in which state; the rest of `done` completed.

    Args:
        rule: The node's.
        total: The nodes directly before it.
        done: Those that have finished.
        failed: Those that failed, were cancelled, or were skipped since something before them failed.
        skipped: Those that were skipped otherwise.
        branches_left: The branches among them that have not finished.
        not_chosen: The branches among them that have chosen, and not this node.

    Returns:
        READY, WAITING, SKIPPED or UPSTREAM_FAILED.

    Raises:
        Invalid: The counts contradict each other.
    """
    counts = {NodeState.FAILED: failed, NodeState.COMPLETED: done - failed - skipped, NodeState.SKIPPED: skipped}
    if done > total or min(counts.values()) < 0:
        message = (
            f"{done} of {total} nodes cannot have finished with {failed} failed and {skipped} skipped; count again."
        )
        raise Invalid(message)
    if not_chosen:
        return NodeState.SKIPPED
    if branches_left:
        return NodeState.WAITING
    for counted, state in _AT_ONCE.get(rule, {}).items():
        if counts[counted]:
            return state
    if rule is TriggerRule.ALWAYS:
        return NodeState.READY
    if done < total:
        return NodeState.WAITING
    for counted, state in _AT_END.get(rule, {}).items():
        if counts[counted]:
            return state
    return NodeState.READY
