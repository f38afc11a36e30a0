"""Graphs: which node comes after which, whether it may run, how a run ends, and how that is drawn.

Pure functions of names and states; imports nothing but the errors. What a node does is not known here.
"""

from __future__ import annotations

from eventic_core.graph.branches import chosen, not_chosen
from eventic_core.graph.dag import Dag
from eventic_core.graph.mermaid import to_mermaid
from eventic_core.graph.model import Choice, Ended, Mapped, Outcome, play, run_state
from eventic_core.graph.rules import Cause, Decision, TriggerRule, decide, decide_from_counts
from eventic_core.graph.states import NodeState, mapped_state
from eventic_core.graph.svg import to_svg

__all__ = [
    "Cause",
    "Choice",
    "Dag",
    "Decision",
    "Ended",
    "Mapped",
    "NodeState",
    "Outcome",
    "TriggerRule",
    "chosen",
    "decide",
    "decide_from_counts",
    "mapped_state",
    "not_chosen",
    "play",
    "run_state",
    "to_mermaid",
    "to_svg",
]
