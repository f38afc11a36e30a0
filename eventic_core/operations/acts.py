"""The acts of operators, on record: what was done to what, by whom, why, and what came of it.

Owns the record and how it is written. What an act does is in the module of the act.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import Field, JsonValue

from eventic_core.errors import DuplicateKey
from eventic_core.records import Record, acting
from eventic_core.records.editing import edit_scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventic_core.store.transaction import PostgresTransaction


class OperatorAct(Record, unique=["request_key"]):
    """One act; its version says who did it, when and why (`actor`, `recorded_at`, `reason`).

    Attributes:
        act: What was done: `queue.pause`, `records.erase`.
        target: To what: the name of a queue, the id of a record.
        details: What else was asked for, and what came of it. Never what an erasure removed.
        request_key: Given by who asked, so that asking twice does it once; `None` asks each time anew.
    """

    act: str
    target: str
    details: dict[str, JsonValue] = Field(default_factory=dict)
    request_key: str | None = None


def record_act(
    act: str, target: str, *, reason: str | None = None, request_key: str | None = None, **details: Any
) -> OperatorAct:
    """Put an act on record, in the open transaction or unit of work if there is one: with what it did, or not at all.

    Args:
        act: What was done.
        target: To what.
        reason: Why; stamped on the version.
        request_key: As of `OperatorAct`.
        details: As of `OperatorAct`; JSON.

    Raises:
        DuplicateKey: An act with this request key is on record: it was done. Look it up with `act_of`.
    """
    with acting(reason=reason or act):
        return OperatorAct(act=act, target=target, details=details, request_key=request_key)


def act_of(request_key: str) -> OperatorAct | None:
    """Find the act that was done for a request key."""
    return OperatorAct.where(OperatorAct.fields.request_key == request_key).first()


@contextmanager
def operating(call: str, request_key: str | None) -> Iterator[PostgresTransaction | None]:
    """Open the transaction of one act, or join the open one; gives `None` in place of it if the act was done already.

    What the block does and the act it records commit together. Of two that ask at once with one request key, one does
    it: the other's block is undone, and it goes on after it as if it had found the act.

    Args:
        call: What the operator called, for the error in an event loop.
        request_key: As of `OperatorAct`.
    """
    if request_key is not None and act_of(request_key) is not None:
        yield None
        return
    try:
        with edit_scope(call=call, instead=f"asyncio.to_thread of {call}") as scope:
            tx: Any = scope.direct_transaction()
            yield tx
    except DuplicateKey:
        if request_key is None or act_of(request_key) is None:
            raise
