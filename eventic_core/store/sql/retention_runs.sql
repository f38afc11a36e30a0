-- Purpose: ended runs of automations and DAGs that no job of another run started, a page of them.
-- Locks:   none. Index: records_class_current, records_data_current.
select r.id
from eventic.records r
where r.superseded_at is null and not r.tombstone and r.class_type in ('Run', 'DagRun') and r.id > %(after)s
  and r.recorded_at < %(before)s and r.data ->> 'status' = any(%(statuses)s)
  and (%(name)s::text is null or r.class_type = 'DagRun' and r.data ->> 'dag' = %(name)s
       or r.class_type = 'Run' and r.data ->> 'automation_id' in (
           select a.id::text from eventic.records a
           where a.superseded_at is null and not a.tombstone and a.class_type = 'Automation'
             and a.data @> jsonb_build_object('name', %(name)s::text)))
  and not exists (
      select from eventic.records j
      where j.superseded_at is null and not j.tombstone and j.class_type = 'JobRun'
        and j.data @> jsonb_build_object('child_run_id', r.id::text)
  )
order by r.id
limit %(limit)s
