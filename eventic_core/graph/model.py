"""The model of a run: how every node ends, given what it would do. One pass in order; what executors are compared with.

Also the one rule for how a run ends as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eventic_core.graph.branches import not_chosen
from eventic_core.graph.rules import Cause, TriggerRule, decide
from eventic_core.graph.states import NodeState, mapped_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eventic_core.graph.dag import Dag


@dataclass(frozen=True, slots=True)
class Choice:
    """What a branch does that completes: it returns this."""

    value: str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a mapped node does: its instances end so."""

    instances: tuple[NodeState, ...]


Outcome = NodeState | Choice | Mapped
"""What a node does if it runs; as a state, COMPLETED, FAILED, CANCELLED, or SKIPPED by itself."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a node ended, and what it was skipped for."""

    state: NodeState
    because: tuple[Cause, ...] = ()


def play(dag: Dag, rules: Mapping[str, TriggerRule], outcomes: Mapping[str, Outcome]) -> dict[str, Ended]:
    """Tell how every node of a run ends.

    Args:
        dag: The nodes.
        rules: Their trigger rules; `all_success` for a node that has none here.
        outcomes: What each does if it runs; a node that has none here completes.

    Raises:
        InvalidBranch: A choice is none.
    """
    ends: dict[str, Ended] = {}
    refused: dict[str, list[str]] = {node: [] for node in dag}
    for node in dag.order():
        before = {name: ends[name].state for name in dag.upstream(node)}
        decision = decide(rules.get(node, TriggerRule.ALL_SUCCESS), before, not_chosen_by=refused[node])
        if decision.state is not NodeState.READY:
            ends[node] = Ended(decision.state, decision.because)
            continue
        outcome = outcomes.get(node, NodeState.COMPLETED)
        ends[node] = _end(node, outcome)
        if isinstance(outcome, Choice):
            for name in not_chosen(dag, node, outcome.value):
                refused[name].append(node)
    return ends


def _end(node: str, outcome: Outcome) -> Ended:
    match outcome:
        case Choice():
            return Ended(NodeState.COMPLETED)
        case Mapped(instances):
            state, why = mapped_state(instances), "had nothing to map" if not instances else "skipped all it mapped"
        case state:
            why = "skipped itself"
    return Ended(state, (Cause(node, why),) if state is NodeState.SKIPPED else ())


def run_state(dag: Dag, states: Mapping[str, NodeState]) -> NodeState:
    """Tell the state of a run from those of its nodes.

    A failure is passed on to the nodes directly after it: to those that it makes fail, and to those that run in spite
    of it or for it, which have dealt with it. A run fails if a failure is passed on to none: it is at a leaf, or all
    that comes directly after it was merely skipped.

    So a run fails whenever one of its leaves failed or was skipped after a failure. A leaf that runs in spite of
    failures and completes, say one with the rule `all_done` that cleans up, makes up for those before it: where the
    run should fail for them all the same, give it another leaf beside that one.

    Args:
        dag: The nodes.
        states: The state of each.

    Returns:
        RUNNING while a node is unfinished, else FAILED or COMPLETED; COMPLETED too if all were skipped.
    """
    if not all(states[node].is_finished for node in dag):
        return NodeState.RUNNING
    for node in dag:
        after = [states[name] for name in dag.downstream(node)]
        if states[node].counts_as is NodeState.FAILED and all(state is NodeState.SKIPPED for state in after):
            return NodeState.FAILED
    return NodeState.COMPLETED
