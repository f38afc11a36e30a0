"""Records: ordinary Pydantic classes whose every change is a new, immutable version.

Pure Pydantic and the store's port; imports neither SQL nor a driver nor the runtime.
"""

from __future__ import annotations

from eventic_core.records.bag import Properties
from eventic_core.records.blocking import allow_blocking
from eventic_core.records.diff import ABSENT, Blame, Change, Diff
from eventic_core.records.fields import FieldExpression, Fields
from eventic_core.records.filters import Filter
from eventic_core.records.methods import evented, plain
from eventic_core.records.port import Cursor, Store, StoredVersion, current_store, install
from eventic_core.records.query import AsOf, Page, Query
from eventic_core.records.record import Record
from eventic_core.records.record_class import declared_indexes
from eventic_core.records.refs import Ref
from eventic_core.records.stamp import Origin, Stamp, acting, running

__all__ = [
    "ABSENT",
    "AsOf",
    "Blame",
    "Change",
    "Cursor",
    "Diff",
    "FieldExpression",
    "Fields",
    "Filter",
    "Origin",
    "Page",
    "Properties",
    "Query",
    "Record",
    "Ref",
    "Stamp",
    "Store",
    "StoredVersion",
    "acting",
    "allow_blocking",
    "current_store",
    "declared_indexes",
    "evented",
    "install",
    "plain",
    "running",
]
