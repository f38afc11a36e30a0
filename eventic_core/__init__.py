"""Durable workflows and versioned records on Postgres.

The public names; each is loaded when first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eventic_core.app import Eventic
    from eventic_core.errors import (
        BlockingInLoop,
        ChangedOutsideScope,
        ChildRunFailed,
        ConfigurationError,
        Conflict,
        CycleFound,
        DuplicateKey,
        DuplicateRegistration,
        EndlessMap,
        EventicError,
        EvolutionError,
        HistoryRemoved,
        Invalid,
        InvalidBackfill,
        InvalidBranch,
        InvalidDag,
        InvalidFilter,
        InvalidRecord,
        InvalidRecordClass,
        InvalidSchedule,
        InvalidStateError,
        MigrationRequired,
        Nondeterminism,
        NotAllowed,
        NotFound,
        NotInitialised,
        NotLaunched,
        NotRegistered,
        NotSerialisable,
        RecordDeleted,
        RecordExists,
        RecordNotFound,
        RemoteError,
        ReplayDiverged,
        ResultTimeout,
        RunCancelled,
        RunNotFound,
        ScopeError,
        StoreUnavailable,
        UnknownJob,
        UnknownRule,
        VersionConflict,
        WriteInStep,
    )
    from eventic_core.records import (
        AsOf,
        Blame,
        Change,
        Cursor,
        Diff,
        Filter,
        Page,
        Properties,
        Query,
        Record,
        Ref,
        Stamp,
        StoredVersion,
        evented,
        plain,
    )
    from eventic_core.runtime import Handle, Queue, Retry, later, on

__version__ = "0.2.0"
__all__ = [
    "AsOf",
    "Blame",
    "BlockingInLoop",
    "Change",
    "ChangedOutsideScope",
    "ChildRunFailed",
    "ConfigurationError",
    "Conflict",
    "Cursor",
    "CycleFound",
    "Diff",
    "DuplicateKey",
    "DuplicateRegistration",
    "EndlessMap",
    "Eventic",
    "EventicError",
    "EvolutionError",
    "Filter",
    "Handle",
    "HistoryRemoved",
    "Invalid",
    "InvalidBackfill",
    "InvalidBranch",
    "InvalidDag",
    "InvalidFilter",
    "InvalidRecord",
    "InvalidRecordClass",
    "InvalidSchedule",
    "InvalidStateError",
    "MigrationRequired",
    "Nondeterminism",
    "NotAllowed",
    "NotFound",
    "NotInitialised",
    "NotLaunched",
    "NotRegistered",
    "NotSerialisable",
    "Page",
    "Properties",
    "Query",
    "Queue",
    "Record",
    "RecordDeleted",
    "RecordExists",
    "RecordNotFound",
    "Ref",
    "RemoteError",
    "ReplayDiverged",
    "ResultTimeout",
    "Retry",
    "RunCancelled",
    "RunNotFound",
    "ScopeError",
    "Stamp",
    "StoreUnavailable",
    "StoredVersion",
    "UnknownJob",
    "UnknownRule",
    "VersionConflict",
    "WriteInStep",
    "evented",
    "later",
    "on",
    "plain",
]

_RECORDS = frozenset(
    {
        "AsOf",
        "Blame",
        "Change",
        "Cursor",
        "Diff",
        "Filter",
        "Page",
        "Properties",
        "Query",
        "Record",
        "Ref",
        "Stamp",
        "StoredVersion",
        "evented",
        "plain",
    }
)

_RUNTIME = frozenset({"Handle", "Queue", "Retry", "later", "on"})


def __getattr__(name: str) -> Any:
    if name not in __all__:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    if name == "Eventic":
        return import_module("eventic_core.app").Eventic
    if name in _RUNTIME:
        return getattr(import_module("eventic_core.runtime"), name)
    return getattr(import_module("eventic_core.records" if name in _RECORDS else "eventic_core.errors"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
