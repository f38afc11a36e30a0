"""What publishing a replay writes: each record as if the run had done what the replay did.

Owns what records come to. Each item has a share in a record: the fields that it set. The shares of a record are gone
through in the order in which the run wrote it; where the replay differs, the last share that sets a field decides, and
a field that none sets any more is what it was before the run. Fields in which nothing differs are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic_core import to_json

from eventic_core.automation.corrections import CHUNK_RECORDS, Correction, Pen, RecordConflict, touches_of
from eventic_core.automation.effects import effects, renamed
from eventic_core.automation.executions import item_execution_id
from eventic_core.automation.replay_findings import Share
from eventic_core.automation.run_changes import compare_rows, postgres_store, run_history
from eventic_core.automation.undo_plan import origin_of
from eventic_core.errors import EventicError
from eventic_core.records import state
from eventic_core.records.diff import ABSENT
from eventic_core.records.documents import same_value
from eventic_core.records.ids import new_id
from eventic_core.records.port import StoredVersion
from eventic_core.records.record_class import find_class
from eventic_core.records.stamp import Stamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from eventic_core.automation.corrections import Tally
    from eventic_core.automation.effects import Effect, Net
    from eventic_core.automation.replay_findings import Findings
    from eventic_core.automation.replay_items import Replayed
    from eventic_core.automation.run_changes import Writer
    from eventic_core.store.run_history import ReplaySpan

_PROPERTIES = "properties."


@dataclass(frozen=True, slots=True)
class Published:
    """What publishing a replay wrote, in numbers of records.

    Attributes:
        workflow_id: What the versions are stamped with; undoing this id takes them back.
        created: Made, because only the replay creates them.
        changed: Given other values; one that only the run deleted is back.
        tombstoned: Deleted, because only the run created them, or only the replay deletes them.
        unchanged: As wanted already, or published earlier.
        forced: Of those written, the ones that others had written too.
        conflict_count: Left as they are.
        conflicts: The first thousand of these.
    """

    workflow_id: str
    created: int = 0
    changed: int = 0
    tombstoned: int = 0
    unchanged: int = 0
    forced: int = 0
    conflict_count: int = 0
    conflicts: tuple[RecordConflict, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.workflow_id}: {self.created:,} created, {self.changed:,} changed, {self.tombstoned:,} deleted, "
            f"{self.unchanged:,} unchanged, {self.conflict_count:,} conflicts"
        )

    @classmethod
    def of(cls, tally: Tally, workflow_id: str) -> Published:
        """Make it of what was counted."""
        created, changed, deleted, same, left = (
            tally.counts[action] for action in ("create", "restore", "tombstone", "nothing", "conflict")
        )
        return cls(workflow_id, created, changed, deleted, same, tally.forced, left, tuple(tally.conflicts))


def replay_ids(writer: Writer) -> tuple[str, ...]:
    """Give what published replays of a run are stamped with, one id for each attempt of the run; the last is next."""
    return tuple(f"{writer.workflow_id}:replay-{number}" for number in range(1, len(writer.workflow_ids) + 1))


# -- shares


def shares_of(replayed: Replayed, earlier: Sequence[Net], run_id: UUID) -> list[Share]:
    """Tell what the replay of an item comes to for each record.

    Args:
        replayed: The item.
        earlier: What replays published earlier did to records for this item.
        run_id: The run.
    """
    if replayed.diverged:
        return kept_shares(replayed.number, replayed.done)
    ids = _ids(replayed, run_id)
    found = {share.record_id: share for share in (_share(replayed, one, other, ids) for one, other in replayed.pairs)}
    for net in earlier:
        record_id, names = str(net.after.id), tuple(_changes(net))
        share = found.get(record_id) or Share(
            record_id, net.after.class_type, replayed.number, net.after.version * 2, _first(net), None, {}, (), True
        )
        differing = tuple(dict.fromkeys([*share.differing, *names]))
        found[record_id] = replace(share, differing=differing, differs=True)
    return list(found.values())


def kept_shares(number: int, done: Sequence[Net]) -> list[Share]:
    """Give the shares of an item of which everything stays as it was done."""
    return [
        Share(
            str(effect.net.after.id),
            effect.class_type,
            number,
            effect.net.after.version * 2,
            _first(effect.net),
            effect.kind,
            _changes(effect.net),
            (),
            False,
        )
        for effect in effects(done)
        if effect.net is not None
    ]


def _ids(replayed: Replayed, run_id: UUID) -> dict[str, str]:
    """Say which ids new records are to have: the run's, or ones that are the same each time it is replayed."""
    ids: dict[str, str] = {}
    counts: dict[str, int] = {}
    for one, other in replayed.pairs:
        if other is None or other.net is None or other.record_id is not None:
            continue
        made = other.net.after.id
        if one is not None and one.net is not None:
            ids[str(made)] = str(one.net.after.id)
        elif made in replayed.new_ids:
            place = counts[other.class_type] = counts.get(other.class_type, 0) + 1
            ids[str(made)] = str(item_execution_id(run_id, f"{replayed.number}:{other.class_type}:{place}"))
    return ids


def _share(replayed: Replayed, one: Effect | None, other: Effect | None, ids: Mapping[str, str]) -> Share:
    some = one or other
    assert some is not None
    assert some.net is not None
    then = {} if one is None or one.net is None else _changes(one.net)
    now = {} if other is None or other.net is None else renamed(_changes(other.net), ids)
    names = [name for name in {**then, **now} if not same_value(then.get(name, ABSENT), now.get(name, ABSENT))]
    record_id, first = str(some.net.after.id), _first(some.net)
    return Share(
        ids.get(record_id, record_id),
        some.class_type,
        replayed.number,
        first * 2 - 1 if one is None else some.net.after.version * 2,
        first,
        None if other is None else other.kind,
        now,
        tuple(names),
        bool(names) or one is None or other is None or one.kind != other.kind,
    )


