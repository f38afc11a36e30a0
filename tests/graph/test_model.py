"""The model of a run: how nodes end, that no order of finishing changes it, and how the run as a whole ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from graphs import at_any_speed, dags
from hypothesis import given
from hypothesis import strategies as st

from eventic_core.errors import InvalidBranch
from eventic_core.graph import (
    Choice,
    Dag,
    Ended,
    Mapped,
    NodeState,
    Outcome,
    TriggerRule,
    decide,
    mapped_state,
    not_chosen,
    play,
    run_state,
)

if TYPE_CHECKING:
    from random import Random

    from hypothesis.strategies import DrawFn

S, R = NodeState, TriggerRule
FAILURES = (S.FAILED, S.CANCELLED, S.UPSTREAM_FAILED)
ends_of_a_run = st.sampled_from([S.COMPLETED, S.COMPLETED, S.FAILED, S.CANCELLED, S.SKIPPED])
Case = tuple[Dag, dict[str, TriggerRule], dict[str, Outcome]]


@st.composite
def cases(draw: DrawFn) -> Case:
    """Draw a DAG, a rule for some nodes, and what some of them do."""
    dag = draw(dags())
    if not len(dag):
        return dag, {}, {}
    nodes = st.sampled_from([*dag])
    outcomes: dict[str, Outcome] = {**draw(st.dictionaries(nodes, ends_of_a_run))}
    for node, instances in draw(st.dictionaries(nodes, st.lists(ends_of_a_run, max_size=4))).items():
        outcomes[node] = Mapped(tuple(instances))
    for node in draw(st.sets(nodes)):
        if after := dag.downstream(node):
            outcomes[node] = Choice(tuple(draw(st.lists(st.sampled_from(after), max_size=3))))
    return dag, draw(st.dictionaries(nodes, st.sampled_from(TriggerRule))), outcomes


def play_by_events(case: Case, chance: Random) -> dict[str, Ended]:
    """Run a DAG as an executor does: start what may start, finish one of the running at random, look again."""
    dag, rules, outcomes = case
    branches = {node for node, outcome in outcomes.items() if isinstance(outcome, Choice)}
    states = dict.fromkeys(dag, S.WAITING)
    found: dict[str, Ended] = {}
    refused: dict[str, set[str]] = {node: set() for node in dag}
    while True:
        for node in chance.sample([*dag], len(dag)):
            if states[node] is not S.WAITING:
                continue
            decision = decide(
                rules.get(node, R.ALL_SUCCESS),
                {name: states[name] for name in dag.upstream(node)},
                branches=branches.intersection(dag.upstream(node)),
                not_chosen_by=refused[node],
            )
            states[node] = S.RUNNING if decision.state is S.READY else decision.state
            if states[node].is_finished:
                found[node] = Ended(decision.state, decision.because)
        running = [node for node, state in states.items() if state is S.RUNNING]
        if not running:
            if all(state.is_finished for state in states.values()):
                return found
            continue  # the last round skipped something, which others waited for
        node = chance.choice(running)
        found[node] = play(Dag({node: []}), {}, {} if node in branches else {node: outcomes.get(node, S.COMPLETED)})[
            node
        ]
        states[node] = found[node].state
        outcome = outcomes.get(node)
        if isinstance(outcome, Choice):
            for name in not_chosen(dag, node, outcome.value):
                refused[name].add(node)


@at_any_speed
@given(cases(), st.randoms(use_true_random=False))
def test_no_order_of_finishing_changes_how_nodes_end(case: Case, chance: Random) -> None:
    expected = play(*case)
    found = play_by_events(case, chance)
    assert {node: end.state for node, end in found.items()} == {node: end.state for node, end in expected.items()}
    assert all(set(end.because) <= set(expected[node].because) for node, end in found.items())


@at_any_speed
@given(cases())
def test_every_node_ends_and_each_that_is_skipped_has_a_reason(case: Case) -> None:
    dag, _, _ = case
    ended = play(*case)
    assert ended.keys() == set(dag)
    for node, end in ended.items():
        assert end.state.is_finished
        assert bool(end.because) == (end.state in (S.SKIPPED, S.UPSTREAM_FAILED))
        assert {cause.node for cause in end.because} <= {node, *dag.upstream(node)}


@at_any_speed
@given(cases())
def test_a_failure_before_a_node_that_failed_upstream_is_the_reason(case: Case) -> None:
    ended = play(*case)
    for end in ended.values():
        if end.state is S.UPSTREAM_FAILED:
            assert {ended[cause.node].state for cause in end.because} <= set(FAILURES)


@at_any_speed
@given(dags())
def test_all_complete_if_nothing_happens(dag: Dag) -> None:
    ended = play(dag, {}, {})
    assert set(ended.values()) <= {Ended(S.COMPLETED)}
    assert run_state(dag, {node: end.state for node, end in ended.items()}) is S.COMPLETED


@at_any_speed
@given(dags(least=1), st.data())
def test_by_default_a_failure_stops_all_after_it_and_nothing_else(dag: Dag, data: st.DataObject) -> None:
    node = data.draw(st.sampled_from([*dag]))
    ended = play(dag, {}, {node: S.FAILED})
    after = dag.descendants(node)
    expected = {name: S.UPSTREAM_FAILED if name in after else S.COMPLETED for name in dag} | {node: S.FAILED}
    assert {name: end.state for name, end in ended.items()} == expected
    assert run_state(dag, expected) is S.FAILED


# -- examples

NIGHTLY = Dag(
    {
        "extract": [],
        "clean": ["extract"],
        "price": ["extract"],
        "load": ["clean", "price"],
        "gate": ["load"],
        "publish": ["gate"],
        "hold": ["gate"],
        "report": ["publish", "hold"],
    }
)


def words(ended: dict[str, Ended]) -> dict[str, str]:
    return {node: " ".join([end.state, *map(str, end.because)]) for node, end in ended.items()}


def test_a_nightly_run_that_publishes() -> None:
    outcomes = {"load": Mapped((S.COMPLETED, S.SKIPPED)), "gate": Choice("publish")}
    assert words(play(NIGHTLY, {"report": R.NONE_FAILED}, outcomes)) == {
        "extract": "COMPLETED",
        "clean": "COMPLETED",
        "price": "COMPLETED",
        "load": "COMPLETED",
        "gate": "COMPLETED",
        "publish": "COMPLETED",
        "hold": "SKIPPED gate did not choose it",
        "report": "COMPLETED",
    }


def test_a_nightly_run_that_fails_in_the_middle() -> None:
    assert words(play(NIGHTLY, {"report": R.ALL_DONE}, {"price": S.FAILED})) == {
        "extract": "COMPLETED",
        "clean": "COMPLETED",
        "price": "FAILED",
        "load": "UPSTREAM_FAILED price failed",
        "gate": "UPSTREAM_FAILED load was skipped after a failure",
        "publish": "UPSTREAM_FAILED gate was skipped after a failure",
        "hold": "UPSTREAM_FAILED gate was skipped after a failure",
        "report": "COMPLETED",
    }


def test_a_branch_that_follows_nothing_skips_all_after_it() -> None:
    ended = words(play(NIGHTLY, {}, {"gate": Choice(())}))
    assert ended["hold"] == "SKIPPED gate did not choose it"
    assert ended["report"] == "SKIPPED publish was skipped hold was skipped"


def test_a_choice_skips_also_what_would_run_always() -> None:
    ended = words(play(NIGHTLY, {"hold": R.ALWAYS}, {"gate": Choice("publish")}))
    assert ended["hold"] == "SKIPPED gate did not choose it"


def test_a_wrong_choice_in_the_model_is_an_error() -> None:
    with pytest.raises(InvalidBranch, match="publish, hold"):
        play(NIGHTLY, {}, {"gate": Choice("report")})


def test_a_node_may_skip_itself() -> None:
    dag = Dag({"a": [], "b": ["a"], "c": ["a"]})
    ended = words(play(dag, {"c": R.NONE_FAILED}, {"a": S.SKIPPED}))
    assert ended == {"a": "SKIPPED a skipped itself", "b": "SKIPPED a was skipped", "c": "COMPLETED"}


@pytest.mark.parametrize(
    ("instances", "end"),
    [
        ((), "SKIPPED a had nothing to map"),
        ((S.SKIPPED, S.SKIPPED), "SKIPPED a skipped all it mapped"),
        ((S.COMPLETED, S.COMPLETED), "COMPLETED"),
        ((S.SKIPPED, S.COMPLETED), "COMPLETED"),
        ((S.COMPLETED, S.FAILED), "FAILED"),
        ((S.SKIPPED, S.CANCELLED), "FAILED"),
    ],
)
def test_a_mapped_node_ends_by_its_instances(instances: tuple[NodeState, ...], end: str) -> None:
    assert words(play(Dag({"a": []}), {}, {"a": Mapped(instances)})) == {"a": end}


def test_a_mapped_node_runs_while_an_instance_does() -> None:
    assert mapped_state([S.FAILED, S.WAITING]) is S.RUNNING


# -- the run as a whole


@pytest.mark.parametrize(
    ("states", "run"),
    [
        ({"a": S.COMPLETED, "b": S.COMPLETED, "c": S.COMPLETED}, S.COMPLETED),
        ({"a": S.COMPLETED, "b": S.SKIPPED, "c": S.SKIPPED}, S.COMPLETED),
        ({"a": S.COMPLETED, "b": S.COMPLETED, "c": S.FAILED}, S.FAILED),
        ({"a": S.COMPLETED, "b": S.COMPLETED, "c": S.CANCELLED}, S.FAILED),
        ({"a": S.FAILED, "b": S.UPSTREAM_FAILED, "c": S.UPSTREAM_FAILED}, S.FAILED),
        # c ran in spite of the failure, or for it
        ({"a": S.COMPLETED, "b": S.FAILED, "c": S.COMPLETED}, S.COMPLETED),
        ({"a": S.FAILED, "b": S.UPSTREAM_FAILED, "c": S.COMPLETED}, S.COMPLETED),
        # nothing that ran has seen the failure
        ({"a": S.FAILED, "b": S.SKIPPED, "c": S.COMPLETED}, S.FAILED),
        ({"a": S.COMPLETED, "b": S.FAILED, "c": S.SKIPPED}, S.FAILED),
        # not yet
        ({"a": S.FAILED, "b": S.RUNNING, "c": S.WAITING}, S.RUNNING),
    ],
)
def test_a_run_fails_if_a_failure_is_passed_on_to_none(states: dict[str, NodeState], run: NodeState) -> None:
    assert run_state(Dag({"a": [], "b": ["a"], "c": ["b"]}), states) is run


def test_a_run_with_an_alarm_completes_only_if_the_alarm_is_all_that_follows() -> None:
    rules = {"alarm": R.ONE_FAILED}
    alone = Dag({"a": [], "alarm": ["a"]})
    beside = Dag({"a": [], "alarm": ["a"], "next": ["a"]})
    for dag, expected in ((alone, S.COMPLETED), (beside, S.FAILED)):
        ended = play(dag, rules, {"a": S.FAILED})
        assert ended["alarm"].state is S.COMPLETED
        assert run_state(dag, {node: end.state for node, end in ended.items()}) is expected


@at_any_speed
@given(cases())
def test_a_run_fails_with_its_leaves_and_only_for_a_failure(case: Case) -> None:
    dag, _, _ = case
    states = {node: end.state for node, end in play(*case).items()}
    run = run_state(dag, states)
    assert run in (S.COMPLETED, S.FAILED)
    if any(states[leaf] in FAILURES for leaf in dag.leaves()):
        assert run is S.FAILED
    if not any(state in FAILURES for state in states.values()):
        assert run is S.COMPLETED
