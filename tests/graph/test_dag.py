"""Dag: the order of its nodes, what comes before and after one, and what is no DAG."""

from __future__ import annotations

import functools
import pickle
from itertools import pairwise

import pytest
from graphs import Edges, at_any_speed, dags, upstreams
from hypothesis import assume, given
from hypothesis import strategies as st

from eventic_core.errors import CycleFound, Invalid, InvalidDag, UnknownJob
from eventic_core.graph import Dag

DIAMOND = {"report": ["left", "right"], "left": ["extract"], "right": ["extract"], "extract": []}

# -- what it tells


@at_any_speed
@given(upstreams())
def test_upstream_is_what_was_given_and_downstream_the_other_way_round(upstream: Edges) -> None:
    dag = Dag(upstream)
    assert {node: list(dag.upstream(node)) for node in dag} == upstream
    given_edges = {(name, node) for node, before in upstream.items() for name in before}
    assert {(node, name) for node in dag for name in dag.downstream(node)} == given_edges
    assert sum(len(dag.downstream(node)) for node in dag) == len(given_edges)


@at_any_speed
@given(dags())
def test_order_has_each_node_once_after_all_it_waits_for(dag: Dag) -> None:
    order = dag.order()
    assert sorted(order) == sorted(dag)
    place = {node: number for number, node in enumerate(order)}
    assert all(place[name] < place[node] for node in dag for name in dag.upstream(node))


@at_any_speed
@given(dags())
def test_a_layer_is_as_deep_as_the_longest_path_to_its_nodes(dag: Dag) -> None:
    @functools.cache
    def depth(node: str) -> int:
        return max((depth(name) + 1 for name in dag.upstream(node)), default=0)

    assert {node: dag.level(node) for node in dag} == {node: depth(node) for node in dag}
    assert {node: level for level, layer in enumerate(dag.layers()) for node in layer} == {
        node: depth(node) for node in dag
    }


@at_any_speed
@given(dags())
def test_a_layer_keeps_the_order_of_the_definition(dag: Dag) -> None:
    place = {node: number for number, node in enumerate(dag)}
    assert all([*layer] == sorted(layer, key=place.__getitem__) for layer in dag.layers())
    assert dag.order() == tuple(node for layer in dag.layers() for node in layer)


@at_any_speed
@given(dags(most=20))
def test_ancestors_and_descendants_are_what_paths_lead_to(dag: Dag) -> None:
    @functools.cache
    def before(node: str) -> frozenset[str]:
        direct = frozenset(dag.upstream(node))
        return direct.union(*map(before, direct))

    assert {node: dag.ancestors(node) for node in dag} == {node: before(node) for node in dag}
    assert {node: dag.descendants(node) for node in dag} == {
        node: frozenset(name for name in dag if node in before(name)) for node in dag
    }


@at_any_speed
@given(dags(least=1), st.data())
def test_descendants_of_several_are_those_of_each(dag: Dag, data: st.DataObject) -> None:
    nodes = data.draw(st.lists(st.sampled_from([*dag]), max_size=4))
    assert dag.descendants(*nodes) == frozenset().union(*map(dag.descendants, nodes))
    assert dag.ancestors(*nodes) == frozenset().union(*map(dag.ancestors, nodes))


@at_any_speed
@given(dags())
def test_roots_have_nothing_before_them_and_leaves_nothing_after(dag: Dag) -> None:
    assert set(dag.roots()) == {node for node in dag if not dag.ancestors(node)}
    assert set(dag.leaves()) == {node for node in dag if not dag.descendants(node)}
    assert bool(dag.roots()) == bool(dag.leaves()) == bool(len(dag))


def test_a_diamond() -> None:
    dag = Dag(DIAMOND)
    assert dag.layers() == (("extract",), ("left", "right"), ("report",))
    assert dag.upstream("report") == ("left", "right")
    assert (dag.roots(), dag.leaves()) == (("extract",), ("report",))
    assert dag.ancestors("report") == {"extract", "left", "right"}
    assert dag.descendants("left", "right") == {"report"}
    assert dag.descendants() == frozenset()
    assert ("left" in dag, "up" in dag, len(dag), repr(dag)) == (True, False, 4, "Dag(4 nodes, 4 edges)")


