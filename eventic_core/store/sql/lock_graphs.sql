-- Purpose: keep the dependencies of some DAGs to one writer until its transaction ends, and tell how that is isolated:
--          what others have added is seen by statements after this one only at READ COMMITTED.
-- Locks:   an advisory lock for each DAG, in the order given, else two writers of the same two deadlock. Index: none.
select pg_advisory_xact_lock(hashtextextended('eventic dag ' || name, 0)), current_setting('transaction_isolation')
from unnest(%s::text[]) name
