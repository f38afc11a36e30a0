-- Purpose: the revision of DBOS's tables. Locks: none. Index: none, it has one row.
select max(version)::int from dbos.dbos_migrations
