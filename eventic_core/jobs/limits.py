"""Limits that hold for a job over all workers together, and the queue of its own that keeps them."""

from __future__ import annotations

from dataclasses import dataclass

from eventic_core.errors import Invalid
from eventic_core.runtime.queues import Queue


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What `@job` says of how many of a job's runs are done at a time, or in a time.

    Attributes:
        concurrency: Runs of the job that all workers together do at a time.
        rate: `(runs, seconds)` that all workers together begin at most.
        queue: A queue whose limits the job shares with whatever else lies on it.

    Raises:
        Invalid: With one of them nothing would ever run, or a queue and other limits are given.
    """

    concurrency: int | None = None
    rate: tuple[int, float] | None = None
    queue: Queue | None = None

    def __post_init__(self) -> None:
        if self.concurrency is not None and self.concurrency < 1:
            message = f"job(concurrency={self.concurrency}): with less than 1 it would never run. Say 1 or more."
            raise Invalid(message)
        if self.rate is not None and (self.rate[0] < 1 or self.rate[1] <= 0):
            message = f"job(rate={self.rate!r}): say how many runs, 1 or more, begin in how many seconds, above 0."
            raise Invalid(message)
        if self.queue is not None and (self.concurrency is not None or self.rate is not None):
            message = (
                f"job(queue={self.queue.name!r}): its limits are those of the queue. Say others there, or no queue."
            )
            raise Invalid(message)

    def queue_called(self, name: str) -> Queue:
        """Give the queue that keeps the limits: the chosen one, or one of the job's own under this name."""
        return self.queue or Queue(name, limit=self.concurrency, rate=self.rate)


def limits_of(*, concurrency: int | None, rate: tuple[int, float] | None, queue: Queue | None) -> Limits | None:
    """Give the limits, `None` where nothing is said; raises as `Limits`."""
    if concurrency is None and rate is None and queue is None:
        return None
    return Limits(concurrency=concurrency, rate=rate, queue=queue)