def _changes(net: Net) -> dict[str, Any]:
    return {change.field: change.after for change in compare_rows(*net).changes}


def _first(net: Net) -> int:
    return 0 if net.before is None else net.before.version + 1


# -- the plan


class PublishPlan:
    """What publishing would write now; nothing of it is held in memory.

    Args:
        writer: The run.
        findings: Holds the shares.
        as_of: The moment as of which the run was replayed, if it was one for all items.
        force: Whether records are written that others wrote too.
        reason: Stamped on the versions.
    """

    def __init__(
        self, writer: Writer, findings: Findings, as_of: datetime | None, *, force: bool, reason: str | None
    ) -> None:
        self.workflow_id = replay_ids(writer)[-1]
        self._findings = findings
        self._as_of = as_of
        self._family = (*writer.workflow_ids, *replay_ids(writer))
        reason = reason or f"replay of run {writer.workflow_id}"
        self._pen = Pen(origin_of(writer, self.workflow_id), reason, force)
        self._history = run_history()
        self._store = postgres_store()

    def pages(self) -> Iterator[list[Correction]]:
        """Give the corrections a chunk at a time, each as of when it is read."""
        differing = (shares for shares in self._findings.records() if any(share.differs for share in shares))
        while page := list(islice(differing, CHUNK_RECORDS)):
            yield self._corrections(page)

    def again(self, corrections: Sequence[Correction]) -> list[Correction]:
        """Plan the same records once more, as they are now."""
        return self._corrections([correction.source for correction in corrections])

    def _corrections(self, records: Sequence[list[Share]]) -> list[Correction]:
        firsts = [(UUID(shares[0].record_id), min(share.first for share in shares)) for shares in records]
        spans = self._history.replay_spans(self._family, firsts)
        touched = [(span.id, span.first - 1) for span in spans if span.others]
        touches = touches_of(touched, self._family, branch=None)
        wanted = [(span.id, span.head) for span in spans if span.head is not None]
        wanted += [(span.id, span.first - 1) for span in spans if span.first]
        rows = {(row.id, row.version): row for row in self._store.versions(wanted)}
        past = {} if self._as_of is None else self._history.versions_at([span.id for span in spans], self._as_of)
        found = []
        for span, shares in zip(spans, records, strict=True):
            head = None if span.head is None else rows[span.id, span.head]
            base = rows.get((span.id, span.first - 1)) if self._as_of is None else past.get(span.id)
            conflict = None
            if span.others:
                version = -1 if head is None else head.version
                conflict = RecordConflict(shares[0].class_type, span.id, version, touches.get(span.id, ()), span.others)
            found.append(self._correction(span, shares, head, base, conflict))
        return found

    def _correction(
        self,
        span: ReplaySpan,
        shares: list[Share],
        head: StoredVersion | None,
        base: StoredVersion | None,
        conflict: RecordConflict | None,
    ) -> Correction:
        found = Correction("nothing", shares[0].class_type, span.id, head, None, conflict, shares)
        try:
            wanted = _wanted(shares, head, base)
        except EventicError as error:  # what is stored does not fit the class
            return found.refused(error.message)
        number = [share.number for share in shares if share.differs][-1]
        return self._pen.correct(replace(found, wanted=wanted), step_id=number)


def _wanted(shares: Sequence[Share], head: StoredVersion | None, base: StoredVersion | None) -> StoredVersion | None:
    """Make what a record comes to; `None` if there is to be none."""
    is_there = base is not None and not base.stamp.tombstone
    values: dict[str, Any] = {}
    differing: dict[str, None] = {}
    for share in shares:
        is_there = (is_there or share.kind in ("create", "restore")) and share.kind != "delete"
        values.update(share.values)
        differing.update(dict.fromkeys(share.differing))
    if not is_there:
        return None
    before, wanted = _flat(base), _flat(head)
    if head is None:
        differing.update(dict.fromkeys(values))
    for name in differing:
        value = values.get(name, before.get(name, ABSENT))
        if value is ABSENT:
            wanted.pop(name, None)
        else:
            wanted[name] = value
    return _stored(shares[0], wanted)


def _flat(row: StoredVersion | None) -> dict[str, Any]:
    """Give a version's values in the form the class has today, properties by names as differences have them."""
    if row is None:
        return {}
    cls: Any = find_class(row.class_type)
    document = state.current_document(state.from_row(cls, row))
    properties = document.pop("properties", {})
    return {**document, **{_PROPERTIES + name: value for name, value in properties.items()}}


def _stored(share: Share, values: Mapping[str, Any]) -> StoredVersion:
    cls: Any = find_class(share.class_type)
    document = {name: value for name, value in values.items() if not name.startswith(_PROPERTIES)}
    properties = {name.removeprefix(_PROPERTIES): value for name, value in values.items() if name not in document}
    schema_version = cls.__eventic__.schema_version
    stamp = Stamp(new_id(), None, None, None, None, None, schema_version, datetime.now(UTC), None, 0, 0, False)
    data = to_json({**document, "properties": properties})
    return StoredVersion(UUID(share.record_id), 0, share.class_type, data, stamp)
