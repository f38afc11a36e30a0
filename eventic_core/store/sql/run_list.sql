-- Purpose: runs newest first, without their payloads; one page of them, or the one with an id. Locks: none.
-- Index:   workflow_status_created_at_index backwards, filtered; workflow_status_pkey for an id; for the status alone
--          idx_workflow_status_failed or idx_workflow_status_pending, where the planner finds them better.
-- The conditions are those of store/runs.py; runs created in one millisecond are told apart by their ids.
select {columns} from dbos.workflow_status ws
where {conditions}
order by ws.created_at desc, ws.workflow_uuid desc
limit %(limit)s
