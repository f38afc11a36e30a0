"""A worker of the chaos suite: `chaos_worker.py <database URL>`; works until it is killed or told to stop.

Environment: CHAOS_CLOCK shifts this process's clock by so many seconds, EVENTIC_APP_VERSION is its version.
"""

from __future__ import annotations

import datetime as dt
import os
import signal
import sys
import threading
import time
from typing import Any

os.environ["CHAOS_URL"] = sys.argv[1]
STALLED_SECONDS = 4.0


class _AnyMoment(type):
    """What makes any datetime an instance of the class in its place."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _datetime)


_datetime = dt.datetime


def shift_clock(seconds: float) -> None:
    """Have `time` and `datetime` of this process tell another time than the server's; before anything is imported."""
    real, real_ns = time.time, time.time_ns

    class Shifted(_datetime, metaclass=_AnyMoment):
        """A datetime whose now is shifted; what it makes are ordinary ones."""

        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            return _datetime(*args, **kwargs)

        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return _datetime.fromtimestamp(real() + seconds, tz)

    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_ns() + int(seconds * 1e9)
    dt.datetime = Shifted  # type: ignore[misc]


def main() -> None:
    if clock := float(os.environ.get("CHAOS_CLOCK", "0")):
        shift_clock(clock)
    import chaos_load  # noqa: F401 - what this worker knows

    from eventic_core import Eventic
    from eventic_core.runtime import performer, presence, takeover

    # A dead or stalled one's work waits less, so that a scenario holds more deaths, and some that only seem to be.
    presence.TAKE_OVER_SECONDS, presence.BEAT_SECONDS = 1.0, 0.5
    takeover.STALLED_SECONDS = STALLED_SECONDS
    performer.UNKNOWN_SECONDS = 1.0
    Eventic.init(name="chaos", database_url=sys.argv[1], pool_size=5)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    Eventic.launch()
    sys.stdout.write("launched\n")
    sys.stdout.flush()
    stopped.wait()
    Eventic.shutdown()


if __name__ == "__main__":
    main()
