-- Purpose: several new records, next versions and unique keys in one statement: all or none.
-- Locks:   the current rows in id order, keys in value order, so that two such statements do not deadlock.
-- Index:   records_current_key, record_keys_pkey, record_keys_value_key.
-- Nothing is written unless every predecessor is the current version: `ready` is empty otherwise, as it is when the
-- list of handlers is not the one the writer goes by. The parts in braces are other files: the gate of a checkpoint,
-- the checkpoint itself, and work that is enqueued along.
with {gate}input as materialized (
    {input}
), head as materialized (
    select r.id, r.version_id, r.recorded_at, r.xid
    from eventic.records r
    join input i on i.id = r.id and r.version = i.version - 1
    where r.superseded_at is null
    order by r.id
    for update of r
), ready as materialized (
    select 1 as yes
    where (select count(*) from head) = (select count(*) from input where version > 0) and {generation}{gated}
), clock as materialized (
    -- one moment for all, so that no moment shows half of them
    select greatest(clock_timestamp(), (select max(recorded_at) from head) + interval '1 microsecond') as moment
    from ready
), stamped as materialized (
    select h.id, h.version_id, clock.moment, greatest(pg_current_xact_id(), h.xid) as xid
    from head h, clock
), closed as (
    update eventic.records r
    set superseded_at = s.moment
    from stamped s
    where r.version_id = s.version_id
    returning r.id, s.moment, s.xid
), {keys}{also}
insert into eventic.records (version_id, id, version, class_type, data, tombstone, schema_version,
                             actor, reason, correlation_id, workflow_id, step_id, calls, recorded_at, xid)
select i.version_id, i.id, i.version, i.class_type, i.data::jsonb, i.tombstone, i.schema_version,
       i.actor, i.reason, i.correlation_id, i.workflow_id, i.step_id, i.calls,
       clock.moment, coalesce(c.xid, pg_current_xact_id())
from input i
left join closed c on c.id = i.id, clock
where i.version = 0 or c.id is not null
order by i.number
returning version_id, recorded_at, xid::text, position
