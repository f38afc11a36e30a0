"""What all drawings of a DAG share: a colour for each state, and text that any document can hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eventic_core.graph.states import NodeState

if TYPE_CHECKING:
    from collections.abc import Mapping

# What XML cannot hold, not even escaped.
_NOWHERE = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Look:
    """How a node in some state is drawn.

    Attributes:
        fill: The colour of its inside.
        stroke: The colour of its line.
        dashed: Whether the line is.
    """

    fill: str
    stroke: str
    dashed: bool = False


TEXT = "#18181b"
LINE = "#71717a"
PLAIN = Look("#ffffff", LINE)
"""The look of a node whose state is not told."""
LOOKS: Mapping[NodeState, Look] = {
    NodeState.WAITING: Look("#f4f4f5", "#a1a1aa"),
    NodeState.READY: Look("#e0f2fe", "#0284c7"),
    NodeState.RUNNING: Look("#bfdbfe", "#1d4ed8"),
    NodeState.COMPLETED: Look("#dcfce7", "#15803d"),
    NodeState.FAILED: Look("#fecaca", "#b91c1c"),
    NodeState.CANCELLED: Look("#f5d0fe", "#a21caf"),
    NodeState.SKIPPED: Look("#fafafa", "#a1a1aa", dashed=True),
    NodeState.UPSTREAM_FAILED: Look("#ffedd5", "#c2410c", dashed=True),
}


def printable(text: str) -> str:
    """Replace the characters that no document can hold: control characters and halves of others."""
    return _NOWHERE.sub("\ufffd", text)
