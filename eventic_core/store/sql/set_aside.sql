-- Purpose: a version a handler gave up on becomes a dead letter. Index: dead_letters_pkey.
insert into eventic.dead_letters (id, handler, class_type, record_id, version, attempts, error)
values (%s, %s, %s, %s, %s, %s, %s::jsonb)
