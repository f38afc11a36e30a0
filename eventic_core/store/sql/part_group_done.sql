-- Purpose: part of the last write of a group, which counts items that have ended: the group is done. If its run was stopped
--          and waits for that, it is woken by the counting. Locks: the group's row, as part_gate. Index: workflow_status_pkey.
, group_done as (
    update dbos.workflow_status s
    set status = 'SUCCESS', owner_xid = null, deduplication_id = null,
        updated_at = (extract(epoch from clock_timestamp()) * 1000)::bigint,
        completed_at = (extract(epoch from clock_timestamp()) * 1000)::bigint
    from ready
    where s.workflow_uuid = %s
    returning s.workflow_uuid
), group_output as (
    insert into dbos.workflow_output (workflow_uuid, output)
    select workflow_uuid, 'null' from group_done
    on conflict (workflow_uuid) do update set output = excluded.output
)
