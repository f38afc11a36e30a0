"""Branches: what a returned choice follows and skips, and what is no choice."""

from __future__ import annotations

from typing import Any

import pytest
from graphs import at_any_speed, dags
from hypothesis import given
from hypothesis import strategies as st

from eventic_core.errors import Invalid, InvalidBranch, UnknownJob
from eventic_core.graph import Dag, chosen, not_chosen

# "full" goes on to "check", which the branch may also choose by itself; "load" comes after all ways.
SHOP = Dag(
    {
        "choose": [],
        "full": ["choose"],
        "changes": ["choose"],
        "check": ["choose", "full"],
        "load": ["choose", "full", "changes", "check"],
        "other": [],
    }
)


@pytest.mark.parametrize(
    ("value", "skipped"),
    [
        ("full", ("changes",)),
        ("changes", ("full", "check")),
        ("check", ("full", "changes")),
        ("load", ("full", "changes", "check")),
        (["full", "changes"], ()),
        (("changes", "check"), ("full",)),
        ({"changes", "check"}, ("full",)),
        (["changes", "changes"], ("full", "check")),
        ([], ("full", "changes", "check", "load")),
    ],
)
def test_what_is_not_chosen_is_skipped_but_where_the_ways_meet_again(value: Any, skipped: tuple[str, ...]) -> None:
    assert not_chosen(SHOP, "choose", value) == skipped


def test_a_choice_is_read_in_the_order_of_the_dag_and_once() -> None:
    assert chosen(SHOP, "choose", ["check", "full", "check"]) == ("full", "check")
    assert chosen(SHOP, "choose", "load") == ("load",)
    assert chosen(SHOP, "choose", []) == ()


@pytest.mark.parametrize("value", [None, 1, True, {"full": 1}, b"full", object])
def test_what_is_no_choice_is_refused_with_what_may_be_chosen(value: object) -> None:
    with pytest.raises(
        InvalidBranch, match=r"which is no choice\. Return a list with any of: full, changes, check, load"
    ):
        not_chosen(SHOP, "choose", value)


@pytest.mark.parametrize("value", ["nowhere", "other", "choose", "", ["full", "other"], [None], [["full"]]])
def test_only_what_comes_directly_after_a_branch_may_be_chosen(value: object) -> None:
    with pytest.raises(
        InvalidBranch, match=r"does not come directly after it\. Return a list with any of: full"
    ) as caught:
        not_chosen(SHOP, "choose", value)
    assert isinstance(caught.value, Invalid)


def test_a_branch_with_nothing_after_it_may_choose_nothing() -> None:
    assert not_chosen(SHOP, "other", []) == ()
    with pytest.raises(InvalidBranch, match=r"Nothing comes after it: return \[\]"):
        not_chosen(SHOP, "other", "load")


def test_a_branch_is_a_node() -> None:
    with pytest.raises(UnknownJob):
        chosen(SHOP, "chose", [])


@at_any_speed
@given(dags(least=1, most=7), st.data())
def test_each_node_after_a_branch_is_chosen_or_reached_or_skipped(dag: Dag, data: st.DataObject) -> None:
    branch = data.draw(st.sampled_from([*dag]))
    direct = dag.downstream(branch)
    value = data.draw(st.lists(st.sampled_from(direct)) if direct else st.just([]))
    skipped = set(not_chosen(dag, branch, value))
    assert set(chosen(dag, branch, value)) == set(value)
    for node in direct:
        assert (node in skipped) == (node not in value and dag.ancestors(node).isdisjoint(value))
    assert skipped <= set(direct)
