-- Purpose: the largest tables with their indexes and long values, after the database as a whole. Locks: access share, for
--          a moment. Index: none; of very many tables only the first by their pages at the last vacuum are measured.
select '', pg_database_size(current_database())
union all
(
    select c.name, pg_total_relation_size(c.oid)
    from (
        select n.nspname || '.' || r.relname as name, r.oid
        from pg_class r
        join pg_namespace n on n.oid = r.relnamespace
        where r.relkind in ('r', 'm') and n.nspname not in ('pg_catalog', 'information_schema')
        order by r.relpages desc
        limit 200
    ) c
    order by 2 desc
    limit 5
)
