"""Dead letters, for operators: tried again and discarded, each act on record in its transaction.

What happens to them is `runtime.dead_letters`'. A program that calls `Eventic.dead_letters` itself leaves no act: it is
no operator, and the letter says who settled it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventic_core.operations.acts import act_of, operating, record_act
from eventic_core.runtime import dead_letters
from eventic_core.runtime.queues import Handle

if TYPE_CHECKING:
    from uuid import UUID

__all__ = ["discard_letter", "retry_letter"]


def retry_letter(letter_id: UUID, *, reason: str | None = None, request_key: str | None = None) -> Handle[None]:
    """Let a worker handle a version once more.

    Args:
        letter_id: Of an open letter.
        reason: Why; noted with the act.
        request_key: Given again, nothing is done again.

    Returns:
        The handle of the run that does it.

    Raises:
        NotFound: There is no such letter.
        Conflict: It is not open.
    """
    letters = dead_letters.prepared([letter_id])
    with operating("retry_letter()", request_key) as tx:
        if tx is not None:
            (handle,) = dead_letters.retry_in(letters, tx)
            details = {"handler": letters[0].handler, "run_id": handle.id}
            record_act("dead_letter.retry", str(letter_id), reason=reason, request_key=request_key, **details)
            return handle
    done = act_of(request_key or "")
    assert done is not None
    return Handle(str(done.details["run_id"]))


def discard_letter(letter_id: UUID, *, reason: str | None = None, request_key: str | None = None) -> None:
    """Give a version up for good; arguments and errors as of `retry_letter`."""
    letters = dead_letters.prepared([letter_id])
    with operating("discard_letter()", request_key) as tx:
        if tx is not None:
            dead_letters.discard_in(letters, tx)
            details = {"handler": letters[0].handler}
            record_act("dead_letter.discard", str(letter_id), reason=reason, request_key=request_key, **details)
