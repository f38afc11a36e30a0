-- Purpose: for some records that a run or its replays wrote, or are to write: the first version of theirs, the current
--          version, and how many versions from the first on others wrote. Locks: none. Index: records_id_version_key.
-- Where they have written none yet, the first is the one that is given.
select w.id, own.first, since.head, since.others
from unnest(%(ids)s::uuid[], %(firsts)s::int[]) with ordinality as w (id, first, place)
cross join lateral (
    select coalesce(min(version), w.first) as first
    from eventic.records
    where id = w.id and workflow_id = any(%(workflow_ids)s::text[])
) own
cross join lateral (
    select max(version) as head,
           count(*) filter (
               where version >= own.first and not coalesce(workflow_id = any(%(workflow_ids)s::text[]), false)
           ) as others
    from eventic.records
    where id = w.id
) since
order by w.place
