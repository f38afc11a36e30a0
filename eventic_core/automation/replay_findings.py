"""What a replay finds, kept in a temporary file however much it is: items that differ, and what records come to.

Owns the file, an SQLite database that is gone with its owner, and the order in which it is read again.
"""

from __future__ import annotations

import pickle
import sqlite3
import weakref
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from eventic_core.automation.run_diff import ItemDiff


@dataclass(frozen=True, slots=True)
class Share:
    """What the replay of one item comes to for one record.

    Attributes:
        record_id: The record; of one that the run did not create, the id it is to have.
        number: The item's.
        place: Where it comes among the shares of the record: later ones win.
        first: The version that the item's first one of it is, or would be.
        kind: What the replay did to it; `None` is nothing.
        values: The fields that the replay set.
        differing: The fields that may not be what the replay comes to.
        differs: Whether anything may.
    """

    record_id: str
    class_type: str
    number: int
    place: int
    first: int
    kind: str | None
    values: dict[str, Any]
    differing: tuple[str, ...]
    differs: bool


class Findings:
    """Holds what a replay found; used by one thread at a time.

    Attributes:
        class_types: Of the records in which something differs.
    """

    def __init__(self) -> None:
        self.class_types: set[str] = set()
        self._file = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._file.close)
        self._file.executescript(
            "pragma journal_mode = off; pragma synchronous = off;"
            "create table differences (number integer primary key, held blob);"
            "create table shares (record text, place integer, number integer, held blob);"
        )

    def add_differences(self, items: Iterable[tuple[int, ItemDiff]]) -> None:
        """Keep items that differ, by number."""
        self._file.executemany(
            "insert into differences values (?, ?)", ((key, pickle.dumps(item)) for key, item in items)
        )

    def differences(self) -> Iterator[ItemDiff]:
        """Read the items that differ, by number."""
        for (held,) in self._file.execute("select held from differences order by number"):
            yield pickle.loads(held)  # noqa: S301 - of our own file

    def add_shares(self, shares: Iterable[Share]) -> None:
        """Keep shares of records."""
        kept = list(shares)
        self.class_types.update(share.class_type for share in kept if share.differs)
        rows = ((share.record_id, share.place, share.number, pickle.dumps(share)) for share in kept)
        self._file.executemany("insert into shares values (?, ?, ?, ?)", rows)

    def records(self) -> Iterator[list[Share]]:
        """Read the shares of each record in their order."""
        rows = self._file.execute("select held from shares order by record, place, number")
        shares = (pickle.loads(held) for (held,) in rows)  # noqa: S301
        return (list(group) for _, group in groupby(shares, key=lambda share: share.record_id))
