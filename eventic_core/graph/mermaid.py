"""A DAG as the text of a Mermaid flowchart, for places that draw those: issues, READMEs, wikis."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from eventic_core.graph.looks import LOOKS, TEXT, printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from eventic_core.graph.dag import Dag
    from eventic_core.graph.states import NodeState

# Only letters, digits, spaces, and hyphens and underscores in a word are written as they are, all else as its number:
# in a label, Mermaid takes quotes, brackets, HTML, Markdown and its own words for what they mean elsewhere.
_UNSAFE = re.compile(r"[^\w -]|(?<![^\W_])[-_]|[-_](?![^\W_])")


def to_mermaid(
    dag: Dag,
    *,
    states: Mapping[str, NodeState] | None = None,
    mapped: Collection[str] = (),
    branches: Collection[str] = (),
) -> str:
    """Draw a DAG as a Mermaid flowchart, from left to right; the same DAG gives the same text.

    Args:
        dag: What to draw. Any names will do: they are only labels.
        states: How far nodes are; each is coloured by it.
        mapped: Nodes that run once for each of many values; their boxes have double sides.
        branches: Nodes that choose what follows; they are diamonds.

    Raises:
        UnknownJob: The DAG has no node of a name given.
    """
    states = states or {}
    dag.check(*states, *mapped, *branches)
    ids = {node: f"n{number}" for number, node in enumerate(dag)}
    lines = ["flowchart LR"]
    for node, name in ids.items():
        left, right = ("{", "}") if node in branches else ("[[", "]]") if node in mapped else ("[", "]")
        lines.append(f'    {name}{left}"{_label(node)}"{right}')
    lines += [f"    {ids[name]} --> {ids[node]}" for node in dag for name in dag.upstream(node)]
    lines += _classes(ids, states)
    return "\n".join(lines) + "\n"


def _classes(ids: Mapping[str, str], states: Mapping[str, NodeState]) -> Iterator[str]:
    for state, look in LOOKS.items():
        members = [name for node, name in ids.items() if states.get(node) is state]
        if members:
            dashes = ",stroke-dasharray:4 3" if look.dashed else ""
            yield f"    classDef {state} fill:{look.fill},stroke:{look.stroke},color:{TEXT}{dashes}"
            yield f"    class {','.join(members)} {state}"


def _label(name: str) -> str:
    lines = (" ".join(line.split()) for line in printable(name).splitlines())
    return "<br/>".join(_UNSAFE.sub(lambda found: f"#{ord(found[0])};", line) for line in lines) or "#32;"
