-- Purpose: the records that items of a run wrote: for each item and record the first and last version.
-- Locks:   none. Index: records_workflow.
select step_id, id, min(version), max(version)
from eventic.records
where workflow_id = any(%s::text[]) and step_id = any(%s::int[]) and class_type <> all(%s::text[])
group by step_id, id
order by step_id, min(position)
