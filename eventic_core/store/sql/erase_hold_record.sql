-- Purpose: a record is written by nobody until the transaction ends. Locks: the row of its current version.
-- Index:   records_current_key.
select 1 from eventic.records where id = %s and superseded_at is null for update
