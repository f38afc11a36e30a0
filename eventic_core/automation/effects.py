"""What items of a run did to records, in a form in which two runs can be compared: without the ids of new records.

Owns the effect, the net change of one record by one item, and how effects compare. Used by `run_diff`; what a replay
would have done compares with what was done in the same way.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from eventic_core.automation.run_changes import BOOKKEEPING, compare_rows, kind_of, postgres_store, run_history
from eventic_core.records.diff import ABSENT, Change
from eventic_core.records.documents import same_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from eventic_core.records.port import Cursor, StoredVersion


class Net(NamedTuple):
    """A record before an item did anything to it, `None` if it did not exist, and after."""

    before: StoredVersion | None
    after: StoredVersion


@dataclass(frozen=True, slots=True)
class Effect:
    """The net change of one record by one item.

    Attributes:
        record_id: The record; `None` if the item created it, for then another run creates another one.
        values: The fields it set, `ABSENT` where it removed one; of a created record all of them, in which the ids of
            records that the item created read `<new Class>`.
        net: The versions it is made of; no part of what is compared.
    """

    class_type: str
    record_id: UUID | None
    kind: Literal["create", "update", "delete", "restore"]
    values: Mapping[str, Any]
    net: Net | None = field(default=None, compare=False, repr=False)


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


Pair = tuple[Effect | None, Effect | None]
"""What two runs did to one record; `None` is nothing."""


def effects_of(workflow_ids: Sequence[str], numbers: Sequence[int]) -> dict[int, list[Effect]]:
    """Find what some items of a run did to records, over all its attempts, in the order of writing.

    Args:
        workflow_ids: Those of the run.
        numbers: The numbers of the items in it.
    """
    return {number: effects(nets) for number, nets in nets_of(workflow_ids, numbers).items()}


def nets_of(
    workflow_ids: Sequence[str], numbers: Sequence[int], *, since: Mapping[int, Cursor] | None = None
) -> dict[int, list[Net]]:
    """Read the records that items wrote, as they were before and after; see `effects_of`.

    Args:
        workflow_ids: Those of the run.
        numbers: The numbers of the items in it.
        since: For items by number, the place in the feed after which their writes count; default all do.
    """
    writes = run_history().item_writes(workflow_ids, numbers, since=since or {}, without=BOOKKEEPING)
    wanted = [(write.record_id, version) for write in writes for version in (write.first - 1, write.last)]
    rows = {(row.id, row.version): row for row in postgres_store().versions(wanted)}
    found: dict[int, list[Net]] = {}
    for write in writes:
        before, after = (rows.get((write.record_id, version)) for version in (write.first - 1, write.last))
        if after is None or (before is None and write.first > 0):
            continue  # retention has removed one of them: what the item did to this record cannot be told any more
        net = Net(before, after)
        found.setdefault(write.number, []).append(net)
    return found


def effects(nets: Sequence[Net]) -> list[Effect]:
    """Find what one item did: a record that it created and deleted, or left as it was, is no effect."""
    created = names_of_new(nets)
    return [found for net in nets if (found := _effect(net, created)) is not None]


def names_of_new(nets: Sequence[Net]) -> dict[str, str]:
    """Give what the ids of records that an item created read in what is compared."""
    return {str(net.after.id): f"<new {net.after.class_type}>" for net in nets if net.before is None}


def compare_effects(a: Sequence[Effect], b: Sequence[Effect]) -> tuple[EffectDifference, ...]:
    """Compare what an item did in two runs; see `pair_effects`."""
    return tuple(EffectDifference(one, other) for one, other in pair_effects(a, b) if not are_equal(one, other))


def pair_effects(a: Sequence[Effect], b: Sequence[Effect]) -> list[Pair]:
    """Find what belongs together of what an item did in two runs.

    Records that were there before are matched by id. Created ones are matched with those that are equal, the others of
    a class in the order in which they were made.
    """
    changed = [{(e.class_type, e.record_id): e for e in side if e.record_id is not None} for side in (a, b)]
    pairs = [(changed[0].get(key), changed[1].get(key)) for key in dict.fromkeys([*changed[0], *changed[1]])]
    new = [[effect for effect in side if effect.record_id is None] for side in (a, b)]
    equal, left, right = _equals(*new)
    pairs += equal
    for class_type in dict.fromkeys(effect.class_type for effect in (*left, *right)):
        ones, others = ([effect for effect in side if effect.class_type == class_type] for side in (left, right))
        most = max(len(ones), len(others))
        pairs += zip(_padded(ones, most), _padded(others, most), strict=True)
    return pairs


def are_equal(one: Effect | None, other: Effect | None) -> bool:
    """Tell whether two runs did the same to a record."""
    if one is None or other is None:
        return False
    return one.kind == other.kind and not EffectDifference(one, other).changes


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """Give a value of JSON in which other texts stand for some."""
    if isinstance(value, dict):
        return {name: renamed(inner, names) for name, inner in value.items()}
    if isinstance(value, list):
        return [renamed(inner, names) for inner in value]
    return names.get(value, value) if isinstance(value, str) else value


def _effect(net: Net, created: Mapping[str, str]) -> Effect | None:
    before, after = net
    kind = kind_of(before, after)
    if kind == "create":
        if after.stamp.tombstone:
            return None
        return Effect(after.class_type, None, kind, renamed(after.document, created), net)
    changed = compare_rows(before, after).changes if kind != "delete" else ()
    if kind == "update" and not changed:
        return None
    values = {change.field: renamed(change.after, created) for change in changed}
    return Effect(after.class_type, after.id, kind, values, net)


def _equals(a: Sequence[Effect], b: Sequence[Effect]) -> tuple[list[Pair], list[Effect], list[Effect]]:
    """Match those that are equal; gives the pairs and what is left on each side."""
    waiting: dict[str, list[Effect]] = {}
    for effect in b:
        waiting.setdefault(_text(effect), []).append(effect)
    pairs: list[Pair] = []
    left = []
    for effect in a:
        if partners := waiting.get(_text(effect)):
            pairs.append((effect, partners.pop(0)))
        else:
            left.append(effect)
    kept = {id(effect) for effects in waiting.values() for effect in effects}
    return pairs, left, [effect for effect in b if id(effect) in kept]


def _text(effect: Effect) -> str:
    return json.dumps([effect.class_type, dict(effect.values)], sort_keys=True)


def _padded(effects: Sequence[Effect], length: int) -> list[Effect | None]:
    return [*effects, *[None] * (length - len(effects))]
