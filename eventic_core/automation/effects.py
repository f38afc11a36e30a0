"""What items of a run did to records, in a form in which two runs can be compared: without the ids of new records.

Owns the effect, the net change of one record by one item, and how effects compare. Used by `run_diff`; what a replay
would have done compares with what was done in the same way.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from eventic_core.automation.run_changes import BOOKKEEPING, compare_rows, kind_of, postgres_store, run_history
from eventic_core.records.diff import ABSENT, Change
from eventic_core.records.documents import same_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from eventic_core.automation.run_changes import Writer
    from eventic_core.records.port import StoredVersion


@dataclass(frozen=True, slots=True)
class Effect:
    """The net change of one record by one item.

    Attributes:
        record_id: The record; `None` if the item created it, for then another run creates another one.
        values: The fields it set, `ABSENT` where it removed one; of a created record all of them, in which the ids of
            records that the item created read `<new Class>`.
    """

    class_type: str
    record_id: UUID | None
    kind: Literal["create", "update", "delete", "restore"]
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EffectDifference:
    """A record to which two runs did different things; `None` is the run that did nothing to it."""

    a: Effect | None
    b: Effect | None

    @property
    def class_type(self) -> str:
        """The record's class, by its stored name."""
        return self._some.class_type

    @property
    def record_id(self) -> UUID | None:
        """The record; `None` for one that was created."""
        return self._some.record_id

    @property
    def changes(self) -> tuple[Change, ...]:
        """The fields that the runs set differently; a run that did not set one has `ABSENT`."""
        one, other = ({} if effect is None else effect.values for effect in (self.a, self.b))
        names = sorted(one.keys() | other.keys())
        pairs = ((name, one.get(name, ABSENT), other.get(name, ABSENT)) for name in names)
        return tuple(Change(name, before, after) for name, before, after in pairs if not same_value(before, after))

    @property
    def _some(self) -> Effect:
        some = self.a or self.b
        assert some is not None
        return some

    def line(self) -> str:
        """Render it as text."""
        kinds = ["nothing" if effect is None else effect.kind for effect in (self.a, self.b)]
        kind = kinds[0] if kinds[0] == kinds[1] else " -> ".join(kinds)
        fields = "; ".join(f"{change.field} {change.before!r} -> {change.after!r}" for change in self.changes)
        return f"{self.class_type} {self.record_id or '(new)'}: {kind}" + (f"; {fields}" if fields else "")


def effects_of(writer: Writer, numbers: Sequence[int]) -> dict[int, list[Effect]]:
    """Find what some items of a run did to records, over all its attempts, in the order of writing.

    A record that an item created and deleted, or left as it was, is no effect.

    Args:
        writer: The run.
        numbers: The numbers of the items in it.
    """
    writes = run_history().item_writes(writer.workflow_ids, numbers, without=BOOKKEEPING)
    wanted = [(write.record_id, version) for write in writes for version in (write.first - 1, write.last)]
    rows = {(row.id, row.version): row for row in postgres_store().versions(wanted)}
    created: dict[int, dict[str, str]] = {}
    for write in writes:
        if write.first == 0:
            class_type = rows[write.record_id, write.last].class_type
            created.setdefault(write.number, {})[str(write.record_id)] = f"<new {class_type}>"
    found: dict[int, list[Effect]] = {}
    for write in writes:
        before, after = rows.get((write.record_id, write.first - 1)), rows[write.record_id, write.last]
        effect = _effect(before, after, created.get(write.number, {}))
        if effect is not None:
            found.setdefault(write.number, []).append(effect)
    return found


def compare_effects(a: Sequence[Effect], b: Sequence[Effect]) -> tuple[EffectDifference, ...]:
    """Compare what an item did in two runs.

    Records that were there before are matched by id. Created ones are matched with those that are equal, the others of
    a class in the order in which they were made.
    """
    changed = [{(e.class_type, e.record_id): e for e in side if e.record_id is not None} for side in (a, b)]
    pairs = [(changed[0].get(key), changed[1].get(key)) for key in dict.fromkeys([*changed[0], *changed[1]])]
    found = [(one, other) for one, other in pairs if not _equal(one, other)]
    new = [[effect for effect in side if effect.record_id is None] for side in (a, b)]
    left, right = _without_equals(*new)
    for class_type in dict.fromkeys(effect.class_type for effect in (*left, *right)):
        ones, others = ([effect for effect in side if effect.class_type == class_type] for side in (left, right))
        most = max(len(ones), len(others))
        found += zip(_padded(ones, most), _padded(others, most), strict=True)
    return tuple(EffectDifference(one, other) for one, other in found)


def _effect(before: StoredVersion | None, after: StoredVersion, created: Mapping[str, str]) -> Effect | None:
    kind = kind_of(before, after)
    if kind == "create":
        if after.stamp.tombstone:
            return None
        return Effect(after.class_type, None, kind, _anonymous(after.document, created))
    changed = compare_rows(before, after).changes if kind != "delete" else ()
    if kind == "update" and not changed:
        return None
    values = {change.field: _anonymous(change.after, created) for change in changed}
    return Effect(after.class_type, after.id, kind, values)


def _anonymous(value: Any, created: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _anonymous(inner, created) for name, inner in value.items()}
    if isinstance(value, list):
        return [_anonymous(inner, created) for inner in value]
    return created.get(value, value) if isinstance(value, str) else value


def _equal(one: Effect | None, other: Effect | None) -> bool:
    if one is None or other is None:
        return False
    return one.kind == other.kind and not EffectDifference(one, other).changes


def _without_equals(a: Sequence[Effect], b: Sequence[Effect]) -> tuple[list[Effect], list[Effect]]:
    waiting: dict[str, list[Effect]] = {}
    for effect in b:
        waiting.setdefault(_text(effect), []).append(effect)
    left = []
    for effect in a:
        if partners := waiting.get(_text(effect)):
            partners.pop(0)
        else:
            left.append(effect)
    kept = {id(effect) for effects in waiting.values() for effect in effects}
    return left, [effect for effect in b if id(effect) in kept]


def _text(effect: Effect) -> str:
    return json.dumps([effect.class_type, dict(effect.values)], sort_keys=True)


def _padded(effects: Sequence[Effect], length: int) -> list[Effect | None]:
    return [*effects, *[None] * (length - len(effects))]
