"""Trigger rules: what each means, that decisions are early and final, and that counts decide as names do."""

from __future__ import annotations

from itertools import product

import pytest
from graphs import at_any_speed
from hypothesis import given
from hypothesis import strategies as st

from eventic_core.errors import Invalid, UnknownRule
from eventic_core.graph import Decision, NodeState, TriggerRule, decide, decide_from_counts

States = dict[str, NodeState]
S, R = NodeState, TriggerRule
FINISHED = (S.COMPLETED, S.FAILED, S.CANCELLED, S.UPSTREAM_FAILED, S.SKIPPED)
UNFINISHED = (S.WAITING, S.READY, S.RUNNING)

rules = st.sampled_from(TriggerRule)
names = st.sampled_from("abcd")
upstreams = st.dictionaries(names, st.sampled_from(NodeState), max_size=4)
finished = st.dictionaries(names, st.sampled_from(FINISHED), max_size=4)


def ends(states: States) -> list[States]:
    """List all the ways in which some states may end."""
    options = [[state] if state.is_finished else FINISHED for state in states.values()]
    return [dict(zip(states, ending, strict=True)) for ending in product(*options)]


def meant(rule: TriggerRule, states: States) -> NodeState:
    """Say what a rule means once all before a node have finished, in the words of its name."""
    succeeded = [state is S.COMPLETED for state in states.values()]
    skipped = [state is S.SKIPPED for state in states.values()]
    failed = [state in (S.FAILED, S.CANCELLED, S.UPSTREAM_FAILED) for state in states.values()]
    runs = {
        R.ALL_SUCCESS: all(succeeded),
        R.ALL_DONE: True,
        R.ALL_FAILED: all(failed),
        R.ONE_SUCCESS: any(succeeded),
        R.ONE_FAILED: any(failed),
        R.NONE_FAILED: not any(failed),
        R.NONE_SKIPPED: not any(skipped),
        R.ALWAYS: True,
    }
    if not states or runs[rule]:
        return S.READY
    wanted_success = rule in (R.ALL_SUCCESS, R.ONE_SUCCESS, R.NONE_FAILED)
    return S.UPSTREAM_FAILED if wanted_success and any(failed) else S.SKIPPED


# -- what the rules mean


@at_any_speed
@given(rules, finished)
def test_a_decision_is_what_the_rule_means_when_all_have_finished(rule: TriggerRule, states: States) -> None:
    assert decide(rule, states).state is meant(rule, states)


@at_any_speed
@given(rules, upstreams)
def test_a_decision_is_made_as_soon_as_it_is_certain_and_never_before(rule: TriggerRule, states: States) -> None:
    """So more endings never change it, and their order does not matter."""
    certain = {meant(rule, ending) for ending in ends(states)}
    expected = certain.pop() if len(certain) == 1 else S.WAITING
    if rule is R.ALL_DONE and not all(state.is_finished for state in states.values()):
        expected = S.WAITING  # its answer is no secret, but it is to wait
    assert decide(rule, states).state is expected


@pytest.mark.parametrize("rule", TriggerRule)
def test_a_root_runs_whatever_its_rule(rule: TriggerRule) -> None:
    assert decide(rule, {}) == Decision(S.READY)


@pytest.mark.parametrize(
    ("rule", "states", "decision"),
    [
        (R.ALL_SUCCESS, {"a": S.COMPLETED, "b": S.RUNNING}, "waiting for: b"),
        (R.ALL_SUCCESS, {"a": S.FAILED, "b": S.RUNNING}, "skipped: a failed"),
        (R.ALL_SUCCESS, {"a": S.UPSTREAM_FAILED, "b": S.RUNNING}, "skipped: a was skipped after a failure"),
        (R.ALL_SUCCESS, {"a": S.SKIPPED, "b": S.RUNNING}, "waiting for: b"),
        (R.ALL_SUCCESS, {"a": S.SKIPPED, "b": S.COMPLETED}, "skipped: a was skipped"),
        (R.ALL_SUCCESS, {"a": S.SKIPPED, "b": S.FAILED}, "skipped: b failed"),
        (R.ALL_DONE, {"a": S.FAILED, "b": S.READY, "c": S.WAITING}, "waiting for: b, c"),
        (R.ALL_DONE, {"a": S.FAILED, "b": S.SKIPPED}, "is ready"),
        (R.ALL_FAILED, {"a": S.FAILED, "b": S.RUNNING}, "waiting for: b"),
        (R.ALL_FAILED, {"a": S.COMPLETED, "b": S.RUNNING}, "skipped: a completed"),
        (R.ALL_FAILED, {"a": S.SKIPPED, "b": S.FAILED}, "skipped: a was skipped"),
        (R.ALL_FAILED, {"a": S.CANCELLED, "b": S.FAILED}, "is ready"),
        (R.ONE_SUCCESS, {"a": S.COMPLETED, "b": S.RUNNING}, "is ready"),
        (R.ONE_SUCCESS, {"a": S.FAILED, "b": S.SKIPPED, "c": S.CANCELLED}, "skipped: a failed, c was cancelled"),
        (R.ONE_SUCCESS, {"a": S.SKIPPED}, "skipped: a was skipped"),
        (R.ONE_FAILED, {"a": S.FAILED, "b": S.RUNNING}, "is ready"),
        (R.ONE_FAILED, {"a": S.COMPLETED, "b": S.SKIPPED}, "skipped: a completed, b was skipped"),
        (R.NONE_FAILED, {"a": S.SKIPPED, "b": S.COMPLETED}, "is ready"),
        (R.NONE_FAILED, {"a": S.SKIPPED, "b": S.RUNNING}, "waiting for: b"),
        (R.NONE_FAILED, {"a": S.CANCELLED, "b": S.RUNNING}, "skipped: a was cancelled"),
        (R.NONE_SKIPPED, {"a": S.SKIPPED, "b": S.RUNNING}, "skipped: a was skipped"),
        (R.NONE_SKIPPED, {"a": S.FAILED, "b": S.COMPLETED}, "is ready"),
        (R.ALWAYS, {"a": S.WAITING}, "is ready"),
    ],
)
def test_a_decision_reads_as_the_reason(rule: TriggerRule, states: States, decision: str) -> None:
    assert str(decide(rule, states)) == decision


