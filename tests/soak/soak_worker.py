"""A worker of the soak: `soak_worker.py <database URL>`; for each line on stdin it says how much it holds on to.

With SOAK_TRACE in the environment it also notes, each time, of which types there are more objects than the first time.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from collections import Counter

import soak_load  # noqa: F401 - what this worker knows

from eventic_core import Eventic

POOL_SIZE = 4
_TRACE = "SOAK_TRACE" in os.environ


def held() -> dict[str, int]:
    """Count what a leak would add to, garbage left out; what was there at the launch does not count as an object."""
    gc.collect()
    return {
        "objects": len(gc.get_objects()),
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0,  # noqa: PTH112, PTH208
    }


def main() -> None:
    Eventic.init(name="soak", database_url=sys.argv[1], pool_size=POOL_SIZE)
    Eventic.launch()
    print("launched", flush=True)  # noqa: T201 - what the soak waits for
    first: Counter[str] = Counter()
    for _ in sys.stdin:
        print(json.dumps(held()), flush=True)  # noqa: T201 - the answer
        if _TRACE:
            types = Counter(type(each).__qualname__ for each in gc.get_objects())
            sys.stderr.write(f"TRACE {(types - first).most_common(12)}\n")
            sys.stderr.flush()
            first = first or types
    Eventic.shutdown()


if __name__ == "__main__":
    main()
