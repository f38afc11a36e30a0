"""An open database transaction that appends, reads and the user's own SQL share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

import sqlalchemy as sa

from eventic_core.errors import Conflict, Invalid
from eventic_core.store.engine import DEMOTED, LOST, RETRIED, TOO_LARGE, hide_values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    import psycopg

    from eventic_core.store.engine import Database

T = TypeVar("T")


class PostgresTransaction:
    """One transaction at READ COMMITTED, on a connection of its own or a caller's."""

    def __init__(self, database: Database, connection: sa.Connection, *, owned: bool) -> None:
        self._database = database
        self._owned = owned
        self._savepoints: dict[str, int] = {}
        self.connection = connection
        self.written: list[UUID] = []
        self.before_commit: Callable[[PostgresTransaction], object] = lambda _tx: None
        self._after_commit: list[Callable[[], object]] = []

    @classmethod
    def begin(cls, database: Database) -> PostgresTransaction:
        """Open one on a connection of the pool."""

        def connect() -> sa.Connection:
            connection = database.connect()
            # A pooled connection may have died: better to find out before the user's work than in the middle of it.
            try:
                connection.exec_driver_sql("select 1")
            except BaseException:
                connection.close()
                raise
            return connection

        return cls(database, database.persist(connect), owned=True)

    @classmethod
    def join(cls, database: Database, session: Any) -> PostgresTransaction:
        """Use the caller's Session or Connection, which must be in a transaction that the caller ends.

        Raises:
            Invalid: It is neither, or in autocommit, where nothing could be undone.
        """
        connection = session if isinstance(session, sa.Connection) else getattr(session, "connection", lambda: None)()
        if not isinstance(connection, sa.Connection) or connection.dialect.driver != "psycopg":
            message = f"{session!r} is no SQLAlchemy Session or Connection to Postgres through psycopg."
            raise Invalid(message)
        driver: Any = connection.connection.driver_connection
        if driver.autocommit:
            message = "The connection is in autocommit: there is no transaction to join. Begin one."
            raise Invalid(message)
        if not connection.in_transaction():
            connection.begin()
        return cls(database, connection, owned=False)

    @property
    def driver(self) -> psycopg.Connection[Any]:
        """The psycopg connection under it."""
        return cast("psycopg.Connection[Any]", self.connection.connection.driver_connection)

    def fetch(self, sql: str, parameters: Sequence[Any] | dict[str, Any]) -> list[tuple[Any, ...]]:
        """Run one reading statement in the transaction."""
        return self.run(lambda: self.driver.execute(sql, parameters).fetchall())

    def run(self, work: Callable[[], T]) -> T:
        """Do work on the connection; a lost one is an error, because the transaction is lost with it.

        Raises:
            StoreUnavailable: The server was lost; nothing of the transaction is stored.
            Conflict: It was chosen to end a deadlock; nothing of it is stored.
        """
        try:
            return self._hiding(work)
        except RETRIED as error:
            message = (
                "Two transactions waited for each other, and Postgres ended this one. Run the unit of work again, and "
                "let all of them change records in the same order, or without queries in between."
            )
            raise Conflict(message) from error
        except TOO_LARGE:
            raise
        except LOST as error:
            if isinstance(error, DEMOTED) and self._owned:
                self.connection.invalidate()  # so that the next one finds who takes writes
            raise self._database.unavailable(error) from error

    @staticmethod
    def _hiding(work: Callable[[], T]) -> T:
        try:
            return work()
        except BaseException as error:
            hide_values(error)
            raise

    def on_commit(self, then: Callable[[], object]) -> None:
        """Call `then` when it has committed; of a caller's transaction at once, since nobody tells us."""
        if self._owned:
            self._after_commit.append(then)
        else:
            then()

    def on_rollback(self, undo: Callable[[], object]) -> None:
        """Call `undo` if the caller, who ends the transaction, rolls it back."""
        ended = False

        def rolled_back(_connection: sa.Connection) -> None:
            nonlocal ended
            if not ended:
                undo()
            ended = True

        def committed(_connection: sa.Connection) -> None:
            nonlocal ended
            ended = True

        sa.event.listen(self.connection, "rollback", rolled_back)
        sa.event.listen(self.connection, "commit", committed)

    def savepoint(self) -> str:
        """Mark a point to go back to."""
        name = f"eventic_{len(self._savepoints) + 1}"
        self.run(lambda: self.driver.execute(f"savepoint {name}"))
        self._savepoints[name] = len(self.written)
        return name

    def rollback_to(self, savepoint: str) -> None:
        """Undo everything since a savepoint."""
        self.run(lambda: self.driver.execute(f"rollback to savepoint {savepoint}"))
        del self.written[self._savepoints[savepoint] :]

    def commit(self) -> None:
        """End it, and find out what happened if the connection is lost meanwhile.

        Raises:
            StoreUnavailable: The server was lost and the transaction with it.
        """
        try:
            self.before_commit(self)
        except BaseException:
            self.rollback()
            raise
        try:
            self.connection.commit()
        except LOST as error:
            self._discard()
            if not self.written or not self._database.fetch(
                "select 1 from eventic.records where version_id = %s", (self.written[-1],)
            ):
                raise self._database.unavailable(error) from error
        else:
            self.connection.close()
        for then in self._after_commit:
            then()

    def rollback(self) -> None:
        """End it, undoing everything; a lost connection has done so already."""
        try:
            self.connection.rollback()
        except LOST:
            self._discard()
        else:
            self.connection.close()

    def _discard(self) -> None:
        self.connection.invalidate()
        self.connection.close()
