-- Purpose: remember that a schema version of a class is in use. Locks: the new row.
insert into eventic.record_classes (class_type, schema_version) values (%s, %s) on conflict do nothing
