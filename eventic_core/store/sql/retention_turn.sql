-- Purpose: batches of retention follow each other, whoever runs them, and may delete versions until they commit.
-- Locks:   an advisory lock of its own, until the transaction ends; nobody else takes it. Index: none.
select pg_advisory_xact_lock(hashtextextended('eventic.retention', 0)), set_config('eventic.retention', 'on', true)
