-- Purpose: workers whose beat is late, by the server's clock, and those counted as lost whose sessions kept some of
--          their runs from being taken over. Nobody could beat before the server started.
-- Locks: none. Index: the few rows there are; idx_workflow_status_pending.
select id, slot, token, beat_at, late_seconds, state = 'lost'
from (
    select w.*,
        extract(epoch from clock_timestamp() - greatest(w.beat_at, pg_postmaster_start_time()))::float8 as late_seconds
    from eventic.workers w
    where w.state <> 'stopped'
) w
where state in ('alive', 'draining') and id <> %(own)s and late_seconds > %(seconds)s
   or state = 'lost'
      and exists (select from dbos.workflow_status s where s.status = 'PENDING' and s.executor_id = w.slot)
      and not exists (
          select from eventic.workers l
          where (l.slot = w.slot or l.token = w.token) and l.state in ('alive', 'draining')
      )
      and exists (select from pg_stat_activity a where a.application_name like '%% ' || w.token)
