-- Purpose: as append_many, for classes with states: several versions of a record in a row, the first of which follows the
--          state that the writer says the record has; and the counters of the runs whose items they are.
-- Locks:   the current rows in id order, keys in value order; at the end the counters, a run's own row first.
-- Index:   records_current_key, record_keys_pkey, record_keys_value_key, run_counters_pkey, run_failures_pkey.
-- A chain's inner versions are inserted as superseded already: only the last one enters the indexes of current rows.
-- Heads are looked up one by one: no statistics of a table that grows by the second may talk the planner out of it.
with {gate}{input}, head as materialized (
    select i.id, r.version_id, r.recorded_at, r.xid, i.before is null or i.before = r.status as follows
    from (select id, version, before from first order by id offset 0) i,
    lateral (
        select version_id, recorded_at, xid, case when i.before is not null then data ->> 'status' end as status
        from eventic.records
        where id = i.id and superseded_at is null and version = i.version - 1
        for update
    ) r
), ready as materialized (
    select 1 as yes
    where (select count(*) from head) = (select count(*) from first)
      and not exists (select from head where not follows)
      and {generation}{gated}
), clock as materialized (
    -- one moment for all, so that no moment shows half of them; the versions of a chain follow by a microsecond each
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
    returning r.id, s.xid
), {keys}, {counting}{also}
insert into eventic.records (version_id, id, version, class_type, data, tombstone, schema_version,
                             actor, reason, correlation_id, workflow_id, step_id, calls, recorded_at, superseded_at,
                             xid)
select i.version_id, i.id, i.version, i.class_type, i.data::jsonb, i.tombstone, i.schema_version,
       i.actor, i.reason, i.correlation_id, i.workflow_id, i.step_id, i.calls,
       clock.moment + (i.place - 1) * interval '1 microsecond',
       case when i.place < i.length then clock.moment + i.place * interval '1 microsecond' end,
       coalesce(c.xid, pg_current_xact_id())
from input i
left join closed c on c.id = i.id, clock
order by i.number, i.place
returning version_id, recorded_at, xid::text, position
