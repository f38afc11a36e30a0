-- Purpose: the versions a run wrote, in the order of writing. Locks: none. Index: records_workflow.
select {columns} from eventic.records where workflow_id = %s order by position
