"""Runs the migrations for `eventic_core.store.migrate`, on its connection or into its script.

Alembic executes this file; it cannot be imported. It configures no logging and reads no alembic.ini.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic import context

if TYPE_CHECKING:
    from sqlalchemy import Connection

_options = context.config.attributes
_schema = _options["schema"]
_version_table = _options["version_table"]

# A failure to drop a schema in which somebody keeps objects of their own must not fail the downgrade.
_DROP_EVERYTHING = f"""
drop table {_schema}.{_version_table};
do $$
begin
    drop schema {_schema};
exception when dependent_objects_still_exist then
    raise notice 'schema {_schema} holds other objects and is kept';
end $$"""


def _offline() -> None:
    context.configure(
        url=_options["url"], literal_binds=True, version_table=_version_table, version_table_schema=_schema
    )
    start = context.get_starting_revision_argument()
    with context.begin_transaction():
        # Alembic makes its version table, which lives in the schema, before the first migration.
        if start is None:
            context.execute(f"create schema if not exists {_schema}")
        context.run_migrations()
        if context.get_revision_argument() is None:
            context.execute(_DROP_EVERYTHING)


def _online(connection: Connection) -> None:
    context.configure(connection=connection, version_table=_version_table, version_table_schema=_schema)
    # "if not exists" asks for the right to create schemas even where an administrator has made this one.
    if not connection.exec_driver_sql(f"select to_regnamespace('{_schema}') is not null").scalar():
        connection.exec_driver_sql(f"create schema {_schema}")
    context.run_migrations()
    if not context.get_context().get_current_heads():
        connection.exec_driver_sql(_DROP_EVERYTHING)


if context.is_offline_mode():
    _offline()
else:
    _online(_options["connection"])
