-- Purpose: the records of runs that are about to go are written by nobody. A statement of its own, as what looks at them
--          after it, which so sees what those have written that held them before.
-- Locks:   the rows of the current versions. Index: records_current_key.
select 1 from eventic.records where id = any(%(ids)s) and superseded_at is null order by id for update
