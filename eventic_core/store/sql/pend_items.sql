-- Purpose: pending executions for the items of a batch that have none, because their run ends before they begin. They are
--          numbered, in the order of the items, with the numbers that are free: those that were planned for them.
-- Locks:   the new rows. Index: records_items, records_item_executions; records_id_version_key for each item.
-- Writes nothing if the list of handlers is not the one the writer goes by. `wanted` bounds what one statement writes.
with item as materialized (
    select i.id, e.id as execution, row_number() over (order by i.sequence_number) as place
    from (
        select id, (data ->> 'sequence_number')::bigint as sequence_number
        from eventic.records
        where class_type || '' = 'Item' and superseded_at is null and not tombstone
          and data ->> 'batch_id' = %(batch)s::text and (data ->> 'sequence_number')::bigint <= %(to)s::bigint
    ) i,
    lateral ({execution_id}) e
    where not exists (select from eventic.records r where r.id = e.id and r.version = 0 offset 0)
    order by i.sequence_number
    limit %(count)s::bigint
), taken as materialized (
    select (data ->> 'number')::bigint as number
    from eventic.records
    where class_type || '' = 'ItemExecution' and superseded_at is null and not tombstone and data ->> 'run_id' = %(run)s::text
), free as (
    select number, row_number() over (order by number) as place
    from generate_series(%(before)s::bigint + 1, %(before)s::bigint + %(total)s::bigint) as n (number)
    where number not in (select number from taken where number is not null)
    limit %(count)s::bigint
), made as (
    insert into eventic.records (version_id, id, version, class_type, data, actor, reason, correlation_id,
                                 workflow_id, step_id)
    select gen_random_uuid(), item.execution, 0, 'ItemExecution',
           jsonb_build_object(
               'run_id', %(run)s::text, 'batch_execution_id', %(batch_execution)s::text, 'item_id', item.id,
               'number', number, 'status', 'PENDING', 'started_at', null, 'finished_at', null, 'due_at', null,
               'attempt_count', 0, 'max_attempts', %(max_attempts)s::int,
               'result_payload', null, 'error_message', null, 'error_type', null, 'properties', '{{}}'::jsonb),
           %(actor)s::text, 'start', %(correlation_id)s::text, %(workflow_id)s::text, number
    from item
    join free using (place)
    where {generation}
    order by number
    on conflict do nothing
    returning id
)
select (select count(*) from item), count(*), case when %(listed)s::bool then array_agg(id) end from made
