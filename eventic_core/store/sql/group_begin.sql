-- Purpose: whether a group's run goes on, and how many steps the group has. Locks: none.
-- Index:   run_counters_pkey, operation_outputs_pkey.
select (select state from eventic.run_counters
        where run_id = %s and batch_execution_id = '00000000-0000-0000-0000-000000000000'),
       (select max(function_id) from dbos.operation_outputs where workflow_uuid = %s)
