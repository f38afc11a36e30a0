"""Differences between versions: what changed, as RFC 6902 patches, and which version set each value.

Pure functions of decoded documents and stamps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jsonpatch

from eventic_core.records import documents

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from eventic_core.records.stamp import Stamp


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"

    def __reduce__(self) -> str:
        return "ABSENT"  # the name of the one there is, also for copies and in pickles


ABSENT: Any = _Absent()
"""Stands for "no such field or property" on one side of a change."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field (or `properties.<name>`) that differs; a side without it holds `ABSENT`."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Diff:
    """What leads from one version to another; empty (and false) when nothing does.

    Attributes:
        before: The version compared from.
        after: The version compared to.
        changes: Fields that differ, by name; a nested value is one change.
        patch: The same as an RFC 6902 JSON Patch from one document to the other.
    """

    before: int
    after: int
    changes: tuple[Change, ...]
    patch: tuple[dict[str, Any], ...]

    def __bool__(self) -> bool:
        return bool(self.changes)


def compare(before: tuple[int, dict[str, Any]], after: tuple[int, dict[str, Any]]) -> Diff:
    """Compare two `(version, document)` pairs."""
    (old_version, old), (new_version, new) = before, after
    names = documents.changed_fields(old, new)
    changes = tuple(Change(name, _value(old, name), _value(new, name)) for name in names)
    patch = jsonpatch.make_patch(old, new).patch if changes else []
    return Diff(old_version, new_version, changes, tuple(patch))


def _value(document: dict[str, Any], name: str) -> Any:
    if name.startswith("properties."):
        return (document.get("properties") or {}).get(name.removeprefix("properties."), ABSENT)
    return document.get(name, ABSENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """Which version set a field to the value it has now, and who wrote that version, why and in which step."""

    version: int
    value: Any
    actor: str | None
    reason: str | None
    correlation_id: str | None
    workflow_id: str | None
    step_id: int | None
    recorded_at: datetime


def blame(versions: Iterable[tuple[int, dict[str, Any], Stamp]]) -> dict[str, Blame]:
    """Find, for each field and property of the last version, the version that set its value.

    Args:
        versions: Every version of one record, oldest first.
    """
    found: dict[str, Blame] = {}
    previous: dict[str, Any] = {}
    for version, document, stamp in versions:
        for name in documents.changed_fields(previous, document):
            value = _value(document, name)
            if value is ABSENT:
                found.pop(name, None)
            else:
                found[name] = Blame(
                    version=version,
                    value=value,
                    actor=stamp.actor,
                    reason=stamp.reason,
                    correlation_id=stamp.correlation_id,
                    workflow_id=stamp.workflow_id,
                    step_id=stamp.step_id,
                    recorded_at=stamp.recorded_at,
                )
        previous = document
    return found
