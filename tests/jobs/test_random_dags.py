"""Random DAGs, run for real: every job ends as the pure model says, runs once, and after those it waits for.

Some jobs are mapped, some start a run of another DAG.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from random_plans import drawn

from eventic_core import Record
from eventic_core.graph import Choice, NodeState, Outcome, TriggerRule, play, run_state
from eventic_core.jobs import Cancel, DagRun, DeclaredJob, Skip, dag, job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventic_core.jobs.plan import Plan

pytestmark = pytest.mark.usefixtures("workers")
S = NodeState
LOCK = threading.Lock()
_numbers = itertools.count(1)


class Trace(Record, class_type="RandomDagTrace"):
    dag: str
    job: str
    element: int | None = None


@job
def inside(fails: bool) -> str:
    if fails:
        message = "as told"
        raise ValueError(message)
    return "inside"


INNER = dag("random: inner", inside)


class Drawn:
    """A random DAG, and what its jobs noted when they were called."""

    def __init__(self, seed: int, size: int) -> None:
        chance = random.Random(seed)
        self.plan, self.outcomes = drawn(chance, size)
        self.name = f"random: {next(_numbers)}"
        self.calls: list[tuple[str, int | None]] = []
        plain = [name for name, outcome in self.outcomes.items() if outcome in (S.COMPLETED, S.FAILED)]
        plain = [name for name in plain if name not in self.plan.branches]
        chosen = chance.sample(plain, min(12, len(plain) // 3))
        self.nested = set(chosen[::3])
        # A map fails by its last element, so one that is to fail has one.
        self.elements = {
            name: chance.randint(self.outcomes[name] is S.FAILED, 4) for name in chosen if name not in self.nested
        }
        self.jobs = [self._declared(name, self.outcomes[name]) for name in self.plan.names]

    def _declared(self, name: str, outcome: Outcome) -> DeclaredJob[Any, Any]:
        """Make the job that does in a run what the model is told."""
        options: dict[str, Any] = {
            "name": name,
            "depends_on": self.plan.dag.upstream(name),
            "rule": self.plan.rules.get(name, TriggerRule.ALL_SUCCESS),
            "branch": name in self.plan.branches,
        }
        if name in self.elements:
            return self._mapped(name, outcome, options)

        @job(**options)
        def work() -> Any:
            self._note(name, None)
            Trace(dag=self.name, job=name)
            if name in self.nested:
                return INNER.start(fails=outcome is S.FAILED)
            match outcome:
                case Choice(value):
                    return list(value)
                case S.FAILED:
                    raise ValueError(name)
                case S.CANCELLED:
                    return Cancel("as told")
                case S.SKIPPED:
                    return Skip("as told")
            return [*self.plan.dag.downstream(name)] if name in self.plan.branches else name

        return work

    def _mapped(self, name: str, outcome: Outcome, options: dict[str, Any]) -> DeclaredJob[Any, Any]:
        count = self.elements[name]

        def elements() -> Iterator[int]:
            self._note(name, None)
            yield from range(count)

        @job(**options, map="element", over=elements)
        def work(element: int) -> int:
            self._note(name, element)
            Trace(dag=self.name, job=name, element=element)
            if outcome is S.FAILED and element == count - 1:
                raise ValueError(name)
            return element

        return work

    def _note(self, name: str, element: int | None) -> None:
        with LOCK:
            self.calls.append((name, element))

    def traces(self, ends: dict[str, NodeState]) -> Counter[tuple[str, int | None]]:
        """Give what is to be written: nothing of an attempt that failed."""
        kept = dict.fromkeys(self.calls)
        for name, element in self.calls:
            if name in self.elements:
                is_last = element == self.elements[name] - 1
                if element is None or (is_last and ends[name] is S.FAILED):
                    del kept[name, element]
            elif ends[name] is S.FAILED and name not in self.nested:
                del kept[name, element]
        return Counter(list(kept))


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@example(seed=4, size=200)
@example(seed=3, size=80)
@given(seed=st.integers(0, 2**32), size=st.integers(1, 60))
def test_a_random_dag_comes_to_what_the_model_says(seed: int, size: int) -> None:
    drawn_dag = Drawn(seed, size)
    plan, calls = drawn_dag.plan, drawn_dag.calls
    run = dag(drawn_dag.name, *drawn_dag.jobs).start().wait(timeout_seconds=100)
    ends = {name: end.state for name, end in play(plan.dag, plan.rules, drawn_dag.outcomes).items()}
    assert run.states() == ends
    assert str(run.status) == str(run_state(plan.dag, ends))
    assert max(Counter(calls).values(), default=1) == 1
    assert Counter((one.job, one.element) for one in Trace.where(dag=run.dag).all()) == drawn_dag.traces(ends)
    begun = list(dict.fromkeys(name for name, _element in calls))
    skipped = {job_run.job for job_run in run.job_runs() if job_run.because is not None}
    assert skipped == {name for name, state in ends.items() if name not in begun and state.is_finished}
    for name in drawn_dag.elements.keys() & set(begun):
        completed = range(drawn_dag.elements[name]) if ends[name] is S.COMPLETED else None
        assert run.result(name) == (completed if completed is None else list(completed))
    in_order(plan, calls)
    assert DagRun.where(dag=INNER.name, status="PROCESSING").count() == 0


def in_order(plan: Plan, calls: list[tuple[str, int | None]]) -> None:
    """Check that jobs began after those they wait for, and after all elements of those."""
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for place, (name, _element) in enumerate(calls):
        first.setdefault(name, place)
        last[name] = place
    for name, place in first.items():
        if plan.rules.get(name, TriggerRule.ALL_SUCCESS) in (TriggerRule.ALL_SUCCESS, TriggerRule.ALL_DONE):
            assert all(last[other] < place for other in plan.dag.upstream(name) if other in last)
