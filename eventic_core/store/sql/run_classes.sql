-- Purpose: the classes of the records a run wrote. Locks: none. Index: records_workflow.
select distinct class_type from eventic.records
where workflow_id = any(%s::text[]) and class_type <> all(%s::text[])
order by class_type
