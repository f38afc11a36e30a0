-- Purpose: the same move for many executions of a run: a version each, and the run's counters.
-- Locks:   the executions' current rows in order; the run's counters last. Index: records_item_executions.
-- Writes nothing if the list of handlers is not the one the writer goes by.
with picked as materialized (
    select version_id, id, version, data, schema_version, recorded_at, xid
    from eventic.records
    where class_type || '' = 'ItemExecution' and superseded_at is null and not tombstone
      and data ->> 'run_id' = %(run)s::text and data ->> 'status' = any(%(statuses)s::text[])
      and (%(numbers)s::bigint[] is null or (data ->> 'number')::bigint = any(%(numbers)s::bigint[]))
      and (%(error_type)s::text is null or data ->> 'error_type' = %(error_type)s::text)
      and (%(message)s::text is null or strpos(data ->> 'error_message', %(message)s::text) > 0)
      and {generation}
    order by id
    limit %(count)s::bigint
    for update
), clock as materialized (
    select greatest(clock_timestamp(), max(recorded_at) + interval '1 microsecond') as moment from picked
), closed as (
    update eventic.records r
    set superseded_at = clock.moment
    from picked p, clock
    where r.version_id = p.version_id
    returning r.id
), versions as (
    select p.*, p.data || %(patch)s::jsonb
               || case when %(again)s::int is null then '{{}}'::jsonb else jsonb_build_object(
                      'max_attempts', (p.data ->> 'attempt_count')::int + %(again)s::int) end as after
    from picked p
    join closed c on c.id = p.id
), move as (
    select after, data as before from versions
), {counting}, made as (
    insert into eventic.records (version_id, id, version, class_type, data, schema_version, actor, reason,
                                 correlation_id, workflow_id, step_id, calls, recorded_at, xid)
    select gen_random_uuid(), id, version + 1, 'ItemExecution', after, schema_version, %(actor)s::text, %(reason)s::text,
           %(correlation_id)s::text, %(workflow_id)s::text, (after ->> 'number')::int, %(call)s::text, clock.moment,
           greatest(pg_current_xact_id(), xid)
    from versions, clock
    returning id, version
)
select count(*), case when %(listed)s::bool then array_agg(id) end, case when %(listed)s::bool then array_agg(version) end from made
