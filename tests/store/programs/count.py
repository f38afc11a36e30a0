"""Raise one counter from many threads: `count.py URL ID THREADS INCREMENTS METHOD`; starts when stdin gets a line."""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter

from ledger import LedgerCounter

from eventic_core import Eventic
from eventic_core.errors import VersionConflict


def main(url: str, record_id: str, threads: int, increments: int, method: str) -> None:
    """Count commits and conflicts; any other error ends the program with its traceback."""
    Eventic.init(name="count", database_url=url)
    tally: Counter[str] = Counter()
    errors: list[BaseException] = []
    lock = threading.Lock()

    def work() -> None:
        own: Counter[str] = Counter()
        try:
            counter = LedgerCounter.hydrate(record_id)
            for _ in range(increments):
                try:
                    getattr(counter, method)()
                    own["commits"] += 1
                except VersionConflict:
                    own["conflicts"] += 1
                    counter.refresh()
        except BaseException as error:  # noqa: BLE001 - reported below
            errors.append(error)
        with lock:
            tally.update(own)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    print("ready", flush=True)  # noqa: T201 - what the test reads
    sys.stdin.readline()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    Eventic.shutdown()
    if errors:
        raise errors[0]
    print(json.dumps(tally), flush=True)  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
