"""Slots: names of executors, each held by a session's advisory lock, so that Postgres knows who is alive.

The session that holds the lock also listens for work that other processes enqueue.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from eventic_core.errors import Conflict, StoreUnavailable
from eventic_core.store.engine import DEMOTED
from eventic_core.store.work import CHANNEL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from eventic_core.store.engine import Database

_MOST_SLOTS = 10_000
_LOOKED_AT = 16
SPACE = 0x65766E74  # the first key of our advisory locks: "evnt"
_TAKE = "select pg_try_advisory_lock(%s, %s)"
_GIVE = "select pg_advisory_unlock(%s, %s)"


class Slot:
    """A slot of a database: `worker-0`, `worker-1` and so on. Used by one thread, after `take`."""

    def __init__(self, database: Database) -> None:
        self.name = ""
        self._database = database
        self._connection: psycopg.Connection[Any] | None = None

    def take(self) -> str:
        """Take the first free slot, and listen; gives its name.

        Raises:
            Conflict: There is none.
            StoreUnavailable: Postgres does not answer.
        """
        return self._database.persist(self._take)

    def _take(self) -> str:
        connection = self._connect()
        self.name = self._first_free(connection)
        self._connection = connection
        return self.name

    def _first_free(self, connection: psycopg.Connection[Any]) -> str:
        for number in range(_MOST_SLOTS):
            if self._try(connection, number):
                return f"worker-{number}"
        connection.close()
        message = f"All {_MOST_SLOTS} slots for processes are taken."
        raise Conflict(message)

    def wait(self, seconds: float) -> str | None:
        """Wait for a notification; gives its payload, `None` when none came, or "" after the connection was lost.

        A lost connection is replaced. If another process has the slot by then, the next free one is taken, and `name`
        is another. Somebody may have taken the runs over meanwhile: owner checks find that out.

        Raises:
            StoreUnavailable: Postgres does not answer.
        """
        try:
            if self._connection is None or self._connection.closed:
                connection = self._connect()
                if not self._try(connection, _number(self.name)):
                    self.name = self._first_free(connection)
                self._connection = connection
                return ""
            for notice in self._connection.notifies(timeout=seconds, stop_after=1):
                return notice.payload
        except psycopg.Error as error:
            self.give_up()
            raise self._database.unavailable(error) from error
        return None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do what a block runs in one transaction.

        Raises:
            StoreUnavailable: The connection is lost.
        """
        try:
            with self._held().transaction():
                yield
        except psycopg.OperationalError as error:
            raise self._database.unavailable(error) from error

    def run(self, sql: str, parameters: Sequence[Any] | dict[str, Any]) -> list[tuple[Any, ...]]:
        """Run one statement on the connection that holds the slot, which nobody else uses; gives its rows.

        Raises:
            StoreUnavailable: The connection is lost.
        """
        connection = self._held()
        try:
            return connection.execute(sql, parameters).fetchall()
        except DEMOTED as error:
            self.give_up()  # the next connection may be one to who takes writes
            raise self._database.unavailable(error) from error
        except psycopg.OperationalError as error:
            raise self._database.unavailable(error) from error

    @contextmanager
    def holding(self, slots: Sequence[str]) -> Iterator[list[str]]:
        """Hold those of the slots that are free for a block, in which nobody can come to life under them.

        Raises:
            StoreUnavailable: The connection is lost.
        """
        connection = self._held()
        held: list[str] = []
        try:
            held += [slot for slot in slots if self._try(connection, _number(slot))]
            try:
                yield held
            finally:
                self._give(connection, held)
        except psycopg.OperationalError as error:
            raise self._database.unavailable(error) from error

    def free(self, slots: Sequence[str]) -> list[str]:
        """Name those slots that nobody holds; names that are no slots of ours are left out."""
        connection = self._held()
        try:
            found = [slot for slot in slots if _number(slot) >= 0 and self._try(connection, _number(slot))]
            self._give(connection, found)
        except psycopg.Error as error:
            raise self._database.unavailable(error) from error
        return found

    def give_up(self) -> None:
        """Close the connection, and with it give up the slot."""
        if self._connection is not None:
            self._connection.close()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lowest slots for a block, in which no other process can come to life.

        Raises:
            Conflict: One is held by another process.
        """
        with self._connect() as connection:
            for number in range(_LOOKED_AT):
                if not self._try(connection, number):
                    message = f"Another process (worker-{number}) works on this database: stop it first."
                    raise Conflict(message)
            yield

    def _held(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            message = "The connection that holds the slot is lost."
            raise StoreUnavailable(message)
        return self._connection

    def _connect(self) -> psycopg.Connection[Any]:
        connection = self._database.apart()
        connection.execute(f"listen {CHANNEL}")
        connection.execute("set synchronous_commit = off")  # what a crash loses of a beat does not matter
        return connection

    def _try(self, connection: psycopg.Connection[Any], number: int) -> bool:
        row = connection.execute(_TAKE, (SPACE, number)).fetchone()
        return bool(row and row[0])

    def _give(self, connection: psycopg.Connection[Any], slots: Sequence[str]) -> None:
        for slot in slots:
            connection.execute(_GIVE, (SPACE, _number(slot)))


def _number(slot: str) -> int:
    name, _dash, number = slot.rpartition("-")
    return int(number) if name == "worker" and number.isdigit() else -1
