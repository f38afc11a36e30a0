-- Purpose: a queue's row for DBOS; one that is there stays as it is. Index: queues_name_key.
insert into dbos.queues (name, worker_concurrency, concurrency, rate_limit_max, rate_limit_period_sec, partition_queue,
                         partition_concurrency, polling_interval_sec)
values (%s, %s, %s, %s, %s, %s, %s, %s)
on conflict (name) do nothing
