-- Purpose: executions for the next items of a batch, in the order of their numbers, each pending and numbered within its run.
-- Locks:   the new rows. Index: records_items; records_id_version_key refuses a second execution of a pair.
-- The id is a version 7 UUID made of the pair; `item_execution_id` in automation/executions.py computes the same.
-- Writes nothing if the list of handlers is not the one the writer goes by.
with item as materialized (
    select id, (data ->> 'sequence_number')::bigint as sequence_number
    from eventic.records
    where class_type = 'Item' and superseded_at is null and not tombstone
      and data ->> 'batch_id' = %(batch)s::text and (data ->> 'sequence_number')::bigint > %(after)s::bigint
    order by (data ->> 'sequence_number')::bigint
    limit %(count)s::bigint
), hashed as (
    select id, sequence_number, %(planned)s::bigint + row_number() over (order by sequence_number) as number,
           encode(sha256(convert_to(%(run)s::text || ':' || id::text, 'UTF8')), 'hex') as hex
    from item
    where {generation}
), made as (
    insert into eventic.records (version_id, id, version, class_type, data, actor, reason, correlation_id,
                                 workflow_id, step_id)
    select gen_random_uuid(),
           (substr(replace(%(run)s::text, '-', ''), 1, 12) || '7' || substr(hex, 13, 3)
            || to_hex((('x' || substr(hex, 16, 1))::bit(4)::int & 3) | 8) || substr(hex, 17, 15))::uuid,
           0, 'ItemExecution',
           jsonb_build_object(
               'run_id', %(run)s::text, 'batch_execution_id', %(batch_execution)s::text, 'item_id', id, 'number', number,
               'status', 'PENDING', 'started_at', null, 'finished_at', null, 'due_at', null,
               'attempt_count', 0, 'max_attempts', %(max_attempts)s::int,
               'result_payload', null, 'error_message', null, 'error_type', null, 'properties', '{{}}'::jsonb),
           %(actor)s::text, 'start', %(correlation_id)s::text, %(workflow_id)s::text, number
    from hashed
    order by number
    returning id
)
select (select count(*) from item), (select max(sequence_number) from item), (select count(*) from hashed),
       case when %(listed)s::bool then (select array_agg(id) from made) end
