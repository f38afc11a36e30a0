"""Versions of classes with states, before they are written: may they follow, and what do they change in counters?

The one place every write passes, whoever makes it: the state machines of the classes are asked here.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from eventic_core.errors import Invalid
from eventic_core.records.record_class import find_class

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from uuid import UUID

    from eventic_core.records.port import Append, StoredVersion
    from eventic_core.records.states import StateMachine

    Head = Callable[[UUID], StoredVersion | None]

ITEM_EXECUTION = "ItemExecution"
_FAILED = "FAILED"


class Moves:
    """The moves of some versions.

    Attributes:
        before: For each append, the state its record must have; `None` where an append before it is of the same record.
        deltas: Parameters of `part_moved_rows`.
        records: Of how many records they are.
    """

    def __init__(self, before: list[str | None], deltas: tuple[list[Any], ...], records: int) -> None:
        self.before = before
        self.deltas = deltas
        self.records = records

    @classmethod
    def of(cls, appends: Sequence[Append], head: Head) -> Moves | None:
        """Check the moves of versions; `None` if no class has states and no record has several versions.

        Args:
            appends: What is to be written, the versions of a record in a row.
            head: Reads a record's current version, for a writer who does not know its state.

        Raises:
            InvalidStateError: A new record's state is not the initial one, or one state may not follow another.
            Invalid: The versions of a record are not in a row.
        """
        machines = {kind: _machine(kind) for kind in {append.class_type for append in appends}}
        is_plain = not any(machines.values()) and not any(append.passed for append in appends)
        if is_plain and len({append.id for append in appends}) == len(appends):
            return None
        made = _Made(machines, head)
        before = [made.take(append) for append in appends]
        return cls(before, made.deltas(), made.records)


def _machine(class_type: str) -> StateMachine | None:
    known = find_class(class_type)
    machine: StateMachine | None = None if known is None else known.__eventic__.states
    if machine is None and class_type == ITEM_EXECUTION:
        raise RuntimeError("ItemExecution is not imported, so its moves would not be counted")
    return machine


class _Made:
    def __init__(self, machines: dict[str, StateMachine | None], head: Head) -> None:
        self._machines = machines
        self._head = head
        self._last: dict[int, tuple[Append, str | None, Mapping[str, Any]]] = {}
        self._checked: set[tuple[Any, ...]] = set()
        self._first: dict[int, tuple[str | None, str | None]] = {}

    def take(self, append: Append) -> str | None:
        """Check the next version; gives the state its record must have."""
        key, machine = append.id.int, self._machines[append.class_type]
        earlier = self._last.get(key)
        if earlier is not None and append.first_version != earlier[0].version + 1:
            message = f"The versions of {append.class_type} {append.id} are not in a row. Nothing was stored."
            raise Invalid(message)
        if machine is None:
            self._last[key] = (append, None, {})
            return None
        before = state = earlier[1] if earlier is not None else self._before(append, machine)
        for _reason, calls, passed in append.passed:
            state = self._check(append, machine, state, passed, calls)
        document = from_json(append.data) if append.document is None else append.document
        state = self._check(append, machine, state, document, append.calls)
        self._last[key] = (append, state, document)
        return before if earlier is None else None

    def _check(
        self, append: Append, machine: StateMachine, before: str | None, document: Mapping[str, Any], calls: str | None
    ) -> str:
        """Refuse a move that its class does not allow; gives the state after it."""
        state = str(document[machine.field])
        if (move := (append.class_type, before, state, calls)) not in self._checked:
            machine.check(append.class_type, append.id, before, state, tuple(calls.split(",")) if calls else ())
            self._checked.add(move)
        return state

    def _before(self, append: Append, machine: StateMachine) -> str | None:
        before, error = append.before, None
        is_counted = append.class_type == ITEM_EXECUTION
        version = append.first_version
        if version and (before is None or (is_counted and before == _FAILED)):
            row = self._head(append.id)
            if row is not None and row.version == version - 1:
                document = row.document
                before, error = str(document[machine.field]), document.get("error_type")
        if is_counted:
            self._first[append.id.int] = (before, error)
        return before if version else None

    @property
    def records(self) -> int:
        return len(self._last)

    def deltas(self) -> tuple[list[Any], ...]:
        """Count the moves of items' executions: to and from each status, and the errors of those that failed."""
        moved: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        failed: defaultdict[tuple[str, str], int] = defaultdict(int)
        for key, (before, error) in self._first.items():
            _append, after, document = self._last[key]
            if before == after:
                continue
            run_id, part_id = document["run_id"], document["batch_execution_id"]
            for state, kind, step in ((after, document.get("error_type"), 1), (before, error, -1)):
                if state is not None:
                    moved[run_id, part_id, state] += step
                if state == _FAILED and kind is not None:
                    failed[run_id, kind] += step
        return (*_columns(moved, 3), *_columns(failed, 2))


def _columns(counts: dict[Any, int], width: int) -> list[list[Any]]:
    rows = [(*key, count) for key, count in counts.items() if count]
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width + 1)]
