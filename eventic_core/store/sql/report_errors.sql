-- Purpose: the errors of a run's items in some states, grouped by class and by message: messages are of one group if they
--          differ only in UUIDs, in words and numbers with a digit, or in what is quoted. The most frequent first.
-- Locks:   none. Index: records_item_executions.
-- A quote within a word is an apostrophe. Of a long message only the beginning counts: that keeps the patterns cheap.
with failed as (
    select data ->> 'error_type' as error_type, left(data ->> 'error_message', 1000) as message,
           (data ->> 'number')::bigint as number
    from eventic.records
    where class_type || '' = 'ItemExecution' and superseded_at is null and not tombstone
      and data ->> 'run_id' = %s and data ->> 'status' = any(%s)
), alike as (
    select *, regexp_replace(regexp_replace(regexp_replace(regexp_replace(
                  message,
                  '\m[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}\M', '#', 'gi'),
                  '(?<!\w)''[^'']*''(?!\w)|(?<!\w)"[^"]*"(?!\w)|`[^`]*`', '#', 'g'),
                  '\m\w*\d\w*\M', '#', 'g'),
                  '[-+]?#([-+.,:/ ]+#)*', '#', 'g') as pattern
    from failed
)
select error_type, min(message collate "C"), count(*), min(number), max(number),
       (array_agg(number order by number) filter (where number is not null))[1:{samples}], count(*) over ()
from alike
group by error_type, pattern
order by count(*) desc, min(number), error_type, pattern collate "C"
limit %s
