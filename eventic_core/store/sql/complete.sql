-- Purpose: the outcome of a run, if it is still this execution's. Locks: its row. Index: workflow_status_pkey.
with done as (
    update dbos.workflow_status
    set status = %s, owner_xid = null, deduplication_id = null,
        updated_at = (extract(epoch from clock_timestamp()) * 1000)::bigint,
        completed_at = (extract(epoch from clock_timestamp()) * 1000)::bigint
    where workflow_uuid = %s and owner_xid = %s and status = 'PENDING'
    returning workflow_uuid
)
insert into dbos.workflow_output (workflow_uuid, output, error)
select workflow_uuid, %s, %s from done
on conflict (workflow_uuid) do update set output = excluded.output, error = excluded.error
returning 1
