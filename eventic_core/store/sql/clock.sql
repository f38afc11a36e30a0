-- Purpose: the moment, by the database's clock. Locks: none. Index: none.
select clock_timestamp()
