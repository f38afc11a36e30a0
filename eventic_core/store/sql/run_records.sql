-- Purpose: the records a run wrote, with the first version of each that it wrote. Read through a cursor.
-- Locks:   none. Index: records_workflow.
select id, min(version)
from eventic.records
where workflow_id = any(%s::text[]) and class_type <> all(%s::text[])
group by id
order by id
