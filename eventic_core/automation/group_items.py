"""The items of a group: those that are still to be done, with the versions they have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from eventic_core.automation.outcomes import ItemExecutionVersions, pending
from eventic_core.automation.sequences import unpacked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventic_core.automation.declared import DeclaredAutomation
    from eventic_core.records.stamp import Origin
    from eventic_core.store.groups import GroupTable


class GroupItems:
    """The items of one group, read when they are wanted.

    Args:
        values: What the group is given by its run.
        automation: Of the run.
        origin: Whose versions their moves are.
        table: Where they are read.
    """

    def __init__(
        self, values: dict[str, Any], automation: DeclaredAutomation[Any, Any], origin: Origin, table: GroupTable
    ) -> None:
        self._values = values
        self._automation = automation
        self._origin = origin
        self._table = table
        self._numbers = range(values["first"], values["last"] + 1)
        self._is_planned = values["sequence"] is not None
        """Whether the items are planned by their places in a batch, and so may have no executions yet."""

    def gone(self, items: Sequence[ItemExecutionVersions]) -> tuple[UUID, range] | None:
        """Give the group's part and numbers if items that were planned are not among these, which are all there are."""
        if not self._is_planned or len(items) == len(self._numbers):
            return None
        return UUID(self._values["batch_execution"]), self._numbers

    def read(self, numbers: range | None = None, *, is_new: bool = False) -> list[ItemExecutionVersions]:
        """Read items that are still to be done, in order.

        Args:
            numbers: Which; default all of the group.
            is_new: Whether the group has stored nothing. Then none has begun, as a rule: who made an execution
                meanwhile, by cancelling the run say, has the slice refused.
        """
        numbers = numbers or self._numbers
        values, origin = self._values, self._origin
        fresh = self._fresh(numbers, is_new=is_new) if self._is_planned else []
        if len(fresh) == len(numbers):
            return fresh
        rows = self._table.items(UUID(values["run"]), numbers.start, numbers.stop - 1, values["only"])
        begun = [ItemExecutionVersions.of(row, origin) for row in rows]
        if values["only"] is None:  # those that wait for their time have a group of their own
            begun = [item for item in begun if item.document["due_at"] is None]
        return sorted(fresh + begun, key=lambda item: item.number)

    def _fresh(self, numbers: range, *, is_new: bool) -> list[ItemExecutionVersions]:
        """Read those that have no execution yet."""
        values, place = self._values, numbers.start - self._numbers.start
        sequence = unpacked(values["sequence"])[place : place + len(numbers)]
        if not sequence:
            return []
        number_of = dict(zip(sequence, numbers, strict=False))
        items = self._table.batch_items(UUID(values["batch"]), sequence[0], sequence[-1])
        template = pending(values["run"], values["batch_execution"], self._automation.max_attempts)
        found = [
            ItemExecutionVersions.of_fresh(item, number, template, self._origin)
            for item in items
            if (number := number_of.get(item.sequence_number)) is not None
        ]
        begun = set() if is_new else self._table.begun([item.id for item in found])
        return [item for item in found if item.id not in begun] if begun else found
