-- Purpose: the row of a step that failed; a repeated run fails in the same way. Locks and index: those of the gate.
with {gate}ready as materialized (
    select 1 as yes where true{gated}
)
insert into dbos.operation_outputs (workflow_uuid, function_id, function_name, error, serialization,
                                    started_at_epoch_ms, completed_at_epoch_ms, application_name)
select %s, %s, %s, %s, 'eventic_json', %s, (extract(epoch from clock_timestamp()) * 1000)::bigint, %s from ready
returning function_id
