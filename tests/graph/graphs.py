"""Random graphs to test with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from eventic_core.graph import Dag

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn

Edges = dict[str, list[str]]

at_any_speed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def upstreams(draw: DrawFn, least: int = 0, most: int = 60) -> Edges:
    """Draw what Dag takes: nodes defined in any order, each after up to three others, without a cycle."""
    size = draw(st.integers(least, most))
    upstream: Edges = {f"n{number}": [] for number in draw(st.permutations(range(size)))}
    for number in range(size):
        # Three digits of one number, which is drawn quickly; 0 is no edge, so that what fails shrinks to few edges.
        code = draw(st.integers(0, (number + 1) ** 3 - 1))
        digits = {code // (number + 1) ** place % (number + 1) for place in range(3)}
        upstream[f"n{number}"] = [f"n{digit - 1}" for digit in digits if digit]
    return upstream


def dags(least: int = 0, most: int = 60) -> st.SearchStrategy[Dag]:
    """Draw a DAG."""
    return upstreams(least, most).map(Dag)
