-- Purpose: deleted records, a page of them, by classes and age, or by id; not those with a dead letter to settle or of
--          which a handler has something to try again. In a transaction that is about to remove them they are held, so
--          that nobody brings one back meanwhile.
-- Locks:   none, or the rows of the current versions. Index: records_current_key, handled_pkey.
select r.id, r.version + 1
from eventic.records r
where r.superseded_at is null and r.tombstone and r.id > %(after)s and r.recorded_at < %(before)s
  and (%(classes)s::text[] is null or r.class_type = any(%(classes)s))
  and (%(id)s::uuid is null or r.id = %(id)s)
  and not exists (select from eventic.dead_letters l where l.record_id = r.id and l.state in ('open', 'retried'))
  and not exists (
      select from eventic.handled d
      where d.record_id = r.id and d.handler in (select name from eventic.handlers) and d.attempts > 0
  )
order by r.id
limit %(limit)s
{held}
