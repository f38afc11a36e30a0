"""What follows when jobs end, whatever the order: the run's letters come to what the pure model says."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_plans import drawn

from eventic_core import InvalidBranch
from eventic_core.graph import Choice, NodeState, Outcome, play
from eventic_core.jobs.plan import LETTERS, STATES, UNFINISHED, Plan

S = NodeState


def walked(plan: Plan, outcomes: dict[str, Outcome], chance: random.Random) -> tuple[str, list[int]]:
    """Let ready jobs end in some order, several at a time; gives the last letters, and the jobs as they ran."""
    text, ready = plan.start()
    letters, refused = list(text), dict[int, list[int]]()
    ran = list(ready)
    while ready:
        ending = chance.sample(ready, chance.randint(1, len(ready)))
        ended: dict[int, NodeState] = {}
        for place in ending:
            outcome = outcomes[plan.names[place]]
            if isinstance(outcome, Choice):
                for other in plan.refused_by(place, outcome.value):
                    refused.setdefault(other, []).append(place)
            ended[place] = S.COMPLETED if isinstance(outcome, Choice) else S(outcome)
        found = plan.after(letters, ended, refused)
        for skipped in found.skipped:
            assert skipped.because.startswith("skipped: ")
        ready = [place for place in ready if place not in ended] + found.ready
        ran += found.ready
    return "".join(letters), ran


@given(seed=st.integers(0, 2**32), size=st.integers(0, 40))
def test_a_run_comes_to_what_the_model_says_in_whatever_order_jobs_end(seed: int, size: int) -> None:
    chance = random.Random(seed)
    plan, outcomes = drawn(chance, size)
    letters, ran = walked(plan, outcomes, chance)
    ends = play(plan.dag, plan.rules, outcomes)
    assert {name: STATES[letter] for name, letter in zip(plan.names, letters, strict=True)} == {
        name: end.state for name, end in ends.items()
    }
    assert not set(letters) & set(UNFINISHED)
    assert len(ran) == len(set(ran))


@given(seed=st.integers(0, 2**32), size=st.integers(0, 20))
def test_a_stored_plan_is_the_same_plan(seed: int, size: int) -> None:
    plan, _outcomes = drawn(random.Random(seed), size)
    again = Plan.of(plan.document())
    assert (again.names, again.rules, again.branches) == (plan.names, plan.rules, plan.branches)
    assert again.start() == plan.start()


def test_a_waiting_job_says_for_which_and_a_skipped_one_because_of_which() -> None:
    plan = Plan({"a": [], "b": [], "c": ["a", "b"], "d": ["c"]}, {}, [])
    letters = list(plan.start()[0])
    assert plan.why(letters, plan.place["c"], {}) == "waiting for: a, b"
    found = plan.after(letters, {plan.place["a"]: S.FAILED}, {})
    assert [(plan.names[one.place], one.state, one.because) for one in found.skipped] == [
        ("c", S.UPSTREAM_FAILED, "skipped: a failed"),
        ("d", S.UPSTREAM_FAILED, "skipped: c was skipped after a failure"),
    ]
    assert "".join(letters) == "FqUU"


def test_what_a_branch_did_not_choose_is_skipped_and_a_wrong_choice_refused() -> None:
    plan = Plan({"gate": [], "yes": ["gate"], "no": ["gate"]}, {}, ["gate"])
    letters = list(plan.start()[0])
    refused = {place: [plan.place["gate"]] for place in plan.refused_by(plan.place["gate"], "yes")}
    found = plan.after(letters, {plan.place["gate"]: S.COMPLETED}, refused)
    assert found.ready == [plan.place["yes"]]
    assert [one.because for one in found.skipped] == ["skipped: gate did not choose it"]
    assert letters == [LETTERS[S.COMPLETED], LETTERS[S.READY], LETTERS[S.SKIPPED]]
    with pytest.raises(InvalidBranch, match="perhaps"):
        plan.refused_by(plan.place["gate"], "perhaps")
