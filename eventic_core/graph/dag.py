"""Dag: nodes and what each waits for, checked once and never changed. Knows names only, not what a node does."""

from __future__ import annotations

import difflib
from collections import deque
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, final

from eventic_core.errors import CycleFound, InvalidDag, UnknownJob

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping


@final
class Dag:
    """Nodes by name, each with the nodes directly before it. Immutable; made in time linear in nodes and edges.

    Whatever it lists is in a fixed order: that of the definition, for `layers` and `order` within each layer.

    Args:
        upstream: To each node those directly before it, in an order the caller may care for. Every node is a key.

    Raises:
        CycleFound: A node comes before itself; has the whole path.
        UnknownJob: A node waits for one that is no key.
        InvalidDag: A node names another twice, or its upstream is a text instead of a list.
    """

    __slots__ = ("_downstream", "_layers", "_levels", "_upstream")

    def __init__(self, upstream: Mapping[str, Iterable[str]]) -> None:
        self._upstream = {node: _names(node, before) for node, before in upstream.items()}
        self._check_names()
        self._layers = _layers(self._upstream)
        self._levels = {node: level for level, layer in enumerate(self._layers) for node in layer}
        after: dict[str, list[str]] = {node: [] for node in self._upstream}
        for node, before in self._upstream.items():
            for name in before:
                after[name].append(node)
        self._downstream = {node: tuple(names) for node, names in after.items()}

    def __len__(self) -> int:
        return len(self._upstream)

    def __iter__(self) -> Iterator[str]:
        return iter(self._upstream)

    def __contains__(self, node: object) -> bool:
        return node in self._upstream

    def __repr__(self) -> str:
        return f"Dag({len(self)} nodes, {sum(map(len, self._upstream.values()))} edges)"

    def upstream(self, node: str) -> tuple[str, ...]:
        """List the nodes directly before one, as they were given.

        Raises:
            UnknownJob: The DAG has no such node.
        """
        self.check(node)
        return self._upstream[node]

    def downstream(self, node: str) -> tuple[str, ...]:
        """List the nodes directly after one.

        Raises:
            UnknownJob: The DAG has no such node.
        """
        self.check(node)
        return self._downstream[node]

    def ancestors(self, *nodes: str) -> frozenset[str]:
        """Collect what comes before any of these, directly or not.

        Raises:
            UnknownJob: The DAG has no such node.
        """
        self.check(*nodes)
        return _reached(nodes, self._upstream)

    def descendants(self, *nodes: str) -> frozenset[str]:
        """Collect what comes after any of these, directly or not.

        Raises:
            UnknownJob: The DAG has no such node.
        """
        self.check(*nodes)
        return _reached(nodes, self._downstream)

    def roots(self) -> tuple[str, ...]:
        """List the nodes with nothing before them."""
        return tuple(node for node, before in self._upstream.items() if not before)

    def leaves(self) -> tuple[str, ...]:
        """List the nodes with nothing after them."""
        return tuple(node for node, after in self._downstream.items() if not after)

    def layers(self) -> tuple[tuple[str, ...], ...]:
        """List the nodes by layer: each is in the first one after all it waits for."""
        return self._layers

    def level(self, node: str) -> int:
        """Tell which layer a node is in, from 0: how many edges the longest path to it has.

        Raises:
            UnknownJob: The DAG has no such node.
        """
        self.check(node)
        return self._levels[node]

    def order(self) -> tuple[str, ...]:
        """List all nodes so that each comes after those it waits for."""
        return tuple(node for layer in self._layers for node in layer)

    def check(self, *nodes: str) -> None:
        """Refuse names the DAG does not have.

        Raises:
            UnknownJob: The first of them; the message has a near one.
        """
        for node in nodes:
            if node not in self._upstream:
                message = f"The DAG has no job {node!r}. {self._near(node)}"
                raise UnknownJob(message)

    def _check_names(self) -> None:
        for node, before in self._upstream.items():
            seen = set()
            for name in before:
                if name not in self._upstream:
                    message = f"Job {node!r} depends on {name!r}, which the DAG does not have. {self._near(name)}"
                    raise UnknownJob(message)
                if name in seen:
                    message = f"Job {node!r} depends on {name!r} twice. Name it once."
                    raise InvalidDag(message)
                seen.add(name)

    def _near(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._upstream, n=1)
        return f"Did you mean {near[0]!r}?" if near else "Add the job, or correct the name."


def _names(node: str, before: Iterable[str]) -> tuple[str, ...]:
    if isinstance(before, str):
        message = f"Job {node!r} depends on the text {before!r}. Give a list of names: [{before!r}]."
        raise InvalidDag(message)
    return tuple(before)


def _layers(upstream: Mapping[str, Collection[str]]) -> tuple[tuple[str, ...], ...]:
    """Take off what waits for nothing, again and again: what is free at the same time is a layer.

    Raises:
        CycleFound: Something is never free.
    """
    sorter = TopologicalSorter(upstream)
    try:
        sorter.prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        raise CycleFound(_from_first(cycle, upstream)) from error
    place = {node: number for number, node in enumerate(upstream)}
    layers = []
    while sorter.is_active():
        layer = sorted(sorter.get_ready(), key=place.__getitem__)
        sorter.done(*layer)
        layers.append(tuple(layer))
    return tuple(layers)


def _from_first(cycle: list[str], upstream: Mapping[str, Collection[str]]) -> list[str]:
    """Turn a cycle, whose first is its last, so that it starts with the node that was defined first."""
    ring = set(cycle)
    start = cycle.index(next(node for node in upstream if node in ring))
    return [*cycle[start:-1], *cycle[: start + 1]]


def _reached(starts: Iterable[str], steps: Mapping[str, Iterable[str]]) -> frozenset[str]:
    """Collect what some steps lead to from any start; a start only if another one leads to it."""
    found: set[str] = set()
    left = deque(starts)
    while left:
        for node in steps[left.popleft()]:
            if node not in found:
                found.add(node)
                left.append(node)
    return frozenset(found)
