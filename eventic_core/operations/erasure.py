"""Erasure of a subject: the values of one record made unreadable in all its versions, and in what runs kept of them.

Owns what is done in which order, in one transaction. Where payloads are is the store's; what stands in place of values
is in `redaction`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID  # noqa: TC003 - a dataclass

from pydantic_core import to_json

from eventic_core.errors import Conflict, Invalid, NotRegistered, RecordNotFound
from eventic_core.operations.acts import OperatorAct, act_of, record_act
from eventic_core.operations.redaction import Redaction, erased_document, needles, paths_of_all
from eventic_core.records import Record, documents, state
from eventic_core.records.blocking import refuse_in_loop
from eventic_core.records.editing import current_scope, edit_scope
from eventic_core.records.ids import new_id
from eventic_core.records.port import Append, StaleWrite, installed_store
from eventic_core.records.record_class import find_class
from eventic_core.records.stamp import current_origin
from eventic_core.store.erasure import ErasureTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eventic_core.records.port import StoredVersion
    from eventic_core.store.postgres import PostgresStore
    from eventic_core.store.transaction import PostgresTransaction

_MAX_BYTES = 1 << 62
_LISTED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What an erasure overwrote, or would; never the values.

    Attributes:
        fields: The names of fields, as paths.
        versions: Of the record.
        rows: Payloads of runs and versions of items and runs, by where they are.
        left: Unfinished runs that hold the data still.
    """

    record_id: UUID
    class_type: str
    fields: list[str]
    versions: int
    rows: dict[str, int] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


class _DryRun(Exception):
    def __init__(self, erased: Erased) -> None:
        super().__init__()
        self.erased = erased


def erase(
    record_id: UUID,
    *,
    fields: Sequence[str] | None,
    values: Sequence[str] = (),
    placeholders: Mapping[str, Any] | None = None,
    leave_unfinished: bool = False,
    dry_run: bool = False,
    reason: str | None = None,
    request_key: str | None = None,
) -> Erased:
    """Overwrite values of a record in all its versions, and what ended runs kept of them, in one transaction.

    A record that is not deleted gets one more version, so that nobody who read it before can write the values back.
    In place of a value stands null if the class allows it, else the simplest value it accepts. In payloads of runs that
    wrote the record or name it, texts of its fields become `[erased]`; `values` do so wherever they are found.

    Args:
        record_id: The record; a deleted one too.
        fields: Names, or paths as `address.street`; `None` is all but ids and the state.
        values: Exact texts that runs may hold without naming the record; not noted anywhere.
        placeholders: What is to stand in place of some fields, as JSON data.
        leave_unfinished: Whether to leave unfinished runs what they hold, and say which they are.
        dry_run: Only say what would be done.
        reason: Why; stamped on the act and the version.
        request_key: With a key that was given before, tells what was done then, and does nothing.

    Raises:
        RecordNotFound: There is no such record.
        NotRegistered: This process does not know its class.
        Invalid: The class has no such field, a value is empty, or nothing simple fits in place of one.
        Conflict: An unfinished run holds the data; names some. Or the record was written meanwhile. Nothing is erased.
    """
    refuse_in_loop("erase()", "asyncio.to_thread(erase, ...)")
    if any(not value.strip() for value in values):
        message = "An empty value cannot be erased: it is everywhere. Give texts that say something."
        raise Invalid(message)
    act = None if request_key is None else act_of(request_key)
    if act is not None:
        return _told(record_id, act)
    try:
        with edit_scope():
            erasure = _Erasure(record_id, list(values), dict(placeholders or {}))
            erased = erasure.run(fields, leave_unfinished=leave_unfinished, reason=reason)
            if dry_run:
                raise _DryRun(erased)  # noqa: TRY301 - the way out of the scope that undoes it
            details = {"class": erased.class_type, "fields": erased.fields, "versions": erased.versions}
            details |= {"rows": erased.rows, "left": erased.left}
            record_act("records.erase", str(record_id), reason=reason, request_key=request_key, **details)
            return erased
    except _DryRun as found:
        return found.erased


def _told(record_id: UUID, act: OperatorAct) -> Erased:
    if (act.act, act.target) != ("records.erase", str(record_id)):
        message = f"This request key was given for {act.act} of {act.target}. Choose another key."
        raise Conflict(message)
    done: dict[str, Any] = {name: act.details[name] for name in ("fields", "versions", "rows", "left")}
    return Erased(record_id=record_id, class_type=str(act.details["class"]), **done)


