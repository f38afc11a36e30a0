-- Purpose: the names of all jobs of a DAG.
-- Locks:   none. Index: records_data_current, or records_class_current where there are few jobs.
select id::text, data ->> 'name'
from eventic.records
where data @> %(place)s::jsonb and class_type = any(%(types)s::text[]) and superseded_at is null and not tombstone
order by id
