-- Purpose: whether writes are refused, and the revision of our tables; and the server writes a megabyte aside, which a
--          full disk refuses although an update of a row that has room on its page would still pass. Run with the
--          smallest work_mem, else it stays in memory. Changes nothing. Locks: none. Index: none.
select pg_is_in_recovery() or current_setting('transaction_read_only')::bool,
       (select version_num::text from eventic.eventic_version),
       (select count(*) from unnest(array_fill(repeat('x', 1000), array[1000])))
