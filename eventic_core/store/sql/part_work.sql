-- Purpose: part of a write: background work it causes; written when `ready` is. Work whose id is known stays as it is.
-- Locks:   the new rows only. Index: workflow_status_pkey.
-- The notification is sent at commit; Postgres drops duplicates within a transaction.
, work as materialized (
    select w.*, (extract(epoch from clock_timestamp()) * 1000)::bigint as now_ms
    from unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::bigint[], %b::bool[],
                %b::text[], %b::int[])
        as w (id, name, queue, payload, lane, delay_ms, notify, parent, priority), ready
), queued as (
    insert into dbos.workflow_status (workflow_uuid, status, name, queue_name, queue_partition_key, serialization,
                                      delay_until_epoch_ms, created_at, updated_at, parent_workflow_id, priority,
                                      application_version)
    select id, case when delay_ms > 0 then 'DELAYED' else 'ENQUEUED' end, name, queue, lane, 'eventic_json',
           case when delay_ms > 0 then now_ms + delay_ms end, now_ms, now_ms, parent, priority, %s
    from work
    on conflict (workflow_uuid) do nothing
), given as (
    insert into dbos.workflow_input (workflow_uuid, inputs)
    select id, payload from work
    on conflict (workflow_uuid) do nothing
    returning (select count(pg_notify('eventic_work', n.queue)) from (select distinct queue from work where notify) n)
)
