-- Purpose: open dead letters by handler, and how long ago the first of them failed; of the first so many. Locks: none.
-- Index:   dead_letters_open.
with letters as (
    select handler, failed_at
    from eventic.dead_letters
    where state = 'open' and state in ('open', 'retried')
    order by failed_at, id
    limit %(most)s
)
select handler, count(*)::int, extract(epoch from clock_timestamp() - min(failed_at))::float8,
       sum(count(*)) over () >= %(most)s
from letters
group by 1
order by 2 desc, 1
