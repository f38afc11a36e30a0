"""New ids: the one place they come from, so that tests and the runtime can look there."""

from __future__ import annotations

import uuid
from contextvars import ContextVar
from typing import TYPE_CHECKING

from eventic_core.records.setting import Setting

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

if hasattr(uuid, "uuid7"):
    _uuid7: Callable[[], UUID] = uuid.uuid7
else:
    from uuid_utils.compat import uuid7 as _uuid7


_source: ContextVar[Callable[[], UUID] | None] = ContextVar("eventic_ids", default=None)


def new_id() -> UUID:
    """Make a version 7 UUID: ids made later sort later, to the millisecond."""
    return _uuid7()


def new_record_id() -> UUID:
    """Make the id of a new record: a new one, or what `ids_from` says."""
    source = _source.get()
    return _uuid7() if source is None else source()


def ids_from(source: Callable[[], UUID] | None) -> Setting[Callable[[], UUID] | None]:
    """Take a `with` block's ids of new records from `source`: a repeated run makes the same ones. `None` ends it."""
    return Setting(_source, source)
