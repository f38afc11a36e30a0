"""New ids: the one place they come from, so that tests and the runtime can look there."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

if hasattr(uuid, "uuid7"):
    _uuid7: Callable[[], UUID] = uuid.uuid7
else:
    from uuid_utils.compat import uuid7 as _uuid7


def new_id() -> UUID:
    """Make a version 7 UUID: ids made later sort later, to the millisecond."""
    return _uuid7()
