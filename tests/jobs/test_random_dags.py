"""Random DAGs, run for real: every job ends as the pure model says, runs once, and after those it waits for."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from random_plans import drawn

from eventic_core import Record
from eventic_core.graph import Choice, NodeState, Outcome, TriggerRule, play, run_state
from eventic_core.jobs import Cancel, Skip, dag, job

if TYPE_CHECKING:
    from eventic_core.jobs import DeclaredJob
    from eventic_core.jobs.plan import Plan

pytestmark = pytest.mark.usefixtures("workers")
S = NodeState
LOCK = threading.Lock()


class Trace(Record, class_type="RandomDagTrace"):
    seed: int
    job: str


def declared(plan: Plan, name: str, outcome: Outcome, seed: int, order: list[str]) -> DeclaredJob[Any, Any]:
    """Make the job that does in a run what the model is told."""

    @job(
        name=name,
        depends_on=plan.dag.upstream(name),
        rule=plan.rules.get(name, TriggerRule.ALL_SUCCESS),
        branch=name in plan.branches,
    )
    def work() -> Any:
        with LOCK:
            order.append(name)
        Trace(seed=seed, job=name)
        match outcome:
            case Choice(value):
                return list(value)
            case S.FAILED:
                raise ValueError(name)
            case S.CANCELLED:
                return Cancel("as told")
            case S.SKIPPED:
                return Skip("as told")
        return [*plan.dag.downstream(name)] if name in plan.branches else name

    return work


@pytest.mark.parametrize(("seed", "size"), [(1, 5), (2, 30), (3, 80), (4, 200), (5, 200)])
def test_a_random_dag_comes_to_what_the_model_says(seed: int, size: int) -> None:
    plan, outcomes = drawn(random.Random(seed), size)
    order: list[str] = []
    jobs = [declared(plan, name, outcomes[name], seed, order) for name in plan.names]
    run = dag(f"random: {seed}", *jobs).start().wait(timeout_seconds=60)
    ends = {name: end.state for name, end in play(plan.dag, plan.rules, outcomes).items()}
    assert run.states() == ends
    assert str(run.status) == str(run_state(plan.dag, ends))
    assert max(Counter(order).values(), default=1) == 1
    kept = {name for name in order if ends[name] is not S.FAILED}
    assert Counter(trace.job for trace in Trace.where(seed=seed).all()) == Counter(kept)
    skipped = {job_run.job for job_run in run.job_runs() if job_run.because is not None}
    assert skipped == {name for name, state in ends.items() if name not in order and state.is_finished}
    place = {name: number for number, name in enumerate(order)}
    for name in order:
        if plan.rules.get(name, TriggerRule.ALL_SUCCESS) in (TriggerRule.ALL_SUCCESS, TriggerRule.ALL_DONE):
            assert all(place[other] < place[name] for other in plan.dag.upstream(name) if other in place)
