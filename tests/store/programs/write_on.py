"""Raise a counter by bare assignments and read it back: `write_on.py URL ID`; prints each value, ends with stdin."""

from __future__ import annotations

import sys
import threading

from ledger import LedgerCounter

from eventic_core import Eventic


def main(url: str, record_id: str) -> None:
    """Run until stdin is closed; any error ends the program."""
    Eventic.init(name="write_on", database_url=url)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    counter = LedgerCounter.hydrate(record_id)
    while not ended.is_set():
        counter.value += 1
        read = LedgerCounter.hydrate(record_id)
        if (read.value, read.version) != (counter.value, counter.version):
            message = f"wrote {counter!r}, read {read!r}"
            raise AssertionError(message)
        print(counter.value, flush=True)  # noqa: T201 - what the test reads
    Eventic.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