@pytest.mark.parametrize("text", ["all_good", "ALL_DONE", "", None])
def test_an_unknown_rule_is_refused_with_those_there_are(text: object) -> None:
    with pytest.raises(UnknownRule, match="all_success, all_done, all_failed, one_success") as caught:
        TriggerRule(text)
    assert isinstance(caught.value, Invalid)
    assert repr(text) in str(caught.value)


def test_a_rule_is_told_by_its_text() -> None:
    assert TriggerRule("none_skipped") is R.NONE_SKIPPED


# -- what a decision tells


@at_any_speed
@given(rules, upstreams)
def test_one_that_waits_names_all_that_are_unfinished_and_one_that_skips_a_cause(
    rule: TriggerRule, states: States
) -> None:
    decision = decide(rule, states)
    unfinished = tuple(name for name, state in states.items() if not state.is_finished)
    assert decision.waiting_for == (unfinished if decision.state is S.WAITING else ())
    assert bool(decision.because) == (decision.state in (S.SKIPPED, S.UPSTREAM_FAILED))
    assert all(states[cause.node].is_finished for cause in decision.because)
    if decision.state is S.UPSTREAM_FAILED:
        assert all(states[cause.node].counts_as is S.FAILED for cause in decision.because)


@at_any_speed
@given(rules, upstreams)
def test_causes_known_early_are_among_those_known_in_the_end(rule: TriggerRule, states: States) -> None:
    early = decide(rule, states)
    if early.state is not S.WAITING:
        assert all(set(early.because) <= set(decide(rule, ending).because) for ending in ends(states))


# -- counts


@at_any_speed
@given(rules, upstreams)
def test_counts_decide_as_names_do(rule: TriggerRule, states: States) -> None:
    words = list(states.values())
    decided = decide_from_counts(
        rule,
        total=len(words),
        done=sum(word not in UNFINISHED for word in words),
        failed=sum(word in (S.FAILED, S.CANCELLED, S.UPSTREAM_FAILED) for word in words),
        skipped=words.count(S.SKIPPED),
    )
    assert decided is decide(rule, states).state


@pytest.mark.parametrize(
    ("done", "failed", "skipped"), [(3, 0, 0), (1, 1, 1), (1, 2, 0), (1, -1, 0), (1, 0, -1), (-1, 0, 0)]
)
def test_counts_that_cannot_be_are_refused(done: int, failed: int, skipped: int) -> None:
    with pytest.raises(Invalid, match="count again"):
        decide_from_counts(R.ALWAYS, total=2, done=done, failed=failed, skipped=skipped)


# -- branches


@at_any_speed
@given(rules, finished, st.data())
def test_what_a_branch_did_not_choose_is_skipped_whatever_its_rule(
    rule: TriggerRule, states: States, data: st.DataObject
) -> None:
    states |= dict.fromkeys(data.draw(st.sets(names)), S.RUNNING)
    states["choose"] = S.COMPLETED
    decision = decide(rule, states, branches=states, not_chosen_by=["choose"])
    assert (decision.state, str(decision)) == (S.SKIPPED, "skipped: choose did not choose it")


@pytest.mark.parametrize("rule", TriggerRule)
def test_a_node_waits_for_a_branch_that_may_not_choose_it_whatever_its_rule(rule: TriggerRule) -> None:
    states = {"choose": S.RUNNING, "a": S.COMPLETED, "b": S.FAILED, "c": S.SKIPPED}
    assert str(decide(rule, states, branches=["choose"])) == "waiting for: choose"
    chosen = states | {"choose": S.COMPLETED}
    assert decide(rule, chosen, branches=["choose"]) == decide(rule, chosen)


@at_any_speed
@given(rules, upstreams, st.data())
def test_a_decision_stays_however_unfinished_branches_choose(
    rule: TriggerRule, states: States, data: st.DataObject
) -> None:
    subset = data.draw(st.sets(st.sampled_from([*states])) if states else st.just(set[str]()))
    refused = {name for name in subset if states[name] is S.COMPLETED and data.draw(st.booleans())}
    early = decide(rule, states, branches=subset, not_chosen_by=refused)
    if early.state is S.WAITING:
        return
    for ending in ends(states):
        may = [name for name in subset if not states[name].is_finished and ending[name] is S.COMPLETED]
        for also in (refused, refused.union(may)):
            late = decide(rule, ending, branches=subset, not_chosen_by=also)
            assert late.state is early.state
            assert set(early.because) <= set(late.because)
