"""Workers, for operators: who they are, and asking one to end.

A worker hears what is asked of it with its next beat, two seconds later at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventic_core.errors import InvalidFilter, NotFound
from eventic_core.operations.acts import operating, record_act
from eventic_core.records.blocking import refuse_in_loop
from eventic_core.records.port import installed_store
from eventic_core.store.workers import WorkerRow

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["WorkerRow", "drain_workers", "list_workers"]


def list_workers(*, ended: bool = False, limit: int = 100) -> list[WorkerRow]:
    """List the workers of the connected database: those that are alive, then those that ended, the latest first.

    Args:
        ended: Whether to list those that ended within a week, too: `stopped`, or `lost` and taken over from.
        limit: How many at most, 1 or more.

    Raises:
        InvalidFilter: The limit is below 1.
    """
    refuse_in_loop("list_workers()", "asyncio.to_thread(list_workers)")
    if limit < 1:
        message = f"limit={limit}: a page of workers holds at least one."
        raise InvalidFilter(message)
    store: Any = installed_store()
    found: list[WorkerRow] = store.workers.all(ended=ended, limit=limit)
    return found


def drain_workers(slots: Iterable[str], *, reason: str | None = None, request_key: str | None = None) -> list[str]:
    """Ask workers to end as by SIGTERM: they claim nothing more, give back what has not begun and end what has.

    A process of `eventic worker` then ends; another one, such as a web server, goes on without working. It is one
    transaction, with an `OperatorAct`.

    Args:
        slots: As `list_workers` names them; all are asked, or none.
        reason: Why; noted with the acts.
        request_key: Given again, nothing is asked again.

    Returns:
        The slots asked.

    Raises:
        NotFound: No worker that is alive has one of the slots.
    """
    wanted = sorted(set(slots))
    store: Any = installed_store()
    with operating("drain_workers()", request_key) as tx:
        if tx is None:
            return wanted
        asked = store.workers.ask_drain(wanted, tx)
        if missing := [slot for slot in wanted if slot not in asked]:
            message = (
                f"No worker that is alive has the slot {', '.join(missing)}: see `eventic worker list`. None was asked."
            )
            raise NotFound(message)
        record_act("worker.drain", ", ".join(wanted), reason=reason, request_key=request_key)
    return wanted
