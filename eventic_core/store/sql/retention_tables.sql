-- Purpose: whether runs were ever made in this database, and whether DBOS's datasources keep checkpoints in it.
-- Locks:   none. Index: none.
select to_regclass('dbos.workflow_status') is not null, to_regclass('dbos.datasource_outputs') is not null
