"""Levels: one level of a scope's nesting, and what it is to write. Plain values; `changes` works on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from eventic_core.records.identity import Identified
    from eventic_core.records.port import Append, Work
    from eventic_core.records.stamp import Origin
    from eventic_core.records.state import Snapshot


@dataclass(slots=True)
class Pending:
    """A record changed in this scope, and how."""

    record: Identified
    reason: str | None
    origin: Origin
    delete: bool = False
    restore: bool = False
    calls: tuple[str, ...] = ()


@dataclass(slots=True)
class Unwritten:
    """What a level is to write besides its records as they are: versions that they were before, and background work."""

    sealed: list[tuple[Pending, Append]] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)


@dataclass(slots=True)
class Level:
    """One level of nesting: what it is to write, and what its records were when it first touched them."""

    reason: str | None = None
    default_reason: str | None = None
    called: tuple[UUID, str] | None = None
    unwritten: Unwritten = field(default_factory=Unwritten)
    before: dict[UUID, tuple[Snapshot, Pending | None]] = field(default_factory=dict)
    savepoint: str | None = None
    at_savepoint: list[Unwritten] = field(default_factory=list)
    """What the levels around it had still to write at its savepoint; theirs again when it is undone."""
    written_before: frozenset[UUID] = frozenset()
    undo: list[Callable[[], object]] = field(default_factory=list)
    then: list[Callable[[], object]] = field(default_factory=list)
