"""What came of an attempt, as versions of the item's execution: one for each move of its status.

Pure: documents in, documents out. When they are written, and with what, is decided in `group`.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from uuid import UUID

from pydantic_core import from_json, to_json

from eventic_core.automation.executions import ItemExecution, item_execution_id
from eventic_core.automation.status import ExecutionStatus
from eventic_core.automation.steering import Cancel, Skip, Snooze
from eventic_core.records.ids import new_id
from eventic_core.records.port import Append, Passed
from eventic_core.runtime.error_values import clean, text_of

if TYPE_CHECKING:
    from eventic_core.automation.item import Outcome
    from eventic_core.automation.retries import Retried
    from eventic_core.records.stamp import Origin
    from eventic_core.store.groups import BatchItem, GroupItem

S = ExecutionStatus
IN_GROUP_SECONDS = 0.05
"""A retry that is due sooner is made by the group itself; a later one by a group of its own, when it is time."""


_NOT_STORED = -1
_PROCESSING = S.PROCESSING.value
WORKER_DIED = "WorkerDied"
"""The class of error of an item that kills its workers."""
_LEAST_DEATHS = 2
"""Times a worker dies over an item before that is the item's fault, however few attempts it has."""


class Next(NamedTuple):
    """When an item is to be done again, by `time.monotonic()`; in a group of its own if it is `late`."""

    due: float
    late: bool


