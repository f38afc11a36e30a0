-- Purpose: for some records a run wrote: which of its versions are in force, and how many others followed the first.
-- Locks:   none. Index: records_id_version_key, once for each record and part.
-- A run's family are its attempts, the undos of it (<id>:undo-<n>), the undos of those, and so on. Of these, what an
-- undo at an odd depth wrote undid the run; so the run's writes in force begin after the last such version.
-- left() and not starts_with(), which would let the planner go through all that an undo wrote, for each record.
select w.id, span.first, since.head, since.others
from unnest(%(ids)s::uuid[], %(firsts)s::int[]) with ordinality as w (id, first, place)
cross join lateral (
    select coalesce(max(r.version), w.first - 1) as version
    from eventic.records r
    where r.id = w.id and r.version > w.first
      and left(r.workflow_id, length(%(workflow_id)s) + 6) = %(workflow_id)s || ':undo-'
      and cardinality(string_to_array(substr(r.workflow_id, length(%(workflow_id)s) + 1), ':undo-')) %% 2 = 0
) undone
cross join lateral (
    select min(r.version) as first
    from eventic.records r
    where r.id = w.id and r.version > undone.version
      and (r.workflow_id = any(%(workflow_ids)s::text[])
           or left(r.workflow_id, length(%(workflow_id)s) + 6) = %(workflow_id)s || ':undo-')
) span
cross join lateral (
    select max(r.version) as head,
           count(*) filter (
               where r.workflow_id is null
                  or not (r.workflow_id = any(%(workflow_ids)s::text[])
                          or left(r.workflow_id, length(%(workflow_id)s) + 6) = %(workflow_id)s || ':undo-')
           ) as others
    from eventic.records r
    where r.id = w.id and r.version >= coalesce(span.first, undone.version)
) since
order by w.place
