"""What a process has claimed of one queue, and how far ahead of what runs it claims.

Owns the numbers; claiming is `dispatcher`'s, doing `executor`'s, who guards them with its lock.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eventic_core.runtime.adapter import Claimed
    from eventic_core.store.work import QueueRow

_MOST_AHEAD = 256
_SHORT_SECONDS, _LONG_SECONDS = 0.1, 0.5


class QueueLoad:
    """What this process has claimed of one queue: so much runs, so much waits.

    Claims reach ahead of what may run, and the further the faster the work is done: a claim costs as much as
    a few short pieces of work, but what is claimed ahead of slow work is kept from idle workers.
    """

    def __init__(self, queue: QueueRow) -> None:
        self.queue = queue
        self.running = 0
        self.waiting: deque[Claimed] = deque()
        self.blocked_until = 0.0
        self.fruitless = 0
        self.ended = 0
        self._window = queue.per_worker
        self._claimed_at = 0.0
        self._claimed = 0

    @property
    def wanted(self) -> int:
        """How many pieces to claim now; 0 while at least half of the window is still there."""
        held = self.running + len(self.waiting)
        return 0 if held > self._window // 2 and held >= self.queue.per_worker else self._window - held

    def claimed(self, count: int, *, ended_before: int) -> None:
        """Note a claim, and learn from how long the one before it lasted.

        One that found nothing, because all lanes are busy or somebody else was quicker, is not repeated at once, unless
        a piece of work of the queue has ended since it was asked.
        """
        now = time.monotonic()
        if self._claimed >= self._window // 2 and now - self._claimed_at < _SHORT_SECONDS:
            self._window = min(self._window * 2, max(_MOST_AHEAD, self.queue.per_worker))
        elif now - self._claimed_at > _LONG_SECONDS:
            self._window = self.queue.per_worker
        self._claimed_at, self._claimed = now, count
        free = count > 0 or self.ended != ended_before
        self.fruitless = 0 if free else min(self.fruitless + 1, 4)
        self.blocked_until = 0.0 if free else now + 0.1 * 2**self.fruitless
