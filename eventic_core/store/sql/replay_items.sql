-- Purpose: items of a run, each with its execution when the last attempt began and when that ended, the place in the feed
--          before which nothing of the attempt was written, and the item as of a moment or else that of the attempt.
-- Locks:   none. Index: records_item_executions; records_id_version_key for the versions.
select (e.data ->> 'number')::bigint, e.id, began.version, began.data::text, ended.data::text,
       coalesce(before.xid, '0')::text, coalesce(before.position, 0), pin.moment,
       item.data -> 'payload', item.tombstone
from unnest(%(numbers)s::bigint[]) as w (number)
join eventic.records e
    on e.class_type || '' = 'ItemExecution' and e.superseded_at is null and not e.tombstone
   and e.data ->> 'run_id' = %(run)s::text and e.data ->> 'status' = any(%(statuses)s::text[])
   and (e.data ->> 'number')::bigint = w.number
cross join lateral (
    select version, data, xid from eventic.records
    where id = e.id and data ->> 'status' = 'PROCESSING'
    order by version desc limit 1
) began
left join lateral (
    select data from eventic.records where id = e.id and version = began.version + 1
) ended on true
left join lateral (
    -- of an earlier transaction: attempts that share one did not see each other's writes
    select xid, position from eventic.records
    where id = e.id and version < began.version and xid < began.xid
    order by version desc limit 1
) before on true
cross join lateral (
    select coalesce(%(moment)s::timestamptz,
                    (coalesce(ended.data ->> 'started_at', began.data ->> 'started_at'))::timestamptz) as moment
) pin
left join lateral (
    select data, tombstone from eventic.records
    where id = (e.data ->> 'item_id')::uuid and recorded_at <= pin.moment
    order by version desc limit 1
) item on true
order by 1