def test_a_dag_may_be_empty() -> None:
    dag = Dag({})
    assert (dag.layers(), dag.order(), dag.roots(), dag.leaves(), len(dag)) == ((), (), (), (), 0)


def test_a_dag_does_not_follow_changes_of_what_it_was_made_from() -> None:
    upstream = {"a": [], "b": ["a"]}
    dag = Dag(upstream)
    upstream["b"].append("b")
    assert dag.upstream("b") == ("a",)


def test_upstream_may_be_read_only_once() -> None:
    assert Dag({"a": iter(()), "b": (name for name in ["a"])}).upstream("b") == ("a",)


# -- what is none


@at_any_speed
@given(upstreams(least=1), st.data())
def test_an_edge_back_is_a_cycle_that_the_error_walks(upstream: Edges, data: st.DataObject) -> None:
    node = data.draw(st.sampled_from([*upstream]))
    later = data.draw(st.sampled_from(sorted(Dag(upstream).descendants(node) | {node})))
    upstream[node].append(later)
    assume(len(set(upstream[node])) == len(upstream[node]))
    with pytest.raises(CycleFound) as caught:
        Dag(upstream)
    path = caught.value.path
    assert path[0] == path[-1]
    assert all(before in upstream[after] for before, after in pairwise(path))
    assert len(set(path)) == len(path) - 1
    assert {node, later} <= set(path)
    assert path[0] == next(name for name in upstream if name in path)
    assert " -> ".join(path) in str(caught.value)


def test_a_cycle_is_told_from_the_job_defined_first_and_in_the_order_of_running() -> None:
    with pytest.raises(CycleFound, match=r"a -> b -> c -> a\.") as caught:
        Dag({"start": [], "a": ["c"], "c": ["b"], "b": ["a", "start"], "end": ["c"]})
    assert caught.value.path == ("a", "b", "c", "a")
    assert pickle.loads(pickle.dumps(caught.value)).path == caught.value.path


def test_a_job_cannot_wait_for_itself() -> None:
    with pytest.raises(CycleFound, match="a -> a"):
        Dag({"a": ["a"]})


def test_an_unknown_job_is_named_with_the_one_that_waits_for_it_and_a_near_one() -> None:
    with pytest.raises(UnknownJob, match=r"'report' depends on 'extrct', .* Did you mean 'extract'\?"):
        Dag({"extract": [], "report": ["extrct"]})
    with pytest.raises(UnknownJob, match="correct the name"):
        Dag({"report": ["extract"]})


def test_a_dependency_is_named_once() -> None:
    with pytest.raises(InvalidDag, match="'b' depends on 'a' twice"):
        Dag({"a": [], "b": ["a", "a"]})


def test_a_text_is_no_list_of_names() -> None:
    with pytest.raises(InvalidDag, match=r"Give a list of names: \['a'\]"):
        Dag({"a": [], "b": "a"})


@pytest.mark.parametrize("ask", ["upstream", "downstream", "ancestors", "descendants", "level", "check"])
def test_an_unknown_job_has_no_place(ask: str) -> None:
    with pytest.raises(UnknownJob, match=r"no job 'lft'\. Did you mean 'left'\?") as caught:
        getattr(Dag(DIAMOND), ask)("lft")
    assert isinstance(caught.value, Invalid)


# -- size


def test_ten_thousand_jobs_in_a_row_need_no_recursion() -> None:
    names = [f"n{number}" for number in range(10_000)]
    dag = Dag({"n0": []} | {name: [before] for before, name in pairwise(names)})
    assert [*dag.order()] == names
    assert len(dag.descendants("n0")) == len(dag.ancestors(names[-1])) == len(dag.layers()) - 1 == 9_999
    with pytest.raises(CycleFound) as caught:
        Dag({"n0": [names[-1]]} | {name: dag.upstream(name) for name in names[1:]})
    assert [*caught.value.path] == [*names, "n0"]


def test_fifty_thousand_edges_are_no_burden() -> None:
    upstream = {
        f"{layer}.{n}": [f"{layer - 1}.{(n + k) % 100}" for k in range(5)]
        for layer in range(1, 101)
        for n in range(100)
    }
    dag = Dag(upstream | {f"0.{n}": [] for n in range(100)})
    assert [len(layer) for layer in dag.layers()] == [100] * 101
    assert len(dag.descendants(*dag.roots())) == 10_000
