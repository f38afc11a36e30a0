-- Purpose: the unique keys of many new records. Locks: the new rows. Index: record_keys_value_key refuses a taken one.
copy eventic.record_keys (record_id, scope, name, value) from stdin
