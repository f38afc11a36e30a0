-- Purpose: reserve a turn for some items under a rate that holds for all workers together: the generic cell rate
--          algorithm (ITU-T I.371) with a burst of one period. Gives the seconds to wait before they may begin.
-- Locks:   the limit's row. Index: rate_limits_pkey.
insert into eventic.rate_limits as l (name, free_at)
values (%(name)s::text, clock_timestamp() + make_interval(secs => %(seconds)s::float8 - %(period)s::float8))
on conflict (name) do update
set free_at = greatest(l.free_at, clock_timestamp() - make_interval(secs => %(period)s::float8)) + make_interval(secs => %(seconds)s::float8)
returning greatest(extract(epoch from free_at - clock_timestamp()), 0)::float8
