-- Purpose: past versions go, the oldest of each record first, so that what is left has no gap; the current one stays.
--          A page of records in the order of their ids, and so many versions of them. Kept are those that something
--          unfinished names, and what followed them, those of records with a dead letter to settle, what a handler is about to try again with the version before it, and what a handler
--          that subscribes has not read yet. The floor of the class moves with it.
-- Locks:   the rows, which nobody changes. Index: records_current_key, records_id_version_key, handled_pkey.
with head as materialized (
    select r.id, r.version
    from eventic.records r
    where r.superseded_at is null and r.id > %(after)s
      and r.version > 0 and (%(classes)s::text[] is null or r.class_type = any(%(classes)s))
    order by r.id
    limit %(heads)s
), passed as materialized (
    select p.version_id, p.id, p.class_type, p.superseded_at
    from head h
    cross join lateral (  -- by the index: a join by hash would read all versions there are
        select v.version_id, v.id, v.version, v.class_type, v.superseded_at, v.xid from eventic.records v
        where v.id = h.id and v.superseded_at < %(before)s
        offset 0
    ) p
    left join unnest(%(pinned)s::uuid[], %(pins)s::int[]) k (id, version) on k.id = h.id
    where (k.version is null or p.version < k.version)
      and not exists (select from eventic.dead_letters l where l.record_id = h.id and l.state in ('open', 'retried'))
      and not exists (
          select from eventic.handled d
          where d.record_id = h.id and d.handler in (select name from eventic.handlers)
            and d.attempts > 0 and p.version >= d.version
      )
      and not exists (select from eventic.handlers n where not n.caught_up and p.xid >= n.since_xid)
    order by p.id, p.version
    limit %(limit)s
), {gone}
select (select count(*) from gone), (select max(id::text)::uuid from head), (select max(id::text)::uuid from gone)
