-- Purpose: a role keeps nothing of what it was granted before on our tables and DBOS's, so that a grant says all it has.
-- Locks:   rows of the catalog. Index: none.
revoke all on all tables in schema eventic, dbos from {role};
revoke all on all sequences in schema eventic, dbos from {role};
revoke all on schema eventic, dbos from {role};
grant usage on schema eventic, dbos to {role};
