-- Purpose: what the server says of itself, and of the role and the database we came to. Locks: none. Index: none.
-- What this session has set for itself is not what others find, hence reset_val.
select current_setting('server_version_num')::int, current_setting('server_version'), pg_is_in_recovery(),
       (select reset_val = 'on' from pg_settings where name = 'default_transaction_read_only'),
       (select coalesce(array_agg(name::text order by name), '{}') from pg_settings
        where name in ('autovacuum', 'track_counts', 'fsync', 'full_page_writes') and setting = 'off'),
       pg_encoding_to_char(d.encoding)::text, age(d.datfrozenxid), d.datname::text, current_user::text
from pg_database d
where d.datname = current_database()
