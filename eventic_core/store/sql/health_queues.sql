-- Purpose: the queues that are registered, whether they have lanes, and a limit over all workers. Locks: none.
-- Index:   none, there are some hundreds at most.
select q.name, q.partition_queue, q.concurrency is not null or q.rate_limit_max is not null
from dbos.queues q
order by 1
