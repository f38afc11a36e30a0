-- Purpose: versions that unfinished runs name, as <id>@<version> in what they were given, or as what a step of theirs has
--          read: the oldest of each record. They are read again, whenever they were current. Of runs of DAGs also what
--          their jobs gave, with which a fork or a rerun goes on. Locks: none.
-- Index:   idx_workflow_status_in_flight_v2, idx_workflow_status_delayed, operation_outputs_pkey, workflow_input_pkey,
--          records_data_current; the DAGs are read whole.
with {open}, said as (
    select o.output as text from open join dbos.operation_outputs o using (workflow_uuid) where o.output is not null
    union all
    select i.inputs from open join dbos.workflow_input i using (workflow_uuid) where i.inputs is not null
    union all
    select d.parameters::text from eventic.dag_runs d where d.state <> 'ended'
    union all
    select j.data::text
    from eventic.dag_runs d
    join eventic.records j on j.superseded_at is null and not j.tombstone and j.class_type = 'JobRun'
     and j.data @> jsonb_build_object('dag_run_id', d.run_id::text)
    where d.state <> 'ended'
)
select found[1]::uuid, min(found[2]::int)
from said, regexp_matches(
    text, '([0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}})(?:@|\\*", ?)([0-9]{{1,9}})', 'g'
) found
group by 1