class ItemExecutionVersions:
    """The execution of one item as its moves go on, from the version that is stored.

    Attributes:
        document: Its values with its last move.
        following: When it is to be done again, if it is.
    """

    stored_as: ClassVar[Any] = ItemExecution.__eventic__
    """The record class of the versions; the runs of jobs have the same fields for what comes of an attempt."""
    __slots__ = (
        "_append",
        "_data",
        "_moves",
        "_origin",
        "_stored",
        "_version",
        "document",
        "following",
        "id",
        "item_id",
        "number",
        "payload",
    )

    def __init__(
        self,
        execution_id: UUID,
        document: dict[str, Any],
        payload: Any,
        *,
        item_id: UUID,
        version: int,
        origin: Origin,
    ) -> None:
        self.id = execution_id
        self.item_id = item_id
        self.payload = payload
        self.number = int(document["number"])
        self.document = document
        self.following: Next | None = None
        self._stored = document
        self._version = version
        self._origin = origin
        self._moves: list[Passed] = []
        self._data: bytes | None = None
        self._append: Append | None = None

    @classmethod
    def of(cls, item: GroupItem, origin: Origin) -> ItemExecutionVersions:
        """Go on with a stored execution."""
        document = from_json(item.data)
        item_id = UUID(document["item_id"])
        return cls(item.id, document, item.payload, item_id=item_id, version=item.version, origin=origin)

    @classmethod
    def of_fresh(cls, item: BatchItem, number: int, template: dict[str, Any], origin: Origin) -> ItemExecutionVersions:
        """Make the execution of an item that has none yet; `template` is what all of them are when they are pending."""
        item_id = str(item.id)
        document = {**template, "item_id": item_id, "number": number}
        execution_id = item_execution_id(template["run_id"], item_id)
        return cls(execution_id, document, from_json(item.payload), item_id=item.id, version=_NOT_STORED, origin=origin)

    @property
    def is_fresh(self) -> bool:
        """Whether no version of it is stored."""
        return self._version == _NOT_STORED

    @property
    def version(self) -> int:
        """The version it has with its last move."""
        return self._version + len(self._moves)

    @property
    def status(self) -> str:
        """The status it has with its last move."""
        return str(self.document["status"])

    @property
    def has_ended(self) -> bool:
        """Whether that status is a last one."""
        return ExecutionStatus(self.status).is_finished

    @property
    def attempts(self) -> int:
        """Attempts so far."""
        return int(self.document["attempt_count"])

    # -- what there is to store

    @property
    def unsaved(self) -> int:
        """How many moves are not stored yet."""
        return len(self._moves)

    @property
    def versions(self) -> list[Append]:
        """What stores the moves that are not stored yet: one append, of all of them, or none."""
        if self._moves and self._append is None:
            *passed, (reason, calls, document) = self._moves
            origin = self._origin
            self._append = Append(
                self.id,
                self.version,
                self.stored_as.class_type,
                to_json(document) if self._data is None else self._data,
                self.stored_as.schema_version,
                origin.actor,
                reason,
                origin.correlation_id,
                origin.workflow_id,
                self.number,
                False,
                (),
                new_id(),
                calls,
                self._stored["status"],
                document,
                tuple(passed),
            )
        return [] if self._append is None else [self._append]

    def stored(self) -> None:
        """What there was to store is stored."""
        self._version = self.version
        self._stored = self.document
        self._moves = []
        self._append = None

    def forget(self, *, but: int = 0) -> None:
        """Take back all but the first of the moves that are not stored."""
        if len(self._moves) > but:
            del self._moves[but:]
            self.document = dict(self._moves[-1].document) if but else self._stored
            self._data = self._append = None

    # -- moves

    def begin(self) -> datetime:
        """An attempt begins; the first one of a new execution after its pending version. Gives the moment."""
        self.pend()
        moment = datetime.now(UTC)
        steps = {"steps": None} if self.document.get("steps") else {}
        before = self.document
        document = {
            **before,
            "status": _PROCESSING,
            "attempt_count": before["attempt_count"] + 1,
            "started_at": moment,
            "finished_at": None,
            "due_at": None,
            **steps,
            **self._anew(),
        }
        self._note("start", "start", document, None)
        return moment

    def _anew(self) -> dict[str, Any]:
        """Give the other values with which an attempt begins."""
        return {}

    def pend(self) -> None:
        """Make the pending version of an execution that is new."""
        if self._version == _NOT_STORED and not self._moves:
            self._note("start", None, self.document, None)

    def end(self, outcome: Outcome, automation: Retried) -> None:
        """An attempt has ended; `following` tells when there is to be another one.

        Raises:
            ValueError, OverflowError: JSON cannot hold what came of it; nothing has moved.
        """
        self.following = None
        moment = datetime.now(UTC)
        # It may have been called again since it began, on what others wrote: a replay reads the records of that moment.
        of_call = {"started_at": outcome.began_at, **self._steps(outcome.steps)}
        if outcome.error is not None:
            self._fail(outcome.error, automation, moment, of_call)
            return
        match outcome.result:
            case Snooze(seconds):
                due_at = self._follow(moment, seconds)
                self._move("snooze", S.RETRYING, attempt_count=self.attempts - 1, due_at=due_at, **of_call)
            case Cancel(reason):
                self._move("cancel", S.CANCELLED, error_message=_clean(reason), finished_at=moment, **of_call)
            case Skip(reason):
                self._move("skip", S.SKIPPED, error_message=_clean(reason), finished_at=moment, **of_call)
            case result:
                self._move("complete", S.COMPLETED, result_payload=result, finished_at=moment, **of_call)

    def _fail(
        self,
        error: BaseException,
        automation: Retried,
        moment: datetime,
        of_call: dict[str, Any],
    ) -> None:
        """An attempt failed: to be made again if the error's policy has attempts left, else for good."""
        policy = automation.retry_for(error)
        most = self.document["max_attempts"]
        earlier = 0 if most is None else most - automation.max_attempts  # of attempts of the run before this one
        what = {"error_message": _text(error), "error_type": type(error).__name__, **of_call}
        if self.attempts - earlier >= policy.max_attempts:
            self._move("fail", S.FAILED, **what, finished_at=moment)
            return
        due_at = self._follow(moment, policy.delay_after(max(self.attempts - earlier, 1)))
        self._move("fail", S.RETRYING, **what, due_at=due_at)

    def _steps(self, steps: list[dict[str, Any]]) -> dict[str, Any]:
        """Give the value that keeps an attempt's steps; none where there are none, and were none before."""
        return {"steps": steps or None} if steps or self.document.get("steps") else {}

    def _follow(self, moment: datetime, seconds: float) -> datetime | None:
        """Note when the next attempt is due; gives that moment if it is too late for this group."""
        late = seconds > IN_GROUP_SECONDS
        self.following = Next(time.monotonic() + seconds, late)
        return moment + timedelta(seconds=seconds) if late else None

    def survived(self, *, is_chance: bool) -> bool:
        """A worker died while it was being tried; tells whether it may be tried again, else it has failed.

        If that may be chance, for the worker did other things too, it cost no attempt.
        """
        died = self.attempts
        message = f"The worker died {died} times over this."
        what: dict[str, Any] = {"error_message": message, "error_type": WORKER_DIED, "due_at": None}
        if is_chance:
            what |= {"error_message": "The worker died.", "attempt_count": died - 1}
        elif died >= max(self.document["max_attempts"] or 1, _LEAST_DEATHS):
            self._move("fail", S.FAILED, **what, finished_at=datetime.now(UTC))
            return False
        self._move("fail", S.RETRYING, **what)
        return True

    def _move(self, call: str, status: ExecutionStatus, **values: Any) -> None:
        self._change(call, call, {**self.document, **values, "status": status.value})

    def _change(self, reason: str, calls: str | None, document: dict[str, Any]) -> None:
        self._note(reason, calls, document, to_json(document))  # which may refuse it: nothing has moved then

    def _note(self, reason: str, calls: str | None, document: dict[str, Any], data: bytes | None) -> None:
        """Add a move; `data` are its values as JSON where it was made already."""
        self._moves.append(Passed(reason, calls, document))
        self.document = document
        self._data = data
        self._append = None


def pending(run_id: str, batch_execution_id: str, max_attempts: int | None) -> dict[str, Any]:
    """Give what all executions of a batch in a run are before they begin; `store/sql/pend_items.sql` makes the same."""
    return {
        "run_id": run_id,
        "batch_execution_id": batch_execution_id,
        "status": S.PENDING.value,
        "started_at": None,
        "finished_at": None,
        "due_at": None,
        "attempt_count": 0,
        "max_attempts": max_attempts,
        "result_payload": None,
        "error_message": None,
        "error_type": None,
        "properties": {},
    }


def _text(error: BaseException) -> str:
    """Give an error's text, or what else there is to say of it, as Postgres can store it."""
    text = text_of(error)
    return clean(
        repr(error) if text == "" else f"{type(error).__name__}, whose text cannot be had" if text is None else text
    )


def _clean(reason: str | None) -> str | None:
    return None if reason is None else clean(str(reason))
