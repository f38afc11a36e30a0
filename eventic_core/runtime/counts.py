"""What this process has done, counted in memory since it began: for metrics, lost when it ends.

Owns the numbers and what each means; how they are shown is in `operations.metrics`. A count costs less than a
microsecond, and however many queues there are, the number of its rows is bounded.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import Final

_MOST_ROWS: Final = 1000
_OTHER: Final = "other"
_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)


class Counter:
    """A number that only grows, for each combination of values of its labels; threads may add at the same time."""

    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        self.name = name
        self.meaning = meaning
        self.labels = labels
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, ...], int] = {}

    def add(self, *values: str, by: int = 1) -> None:
        """Add to the row of these values of the labels; once there are very many rows, to one for all others."""
        with self._lock:
            if values not in self._rows and len(self._rows) >= _MOST_ROWS:
                values = (_OTHER,) * len(self.labels)
            self._rows[values] = self._rows.get(values, 0) + by

    def read(self) -> dict[tuple[str, ...], int]:
        """Give the rows as they are now."""
        with self._lock:
            return dict(self._rows)


class Durations:
    """How long things took, in seconds, in buckets, for each value of one label."""

    def __init__(self, name: str, meaning: str, label: str) -> None:
        self.name = name
        self.meaning = meaning
        self.label = label
        self._lock = threading.Lock()
        self._rows: dict[str, tuple[list[int], list[float]]] = {}

    def add(self, value: str, seconds: float) -> None:
        """Add one that took so long."""
        with self._lock:
            buckets, total = self._rows.setdefault(value, ([0] * (len(_BOUNDS) + 1), [0.0]))
            buckets[bisect_left(_BOUNDS, seconds)] += 1
            total[0] += seconds

    def read(self) -> dict[str, tuple[list[tuple[str, int]], float]]:
        """Give to each value how many took at most so long, by the upper bound, and the sum of all."""
        with self._lock:
            rows = {value: (list(buckets), total[0]) for value, (buckets, total) in self._rows.items()}
        return {value: (_cumulated(buckets), total) for value, (buckets, total) in rows.items()}


def _cumulated(buckets: list[int]) -> list[tuple[str, int]]:
    found, sum_so_far = [], 0
    for bound, count in zip([*map(str, _BOUNDS), "+Inf"], buckets, strict=True):
        sum_so_far += count
        found.append((bound, sum_so_far))
    return found


WORK_ENDED: Final = Counter(
    "eventic_work_ended",
    "Claimed pieces of work this process is done with: done (groups and runs put to sleep among them), failed, retried "
    "(given back for another attempt), put_back (unknown here) or taken_over (by another worker meanwhile).",
    *("kind", "queue", "outcome"),
)
WORK_SECONDS: Final = Durations(
    "eventic_work_duration_seconds", "How long this process was at a claimed piece of work.", "kind"
)
ATTEMPTS: Final = Counter(
    "eventic_attempts", "Calls of items', jobs' and handlers' functions in this process.", "kind", "outcome"
)
RETRIES: Final = Counter("eventic_retries", "Attempts that failed and are made again later.", "kind")
CONFLICTS: Final = Counter(
    "eventic_conflicts", "Attempts made again at once, for somebody else wrote a record meanwhile.", "kind"
)
DEAD_LETTERS: Final = Counter("eventic_dead_letters", "Versions this process gave up on.", "handler")
TAKEN_OVER: Final = Counter("eventic_runs_taken_over", "Runs this process made ready again whose worker was dead.")

COUNTERS: Final = (WORK_ENDED, ATTEMPTS, RETRIES, CONFLICTS, DEAD_LETTERS, TAKEN_OVER)
DURATIONS: Final = (WORK_SECONDS,)
