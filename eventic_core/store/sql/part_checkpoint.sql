-- Purpose: part of a write in a run: the row by which a repeated run recognises the step; written when `ready` is.
, noted as (
    insert into dbos.operation_outputs (workflow_uuid, function_id, function_name, output, serialization,
                                        started_at_epoch_ms, completed_at_epoch_ms, application_name)
    select %s, %s, %s, %s, 'eventic_json', %s, (extract(epoch from clock_timestamp()) * 1000)::bigint, %s from ready
)
