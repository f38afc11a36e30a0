-- Purpose: what a run wrote, in the order of the feed, each version beside the one before it. Read through a cursor.
-- Locks:   none.
-- Index:   records_workflow for a narrow list, which is sorted; records_pkey and records_id_version_key for its rows.
-- `offset 0` keeps the planner from joining first and sorting whole documents.
select c.*, b.*
from (
    select version_id as wanted_id, id as record_id, version - 1 as version_before, xid as place, position as nth
    from eventic.records
    where workflow_id = any(%(workflow_ids)s::text[])
      and (%(step_id)s::int is null or step_id = %(step_id)s::int)
      and (%(class_types)s::text[] is null or class_type = any(%(class_types)s::text[]))
      and class_type <> all(%(without)s::text[])
    order by xid, position
    offset 0
) w
cross join lateral (select {columns} from eventic.records where version_id = w.wanted_id offset 0) c
left join lateral (
    select {columns} from eventic.records where id = w.record_id and version = w.version_before offset 0
) b on true
order by w.place, w.nth
