-- Purpose: the size of the database, the versions of records ever written by the sequence that numbers them (gaps are
--          writes that were undone), and rows of the largest tables as vacuum last estimated them. Counts nothing.
-- Locks:   access share, for a moment. Index: none.
select pg_database_size(current_database())::bigint,
       (select case when is_called then last_value else 0 end from eventic.records_position_seq)::bigint,
       coalesce((select greatest(reltuples, 0) from pg_class where oid = to_regclass('eventic.records')), 0)::bigint,
       coalesce((select greatest(reltuples, 0) from pg_class where oid = to_regclass('dbos.workflow_status')), 0)::bigint
