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
        ConfigurationError,
        Conflict,
        DuplicateKey,
        DuplicateRegistration,
        EventicError,
        EvolutionError,
        Invalid,
        InvalidFilter,
        InvalidRecord,
        InvalidRecordClass,
        MigrationRequired,
        NotAllowed,
        NotFound,
        NotInitialised,
        RecordDeleted,
        RecordExists,
        RecordNotFound,
        ScopeError,
        StoreUnavailable,
        VersionConflict,
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

_ERRORS = (
    "BlockingInLoop",
    "ChangedOutsideScope",
    "ConfigurationError",
    "Conflict",
    "DuplicateKey",
    "DuplicateRegistration",
    "EventicError",
    "EvolutionError",
    "Invalid",
    "InvalidFilter",
    "InvalidRecord",
    "InvalidRecordClass",
    "MigrationRequired",
    "NotAllowed",
    "NotFound",
    "NotInitialised",
    "RecordDeleted",
    "RecordExists",
    "RecordNotFound",
    "ScopeError",
    "StoreUnavailable",
    "VersionConflict",
)
_RECORDS = (
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
)
_HOMES = {
    "Eventic": "eventic_core.app",
    **dict.fromkeys(_ERRORS, "eventic_core.errors"),
    **dict.fromkeys(_RECORDS, "eventic_core.records"),
}

__version__ = "0.1.0"
__all__ = [  # noqa: PLE0604 - the names above, in one place
    "Eventic",
    *_ERRORS,
    *_RECORDS,
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
