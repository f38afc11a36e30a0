-- Purpose: the dependencies of some jobs: what they wait for, or, by the other column, what waits for them.
-- Locks:   none. Index: the one that JobDependency declares on the column; else records_class_current, over the
--          dependencies of all DAGs. Planned anew each time: a plan for any list of jobs would be for a short one.
select id::text, data ->> 'job_id', data ->> 'depends_on_id'
from eventic.records
where (data ->> '{column}') collate "C" = any(%(jobs)s::text[])
  and class_type = any(%(types)s::text[]) and superseded_at is null and not tombstone
