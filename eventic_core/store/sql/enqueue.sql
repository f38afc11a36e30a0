-- Purpose: background work, the checkpoint of a step, or both, where no record is written.
-- Locks and index: those of the parts. Gives no row if the gate is closed.
with {gate}ready as materialized (
    select 1 as yes where true{gated}
){also}
select yes from ready
