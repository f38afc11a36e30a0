"""SQLAlchemy sessions on the store's engine, for SQL of the user's own beside records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.orm import Session, sessionmaker

if TYPE_CHECKING:
    from eventic_core.store.postgres import PostgresStore

__all__ = ["Session", "session_factory", "sessionmaker"]


def session_factory(store: PostgresStore) -> sessionmaker[Session]:
    """Make what makes sessions: in transactions at READ COMMITTED, on connections of the store's pool."""
    return sessionmaker(store.database.engine.execution_options(isolation_level="READ COMMITTED"))
