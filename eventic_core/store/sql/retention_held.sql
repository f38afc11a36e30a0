-- Purpose: the ended runs that an unfinished one names in its input or in what its steps gave: it may ask for their
--          results. Locks: none.
-- Index:   idx_workflow_status_in_flight_v2, idx_workflow_status_delayed, operation_outputs_pkey, workflow_input_pkey,
--          workflow_status_pkey for each name.
with {open}, said as (
    select o.output as text from open join dbos.operation_outputs o using (workflow_uuid) where o.output is not null
    union all
    select i.inputs from open join dbos.workflow_input i using (workflow_uuid) where i.inputs is not null
), named as (
    select found[1] as id from said, regexp_matches(text, '"((?:[^"\\]|\\.)+)"', 'g') found
    union
    select found[1] from said, regexp_matches(text, '([0-9a-f]{{8}}(?:-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}})', 'g') found
    union
    select o.child_workflow_id from open join dbos.operation_outputs o using (workflow_uuid)
    union
    select substring(o.function_name from '^result of (.*)$')
    from open join dbos.operation_outputs o using (workflow_uuid)
)
select named.id
from named
cross join lateral (
    select from dbos.workflow_status w
    where w.workflow_uuid = named.id and w.status not in ('ENQUEUED', 'PENDING', 'DELAYED')
    offset 0
) ended
