-- Purpose: the outcomes of several runs, of those that are still this execution's. Locks: their rows, in id order.
-- Index:   workflow_status_pkey.
with input as materialized (
    select * from unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::text[])
        as i (id, owner, status, output, error)
), mine as materialized (
    select s.workflow_uuid
    from dbos.workflow_status s
    join input i on s.workflow_uuid = i.id and s.owner_xid = i.owner
    where s.status = 'PENDING'
    order by s.workflow_uuid
    for no key update of s
), done as (
    update dbos.workflow_status s
    set status = i.status, owner_xid = null, deduplication_id = null,
        updated_at = (extract(epoch from clock_timestamp()) * 1000)::bigint,
        completed_at = (extract(epoch from clock_timestamp()) * 1000)::bigint
    from input i, mine m
    where s.workflow_uuid = i.id and m.workflow_uuid = i.id
    returning s.workflow_uuid
)
insert into dbos.workflow_output (workflow_uuid, output, error)
select i.id, i.output, i.error
from input i
join done d on d.workflow_uuid = i.id
on conflict (workflow_uuid) do update set output = excluded.output, error = excluded.error
returning workflow_uuid
