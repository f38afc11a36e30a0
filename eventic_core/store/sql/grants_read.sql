-- Purpose: what the doctor, lists and metrics read. Locks: rows of the catalog. Index: none.
grant select on all tables in schema eventic, dbos to {role};
