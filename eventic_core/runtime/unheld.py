"""Unheld work: claimed in this process's name, and neither done, nor waiting, nor about to be stored here.

A net below the executor: such work would wait for the end of this process, and everything behind it in its lane. It is
given back, with a warning, for the reason deserves to be found.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from eventic_core.runtime import functions
from eventic_core.runtime.performer import is_own

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventic_core.store import PostgresStore
    from eventic_core.store.slots import Slot

_log = logging.getLogger("eventic")


class UnheldWork:
    """Looks for it, from one thread.

    Args:
        store: Where the work is.
        is_held: Tells whether this process has a run, by its id and the token of its claim.
    """

    def __init__(self, store: PostgresStore, is_held: Callable[[str, str], bool]) -> None:
        self._store = store
        self._is_held = is_held
        self._seen: frozenset[tuple[str, str]] = frozenset()

    def give_back(self, slot: Slot) -> list[str]:
        """Give back what was not held at the last look, nor is at this one; gives the ids of the runs.

        Two looks, because work is nobody's for a moment between its claim and the executor, and at its end.
        """
        found = [(run, owner) for run, owner, name in self._store.work.claims_held(slot) if _is_done_here(name)]
        unheld = frozenset(claim for claim in found if not self._is_held(*claim))
        lost, self._seen = sorted(unheld & self._seen), unheld
        if lost:
            self._store.work.release(lost, slot)  # waits for no lock: this thread also says that we are alive
            runs = [run for run, _owner in lost]
            _log.warning(
                "gave %s runs back that were claimed and lost", len(runs), extra={"action": "unheld", "runs": runs}
            )
        return [run for run, _owner in lost]


def _is_done_here(name: str) -> bool:
    """Tell whether work of a name is done by the executor; async workflows are DBOS's, which stores their ends late."""
    known = functions.known(name)
    return is_own(name) or (known is not None and not known.is_async)
