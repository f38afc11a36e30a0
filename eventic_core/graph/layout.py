"""Where a drawing puts the nodes and edges of a DAG: layers from left to right, ordered so that few edges cross."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from eventic_core.graph.dag import Dag

Slot = tuple[str, int]
"""A node in its own layer, or the passage of its edges through a later one on their way further."""
Link = tuple[Slot, Slot]
"""What joins slots of neighbouring layers."""

SWEEPS = 6
"""How often the layers are put in order, forth and back; more changes little."""
MARGIN, BOX, PASSAGE, GAP, CORRIDOR = 16, 40, 8, 14, 56
"""Sizes in pixels: round the picture; heights of a box and a passage; between them; between layers."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a slot is, in pixels: its sides, and the height its middle is at."""

    left: int
    right: int
    middle: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is, and how large that makes the picture.

    Attributes:
        boxes: The place of each node.
        passages: Where edges that span layers pass those in between; the edges of one node share them.
        links: The pieces of all edges, each from one place to another.
    """

    boxes: Mapping[str, Place]
    passages: tuple[Place, ...]
    links: tuple[tuple[Place, Place], ...]
    width: int
    height: int


def lay_out(dag: Dag, widths: Mapping[str, int]) -> Layout:
    """Find a place for everything; the same DAG gives the same ones.

    Args:
        dag: What is drawn.
        widths: How wide the box of each node must be, in pixels.
    """
    columns, links = _columns(dag)
    _untangle(columns, links)
    heights = [sum(_height(dag, slot) + GAP for slot in column) - GAP for column in columns]
    tallest = max(heights, default=0)
    places: dict[Slot, Place] = {}
    left = MARGIN
    for column, height in zip(columns, heights, strict=True):
        right = left + max(widths[node] for node, level in column if dag.level(node) == level)
        top = MARGIN + (tallest - height) // 2
        for slot in column:
            places[slot] = Place(left, right, top + _height(dag, slot) // 2)
            top += _height(dag, slot) + GAP
        left = right + CORRIDOR
    return Layout(
        boxes={node: places[node, dag.level(node)] for node in dag},
        passages=tuple(place for (node, level), place in places.items() if dag.level(node) != level),
        links=tuple((places[one], places[other]) for one, other in links),
        width=max(left - CORRIDOR, MARGIN) + MARGIN,
        height=tallest + 2 * MARGIN,
    )


def _columns(dag: Dag) -> tuple[list[list[Slot]], list[Link]]:
    """List the slots of each layer, and the links between them."""
    columns: list[list[Slot]] = [[(node, level) for node in layer] for level, layer in enumerate(dag.layers())]
    links: list[Link] = []
    for node in dag.order():
        after = [(name, dag.level(name)) for name in dag.downstream(node)]
        furthest = max((level for _, level in after), default=0)
        for level in range(dag.level(node) + 1, furthest):
            columns[level].append((node, level))
            links.append(((node, level - 1), (node, level)))
        links += [((node, level - 1), (name, level)) for name, level in after]
    return columns, links


def _untangle(columns: list[list[Slot]], links: Iterable[Link]) -> None:
    """Sort each layer by the mean place of what its slots are joined to: on the left, then on the right, and again."""
    left: dict[Slot, list[Slot]] = {slot: [] for column in columns for slot in column}
    right: dict[Slot, list[Slot]] = {slot: [] for column in columns for slot in column}
    for one, other in links:
        right[one].append(other)
        left[other].append(one)
    place = {slot: where for column in columns for slot, where in _placed(column)}
    for sweep in range(SWEEPS):
        forth = sweep % 2 == 0
        joined = left if forth else right
        for column in columns if forth else reversed(columns):
            wish = {slot: _mean([place[other] for other in joined[slot]], place[slot]) for slot in column}
            column.sort(key=wish.__getitem__)
            place.update(_placed(column))


def _placed(column: list[Slot]) -> list[tuple[Slot, float]]:
    """Number the slots of a layer from its middle, as they are drawn."""
    return [(slot, number - (len(column) - 1) / 2) for number, slot in enumerate(column)]


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _height(dag: Dag, slot: Slot) -> int:
    node, level = slot
    return BOX if dag.level(node) == level else PASSAGE
