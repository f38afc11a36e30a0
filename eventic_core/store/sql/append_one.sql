-- Purpose: the next version of a record, if its predecessor is the current one: the row count is the compare-and-swap.
-- Locks:   the current row, before the clock is read, so that moments of one record rise with its versions.
-- Index:   records_current_key.
-- The feed's transaction id never falls from one version of a record to the next: a transaction that took its id
-- early and read the previous version late would otherwise put its version before that one.
-- The parts in braces are as in append_many.
with {gate}head as materialized (
    select version_id, recorded_at, xid
    from eventic.records
    where id = %s and superseded_at is null and version = %s - 1 and {generation}{gated}
    for update
), ready as materialized (
    select version_id,
           greatest(clock_timestamp(), recorded_at + interval '1 microsecond') as moment,
           greatest(pg_current_xact_id(), xid) as xid
    from head
), closed as (
    update eventic.records r
    set superseded_at = s.moment
    from ready s
    where r.version_id = s.version_id
    returning s.moment, s.xid
){also}
insert into eventic.records (version_id, id, version, class_type, data, tombstone, schema_version,
                             actor, reason, correlation_id, workflow_id, step_id, calls, recorded_at, xid)
select %s, %s, %s, %s, %s::jsonb, %s, %s, %s, %s, %s, %s, %s, %s, moment, xid
from closed
returning recorded_at, xid::text, position
