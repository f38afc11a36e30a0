-- Purpose: what workers and applications write, beside what they read: no committed version is changed, but closed by
--          the next one, none is deleted, and ended runs stay.
-- Locks:   rows of the catalog. Index: none.
grant insert, update (superseded_at) on eventic.records to {role};
grant insert on eventic.record_classes to {role};
grant insert, update, delete on eventic.record_keys, eventic.handlers, eventic.workers, eventic.waits,
    eventic.paused_queues to {role};
grant insert, update on eventic.handled, eventic.dead_letters, eventic.run_counters, eventic.run_failures,
    eventic.run_moves, eventic.rate_limits, eventic.dag_runs, eventic.schedules to {role};
grant update on eventic.handlers_generation to {role};
grant insert, update on dbos.workflow_status, dbos.workflow_input, dbos.workflow_output, dbos.operation_outputs,
    dbos.notifications, dbos.workflow_events, dbos.workflow_events_history, dbos.streams, dbos.queues,
    dbos.application_versions to {role};
do $$ begin
    if to_regclass('dbos.datasource_outputs') is not null then
        grant insert, delete on dbos.datasource_outputs to {role};
    end if;
end $$;
