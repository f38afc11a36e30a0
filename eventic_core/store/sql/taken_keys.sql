-- Purpose: which of these values of a unique key are taken. Locks: none. Index: record_keys_value_key.
select value from eventic.record_keys where scope = %s and name = %s and value = any(%s)
