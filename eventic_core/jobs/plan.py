"""Plan: a DAG as a run has it, and what comes next when some of its jobs have ended. Pure; states are letters.

A run keeps one letter for each job, in the order of the plan, so that a step of it reads and writes a few bytes however
many jobs there are.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from eventic_core.graph import Dag, NodeState, TriggerRule, decide, decide_from_counts, not_chosen

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

S = NodeState
LETTERS = {
    S.WAITING: ".",
    S.READY: "q",
    S.RUNNING: "r",
    S.COMPLETED: "C",
    S.FAILED: "F",
    S.CANCELLED: "X",
    S.SKIPPED: "S",
    S.UPSTREAM_FAILED: "U",
}
STATES = {letter: state for state, letter in LETTERS.items()}
UNFINISHED = ".qr"
FAILURES = "FXU"


@dataclass(frozen=True, slots=True)
class Skipped:
    """A job that is not run, and why."""

    place: int
    state: NodeState
    because: str


@dataclass(slots=True)
class Next:
    """What follows from the ends of some jobs.

    Attributes:
        ready: The places of the jobs that may run now, in order.
        skipped: Those that will not run, in order.
    """

    ready: list[int] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


class Plan:
    """The jobs of a run, by name and by place.

    Args:
        upstream: To each job those directly before it.
        rules: Trigger rules other than `all_success`.
        branches: The jobs whose result chooses what follows.
    """

    def __init__(
        self, upstream: Mapping[str, Iterable[str]], rules: Mapping[str, TriggerRule], branches: Iterable[str] = ()
    ) -> None:
        self.dag = Dag(upstream)
        self.names = tuple(self.dag)
        self.place = {name: place for place, name in enumerate(self.names)}
        self.rules = dict(rules)
        self.branches = frozenset(branches)
        self.dag.check(*self.branches, *self.rules)
        self._before = [[self.place[name] for name in self.dag.upstream(node)] for node in self.names]
        self._after = [[self.place[name] for name in self.dag.downstream(node)] for node in self.names]
        self._branches_before = [
            [place for place in before if self.names[place] in self.branches] for before in self._before
        ]

    def __len__(self) -> int:
        return len(self.names)

    # -- as it is stored

    def document(self) -> dict[str, Any]:
        """Give it as JSON data, whose order is kept in lists only; `of` makes it again."""
        return {
            "upstream": [[name, list(self.dag.upstream(name))] for name in self.names],
            "rules": {name: str(rule) for name, rule in self.rules.items()},
            "branches": sorted(self.branches),
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Plan:
        """Make it of what `document` gave."""
        rules = {name: TriggerRule(rule) for name, rule in document["rules"].items()}
        return cls(dict(document["upstream"]), rules, document["branches"])

    # -- a run of it

    def start(self) -> tuple[str, list[int]]:
        """Give the letters a run begins with, and the places of the jobs that may run at once."""
        roots = [place for place, before in enumerate(self._before) if not before]
        letters = [LETTERS[S.WAITING]] * len(self)
        for place in roots:
            letters[place] = LETTERS[S.READY]
        return "".join(letters), roots

    def after(self, letters: list[str], ended: Mapping[int, NodeState], refused: dict[int, list[int]]) -> Next:
        """Note the ends of jobs, and tell what follows at once, skips of skips included.

        Args:
            letters: The run's, which are changed.
            ended: How jobs ended, by place.
            refused: For each place the branches that did not choose it, those that have ended just now included.
        """
        for place, state in ended.items():
            letters[place] = LETTERS[state]
        return self._settled(letters, {after for place in ended for after in self._after[place]}, refused)

    def again(self, letters: list[str], places: Iterable[int], refused: dict[int, list[int]]) -> Next:
        """Take back the ends of jobs, and tell which may run at once and which are skipped.

        Args:
            letters: The run's, which are changed.
            places: The jobs, with all that comes after them.
            refused: Is changed: what branches among them chose is forgotten.
        """
        cleared = set(places)
        _take_back(letters, cleared, refused)
        return self._settled(letters, cleared, refused)

    def marked(
        self, letters: list[str], place: int, state: NodeState, cleared: Iterable[int], refused: dict[int, list[int]]
    ) -> Next:
        """Note an end that somebody says of a job, whatever it was, and tell what follows.

        Args:
            letters: The run's, which are changed.
            place: The job.
            state: How it has ended.
            cleared: Jobs after it that are decided on anew; the others that have ended stay as they are.
            refused: As for `again`; what the job itself does not choose is included.
        """
        letters[place] = LETTERS[state]
        again = set(cleared)
        _take_back(letters, again, refused)
        return self._settled(letters, again.union(self._after[place]), refused)

    def _settled(self, letters: list[str], touched: set[int], refused: Mapping[int, list[int]]) -> Next:
        """Decide on jobs that wait, and on those after the ones that are skipped."""
        found = Next()
        waiting = [(self.dag.level(self.names[place]), place) for place in touched]
        heapq.heapify(waiting)  # by layers, so that each job is looked at once all before it that may end have ended
        while waiting:
            _level, place = heapq.heappop(waiting)
            if letters[place] != LETTERS[S.WAITING]:
                continue
            state = self._decide(letters, place, refused)
            if state is S.WAITING:
                continue
            letters[place] = LETTERS[state]
            if state is S.READY:
                found.ready.append(place)
                continue
            found.skipped.append(Skipped(place, state, self.why(letters, place, refused)))
            for after in self._after[place]:
                if after not in touched:
                    touched.add(after)
                    heapq.heappush(waiting, (self.dag.level(self.names[after]), after))
        found.ready.sort()
        return found

    def places(self, names: Iterable[str]) -> list[int]:
        """Give the places of some jobs, in order."""
        return sorted(self.place[name] for name in names)

    def difference(self, now: Plan) -> str:
        """Say in what another plan first differs, as what has changed; empty if in nothing that matters to a run.

        Args:
            now: The other one, whose jobs may be in another order.
        """
        if new := [name for name in now.names if name not in self.dag]:
            return f"job {new[0]!r} is new"
        if gone := [name for name in self.names if name not in now.dag]:
            return f"job {gone[0]!r} is gone"
        for name in self.names:
            was, is_now = sorted(self.dag.upstream(name)), sorted(now.dag.upstream(name))
            if was != is_now:
                return f"job {name!r} waits for {_listed(is_now)}, and then waited for {_listed(was)}"
            rule_was, rule_now = self._rule(self.place[name]), now._rule(now.place[name])
            if rule_was != rule_now:
                return f"job {name!r} has the rule {rule_now}, and then had {rule_was}"
            if (name in self.branches) != (name in now.branches):
                return f"job {name!r} {'chooses' if name in now.branches else 'no longer chooses'} what follows"
        return ""

    def refused_by(self, place: int, value: object) -> list[int]:
        """List the places of the jobs that a branch did not choose, given its result.

        Raises:
            InvalidBranch: The result is no choice.
        """
        return [self.place[name] for name in not_chosen(self.dag, self.names[place], value)]

    def _decide(self, letters: list[str], place: int, refused: Mapping[int, list[int]]) -> NodeState:
        before = [letters[other] for other in self._before[place]]
        unfinished = sum(letter in UNFINISHED for letter in before)
        return decide_from_counts(
            self._rule(place),
            total=len(before),
            done=len(before) - unfinished,
            failed=sum(letter in FAILURES for letter in before),
            skipped=before.count(LETTERS[S.SKIPPED]),
            branches_left=sum(letters[other] in UNFINISHED for other in self._branches_before[place]),
            not_chosen=len(refused.get(place, ())),
        )

    def why(self, letters: str | list[str], place: int, refused: Mapping[int, list[int]]) -> str:
        """Say what a job waits for, or was skipped for: `waiting for: b, c`; empty if neither."""
        decision = decide(
            self._rule(place),
            {self.names[other]: STATES[letters[other]] for other in self._before[place]},
            branches=[self.names[other] for other in self._branches_before[place]],
            not_chosen_by=[self.names[other] for other in refused.get(place, ())],
        )
        return "" if decision.state is S.READY else str(decision)

    def _rule(self, place: int) -> TriggerRule:
        return self.rules.get(self.names[place], TriggerRule.ALL_SUCCESS)


def _take_back(letters: list[str], cleared: set[int], refused: dict[int, list[int]]) -> None:
    """Have jobs wait again, and forget what branches among them chose."""
    for place in cleared:
        letters[place] = LETTERS[S.WAITING]
    for place in list(refused):
        refused[place] = [branch for branch in refused[place] if branch not in cleared]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"
