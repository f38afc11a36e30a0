-- Purpose: what retention, purge and erasure need beyond that: versions and ended runs go, and values of a version are
--          overwritten. Triggers let both pass only where a transaction says what it is about.
-- Locks:   rows of the catalog. Index: none.
grant update (data), delete on eventic.records to {role};
grant insert, update on eventic.history_floors to {role};
grant delete on eventic.handled, eventic.dead_letters, eventic.run_counters, eventic.run_failures,
    eventic.dag_runs to {role};
grant delete on dbos.workflow_status, dbos.workflow_input, dbos.workflow_output, dbos.operation_outputs,
    dbos.application_versions to {role};
do $$ begin
    if to_regclass('dbos.datasource_outputs') is not null then
        grant update on dbos.datasource_outputs to {role};
    end if;
end $$;
