-- Purpose: the last versions of records that others than a run's family wrote after one, each with the document before.
--          The family are the workflow ids, and those that begin with the branch, if there is one.
-- Locks:   none. Index: records_id_version_key.
select t.*, b.data::text
from unnest(%(ids)s::uuid[], %(firsts)s::int[]) with ordinality as w (wanted_id, first, place)
cross join lateral (
    select {columns}
    from eventic.records
    where id = w.wanted_id and version > w.first
      and not coalesce(workflow_id = any(%(workflow_ids)s::text[]), false)
      and not coalesce(left(workflow_id, length(%(branch)s::text)) = %(branch)s::text, false)
    order by version desc
    limit %(limit)s
) t
left join eventic.records b on b.id = t.id and b.version = t.version - 1
order by w.place, t.version
