-- Purpose: the run that has been unfinished for the longest, and the moment since when it may ask for versions that were
--          current: since it was made, or first begun if it was begun anew. The standing work of schedules asks for none.
-- Locks:   none. Index: idx_workflow_status_in_flight_v2, idx_workflow_status_delayed; counters and DAGs are read whole.
with {open}
select id, since - interval '1 second'
from (
    select workflow_uuid as id, to_timestamp(created_at / 1000.0) as since
    from open
    where name is distinct from 'eventic.schedule'
    union all
    select run_id::text, started_at from eventic.run_counters
    where batch_execution_id = '00000000-0000-0000-0000-000000000000' and state <> 'ended'
    union all
    select run_id::text, started_at from eventic.dag_runs where state <> 'ended'
) unfinished
order by since
limit 1
