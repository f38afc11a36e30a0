-- Purpose: part of a statement that moves items' executions: the moves, from the documents `before` and `after` of `move`.
delta as (
    select (m.after ->> 'run_id')::uuid as run_id, (m.after ->> 'batch_execution_id')::uuid as batch_execution_id,
           s.status, sum(s.n) as n
    from move m, lateral (values (m.after ->> 'status', 1), (m.before ->> 'status', -1)) as s (status, n)
    where m.after ->> 'status' is distinct from m.before ->> 'status'
    group by 1, 2, 3
), failed_delta as (
    select (m.after ->> 'run_id')::uuid as run_id, s.error_type, sum(s.n) as n
    from move m,
    lateral (values (m.after ->> 'status', m.after ->> 'error_type', 1),
                    (m.before ->> 'status', m.before ->> 'error_type', -1)) as s (status, error_type, n)
    where s.status = 'FAILED' and s.error_type is not null
      and m.after ->> 'status' is distinct from m.before ->> 'status'
    group by 1, 2
)
