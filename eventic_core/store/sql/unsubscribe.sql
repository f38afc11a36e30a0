-- Purpose: drop the subscriptions of a handler. Locks: the row of the generation. Index: handlers_pkey.
with gone as (
    delete from eventic.handlers where name = %s returning 1
)
update eventic.handlers_generation
set generation = generation + 1
where exists (select from gone)
returning (select count(*) from gone)
