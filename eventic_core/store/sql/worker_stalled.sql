-- Purpose: workers whose beat is late, by the server's clock, and those counted as lost whose sessions kept some of
--          their runs from being taken over. Nobody could beat before the server started.
-- Locks: none. Index: the few rows there are; idx_workflow_status_pending.
select w.id, w.slot, w.token
from eventic.workers w
where w.state in ('alive', 'draining') and w.id <> %(own)s
  and greatest(w.beat_at, pg_postmaster_start_time()) < clock_timestamp() - %(seconds)s * interval '1 second'
union all
select w.id, w.slot, w.token
from eventic.workers w
where w.state = 'lost'
  and exists (select from dbos.workflow_status s where s.status = 'PENDING' and s.executor_id = w.slot)
  and not exists (
      select from eventic.workers l where (l.slot = w.slot or l.token = w.token) and l.state in ('alive', 'draining')
  )
  and exists (select from pg_stat_activity a where a.application_name like '%% ' || w.token)