class _Erasure:
    """One erasure, in the open scope's transaction."""

    def __init__(self, record_id: UUID, values: list[str], placeholders: dict[str, Any]) -> None:
        scope = current_scope()
        assert scope is not None
        self._store = cast("PostgresStore", installed_store())
        self._tx = cast("PostgresTransaction", scope.direct_transaction())
        self._table = ErasureTable(self._store, self._tx)
        self._id, self._values, self._placeholders = record_id, values, placeholders

    def run(self, fields: Sequence[str] | None, *, leave_unfinished: bool, reason: str | None) -> Erased:
        """Do all of it; see `erase`."""
        self._table.hold(self._id)
        rows = self._store.history(self._id, limit=None, before=None, tx=self._tx)
        if not rows:
            message = f"No record {self._id} is stored. Check the id; `eventic run get` and the change feed name ids."
            raise RecordNotFound(message)
        cls = _class_of(rows[0])
        paths = self._paths(cls, rows, fields)
        changed, texts = self._documents(cls, rows, paths)
        redaction = Redaction(self._id, [path.split(".")[0] for path in paths], texts, self._values)
        runs, left = self._holders(rows)
        if left and not leave_unfinished:
            named = ", ".join(left[:_LISTED]) + (" and more" if len(left) > _LISTED else "")
            message = (
                f"Unfinished runs hold data of {cls.__name__} {self._id}: {named}. Wait until they have ended, or "
                "cancel them; or leave them what they hold with --leave-unfinished, and erase again later. Nothing "
                "was erased."
            )
            raise Conflict(message)
        if changed and not rows[0].stamp.tombstone:
            # Also where the current one has nothing of it: who is about to go back to an earlier one must conflict.
            self._append(cls, rows[0], dict(changed).get(rows[0].version, rows[0].data), reason)
        self._table.overwrite(self._id, changed)
        counts = self._payloads(redaction, runs, left)
        counts |= self._parts(redaction, runs, left)
        return Erased(
            record_id=self._id,
            class_type=rows[0].class_type,
            fields=paths,
            versions=len(changed),
            rows=counts,
            left=left,
        )

    def _paths(self, cls: type[Record], rows: Sequence[StoredVersion], fields: Sequence[str] | None) -> list[str]:
        if fields is None:
            return list(dict.fromkeys(path for row in rows for path in paths_of_all(cls, row.document)))
        known = set(cls.model_fields).union(*(row.document for row in rows))
        unknown = [path for path in fields if path.split(".")[0] not in known]
        if unknown or not fields:
            missing = f"{cls.__name__} has no field {unknown[0]!r}" if unknown else "No field is named"
            message = f"{missing}. Its fields are {', '.join(sorted(known))}. Nothing was erased."
            raise Invalid(message)
        return list(dict.fromkeys(fields))

    def _documents(
        self, cls: type[Record], rows: Sequence[StoredVersion], paths: Sequence[str]
    ) -> tuple[list[tuple[int, str]], list[str]]:
        """Make the documents of the versions that change, and list the texts that stood in them."""
        changed: list[tuple[int, str]] = []
        texts: list[str] = []
        for row in rows:
            document, found = erased_document(cls, row, paths, self._placeholders)
            texts += found
            if document != row.document:
                changed.append((row.version, to_json(document).decode()))
        return changed, texts

    def _append(self, cls: type[Record], head: StoredVersion, data: str | bytes, reason: str | None) -> None:
        """Add a version without the values: who read the one before can write nothing on top of it."""
        record = state.from_row(cls, head._replace(data=data))
        document, origin = documents.dump(record, max_bytes=_MAX_BYTES), current_origin()
        append = Append(
            id=self._id,
            version=head.version + 1,
            class_type=head.class_type,
            data=document,
            schema_version=cls.__eventic__.schema_version,
            actor=origin.actor,
            reason=reason or "records.erase",
            correlation_id=origin.correlation_id,
            workflow_id=None,
            step_id=None,
            tombstone=False,
            keys=state.unique_keys(record, document),
            version_id=new_id(),
            before=state.stored_state(record),
        )
        try:
            self._store.append([append], self._tx)
        except StaleWrite as error:
            message = f"{cls.__name__} {self._id} was written meanwhile. Erase again; nothing was erased."
            raise Conflict(message) from error

    def _holders(self, rows: Sequence[StoredVersion]) -> tuple[list[str], list[str]]:
        """Find the runs that wrote the record or name it, and the unfinished ones that hold data of it."""
        wrote = {row.stamp.workflow_id for row in rows if row.stamp.workflow_id is not None}
        own, every = needles([str(self._id)]), needles([str(self._id), *self._values])
        found = [one for one in self._table.payloads(every) if one.place.is_of_run]
        runs = wrote | {one.owner for one in found if any(needle in one.text for needle in own)}
        holders = runs | {one.owner for one in found}
        unfinished = set(self._table.unfinished(sorted(holders)))
        unfinished |= {part.unfinished for part in self._table.parts(every, sorted(runs)) if part.unfinished}
        return sorted(runs), sorted(unfinished)

    def _payloads(self, redaction: Redaction, runs: Sequence[str], left: Sequence[str]) -> dict[str, int]:
        own, spared = {*runs, str(self._id)}, set(left)
        return self._table.rewrite(
            needles([str(self._id), *self._values]),
            [*runs, str(self._id)],  # a dead letter is the record's own
            lambda found: None if found.owner in spared else redaction.apply(found.text, is_own=found.owner in own),
        )

    def _parts(self, redaction: Redaction, runs: Sequence[str], left: Sequence[str]) -> dict[str, int]:
        """Overwrite what items, executions, jobs and runs hold, as versions of their own."""
        own, spared = set(runs), set(left)
        changed: dict[UUID, list[tuple[int, str]]] = {}
        counts: dict[str, int] = {}
        for part in self._table.parts(needles([str(self._id), *self._values]), runs):
            is_own = part.class_type == "JobRun" and part.run_id in own
            if part.id == self._id or part.unfinished in spared:
                continue
            text = redaction.apply(part.text, is_own=is_own)
            if text is not None:
                changed.setdefault(part.id, []).append((part.version, text))
                counts[part.class_type] = counts.get(part.class_type, 0) + 1
        for record_id, versions in changed.items():
            self._table.overwrite(record_id, versions)
        return counts


def _class_of(row: StoredVersion) -> type[Record]:
    cls: type[Record] | None = find_class(row.class_type)
    if cls is None:
        message = (
            f"This process does not know the class {row.class_type} of record {row.id}, and so not what may stand in "
            "place of its values. Name the module that defines it with --app MODULE or EVENTIC_APP."
        )
        raise NotRegistered(message)
    return cls
