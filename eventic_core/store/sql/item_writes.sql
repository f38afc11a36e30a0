-- Purpose: the records that items of a run wrote: for each item and record the first and last version, of those after a
--          place in the feed. Locks: none. Index: records_workflow.
select w.number, r.id, min(r.version), max(r.version)
from unnest(%s::int[], %s::text[]::xid8[], %s::bigint[]) as w (number, xid, position)
cross join lateral (
    select id, version, position
    from eventic.records
    where workflow_id = any(%s::text[]) and step_id = w.number and class_type <> all(%s::text[])
      and (xid, position) > (w.xid, w.position)
    offset 0
) r
group by w.number, r.id
order by w.number, min(r.position)
