"""A DAG as an SVG picture that needs nothing else."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING
from unicodedata import combining, east_asian_width

from eventic_core.graph.layout import BOX, lay_out
from eventic_core.graph.looks import LINE, LOOKS, PLAIN, TEXT, printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from eventic_core.graph.dag import Dag
    from eventic_core.graph.layout import Layout, Place
    from eventic_core.graph.states import NodeState

CELL, MOST_CELLS, PADDING = 8, 32, 16
"""A letter's width in pixels, how many letters of a name are shown (the tooltip has all), the space at their sides."""


def to_svg(
    dag: Dag,
    *,
    states: Mapping[str, NodeState] | None = None,
    mapped: Collection[str] = (),
    branches: Collection[str] = (),
    notes: Mapping[str, str] | None = None,
) -> str:
    """Draw a DAG as SVG, from left to right; the same DAG gives the same text.

    Args:
        dag: What to draw, some hundreds of nodes at most: a picture of more shows nothing.
        states: How far nodes are; each is coloured by it, and says so.
        mapped: Nodes that run once for each of many values; they are stacks.
        branches: Nodes that choose what follows; their sides are pointed.
        notes: More for the tooltips of nodes, such as why one waits.

    Raises:
        UnknownJob: The DAG has no node of a name given.
    """
    states, notes = states or {}, notes or {}
    dag.check(*states, *mapped, *branches, *notes)
    labels = {node: _shortened(node) for node in dag}
    words = {node: states[node].lower().replace("_", " ") if node in states else "" for node in dag}
    widths = {node: max(_cells(labels[node]), len(words[node])) * CELL + 2 * PADDING for node in dag}
    layout = lay_out(dag, widths)
    size = f'width="{layout.width}" height="{layout.height}" viewBox="0 0 {layout.width} {layout.height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" font-family="monospace" font-size="13">',
        f"<title>{len(dag)} jobs</title>",
        *_edges(layout),
    ]
    for node, place in layout.boxes.items():
        look = LOOKS[states[node]] if node in states else PLAIN
        tooltip = "\n".join(filter(None, (node, words[node], notes.get(node))))
        lines += [
            f'<g fill="{look.fill}" stroke="{look.stroke}"{_DASHED if look.dashed else ""}>',
            f"<title>{_text(tooltip)}</title>",
            _hexagon(place) if node in branches else _stack(place) if node in mapped else _box(place, 0),
            *_words(place, labels[node], words[node]),
            "</g>",
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


_DASHED = ' stroke-dasharray="4 3"'
_ARROW = (
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    f'<path d="M0 0L8 4L0 8z" fill="{LINE}"/></marker></defs>'
)


def _edges(layout: Layout) -> Iterator[str]:
    yield _ARROW
    yield f'<g fill="none" stroke="{LINE}">'
    passages = frozenset(layout.passages)
    for start, end in layout.links:
        half = (start.right + end.left) // 2
        curve = f"M{start.right} {start.middle}C{half} {start.middle} {half} {end.middle} {end.left} {end.middle}"
        yield f'<path d="{curve}H{end.right}"/>' if end in passages else f'<path d="{curve}" marker-end="url(#arrow)"/>'
    yield "</g>"


def _box(place: Place, shift: int) -> str:
    corner = f'x="{place.left + shift}" y="{place.middle - BOX // 2 + shift}"'
    return f'<rect {corner} width="{place.right - place.left}" height="{BOX}" rx="6"/>'


def _stack(place: Place) -> str:
    return _box(place, 4) + _box(place, 0)


def _hexagon(place: Place) -> str:
    left, right, top, bottom = place.left, place.right, place.middle - BOX // 2, place.middle + BOX // 2
    cut = PADDING // 2
    return (
        f'<path d="M{left} {place.middle}L{left + cut} {top}H{right - cut}'
        f'L{right} {place.middle}L{right - cut} {bottom}H{left + cut}z"/>'
    )


def _words(place: Place, label: str, state: str) -> Iterator[str]:
    anchor = f'x="{(place.left + place.right) // 2}" text-anchor="middle" fill="{TEXT}" stroke="none"'
    yield f'<text {anchor} y="{place.middle + (-1 if state else 5)}">{_text(label)}</text>'
    if state:
        yield f'<text {anchor} y="{place.middle + 13}" font-size="10">{state}</text>'


def _text(text: str) -> str:
    return escape(printable(text))


def _cells(text: str) -> int:
    """Count how many letters wide a text is: some are two, and what stands over another is none."""
    return sum(0 if combining(letter) else 2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def _shortened(name: str) -> str:
    """Give a name on one line, cut where it gets too long."""
    line = " ".join(name.split())
    if _cells(line) <= MOST_CELLS:
        return line
    kept = ""
    for letter in line:
        if _cells(kept + letter) >= MOST_CELLS:
            break
        kept += letter
    return f"{kept}…"
