"""Random plans, and what their jobs do."""

from __future__ import annotations

import random

from eventic_core.graph import Choice, Dag, NodeState, Outcome, TriggerRule
from eventic_core.jobs.plan import Plan

S = NodeState
ENDS = (S.COMPLETED, S.COMPLETED, S.COMPLETED, S.FAILED, S.CANCELLED, S.SKIPPED)


def drawn(chance: random.Random, size: int) -> tuple[Plan, dict[str, Outcome]]:
    """Draw a plan with rules and branches, and what each job does if it runs."""
    upstream = {
        f"n{number}": [f"n{other}" for other in chance.sample(range(number), min(number, chance.randint(0, 3)))]
        for number in range(size)
    }
    rules = {name: chance.choice(list(TriggerRule)) for name in upstream if chance.random() < 0.6}
    dag = Dag(upstream)
    branches = [name for name in upstream if dag.downstream(name) and chance.random() < 0.2]
    outcomes: dict[str, Outcome] = {name: chance.choice(ENDS) for name in upstream}
    for name in branches:
        if outcomes[name] is S.COMPLETED:
            after = dag.downstream(name)
            outcomes[name] = Choice(tuple(chance.sample(after, chance.randint(0, len(after)))))
    return Plan(upstream, rules, branches), outcomes
