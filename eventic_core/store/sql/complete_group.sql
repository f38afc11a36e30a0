-- Purpose: a group is done. If its run was stopped it may be waiting for this: it is woken. After lock_counters.
-- Locks:   the group's and the run's row. Index: workflow_status_pkey.
with done as (
    update dbos.workflow_status
    set status = 'SUCCESS', owner_xid = null, deduplication_id = null,
        updated_at = (extract(epoch from clock_timestamp()) * 1000)::bigint,
        completed_at = (extract(epoch from clock_timestamp()) * 1000)::bigint
    where workflow_uuid = %(id)s and owner_xid = %(owner)s and status = 'PENDING'
    returning workflow_uuid
), given as (
    insert into dbos.workflow_output (workflow_uuid, output)
    select workflow_uuid, 'null' from done
    on conflict (workflow_uuid) do update set output = excluded.output
), woken as (
    update dbos.workflow_status s
    set status = 'ENQUEUED', delay_until_epoch_ms = null
    from done
    where s.workflow_uuid = %(waiting)s and s.status = 'DELAYED'
    returning pg_notify('eventic_work', s.queue_name)
)
select 1 from done
