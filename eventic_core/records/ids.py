"""New ids: the one place they come from, so that tests and the runtime can look there."""

from __future__ import annotations

import contextlib
import uuid
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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


@contextlib.contextmanager
def ids_from(source: Callable[[], UUID] | None) -> Iterator[None]:
    """Take the ids of new records from `source`, so that a repeated run makes the same ones; `None` ends it."""
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)
