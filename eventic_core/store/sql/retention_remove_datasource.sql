-- Purpose: checkpoints that DBOS's datasources left of runs that go. Locks: the rows. Index: its primary key.
delete from dbos.{table} where workflow_id = any(%s) returning 1
