"""Counting: the counters of runs are moved by rows that are inserted into a view, each in statements of its own.

A statement that finds a row changed since it began looks at its whole plan again. That of a slice of a run is long, and
the counters of its run have always been changed meanwhile.

A migration is frozen once released: it repeats the tables instead of importing them, because they will move on.
Workers of the release before go on with it: they change the counters themselves.
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SCHEMA = "eventic"
STATUSES = ("pending", "processing", "retrying", "completed", "failed", "cancelled", "skipped")
MOVED = ", ".join(f"{name} = {name} + new.{name}" for name in STATUSES)

# Purpose: how many items of a run, or of its batch, went to (above 0) and from (below 0) each status, and which errors.
# More failed than the run tolerates, of all or of a class of errors, stops it.
COUNT = f"""
create view {SCHEMA}.run_moves as
    select run_id, batch_execution_id, {", ".join(STATUSES)},
           null::text[] as error_types, null::bigint[] as error_counts
    from {SCHEMA}.run_counters where false;
comment on view {SCHEMA}.run_moves is 'what is inserted here is added to run_counters and run_failures';

create function {SCHEMA}.count_moves() returns trigger language plpgsql as $$
declare
    is_whole boolean := new.batch_execution_id = '00000000-0000-0000-0000-000000000000';
    is_over boolean := false;
begin
    perform from {SCHEMA}.run_counters
    where run_id = new.run_id and batch_execution_id = new.batch_execution_id
    for no key update;
    if not found then
        return null;
    end if;
    if new.error_types is not null then
        if is_whole then
            insert into {SCHEMA}.run_failures as f (run_id, error_type, failed)
            select new.run_id, e.error_type, e.failed
            from unnest(new.error_types, new.error_counts) as e (error_type, failed)
            order by e.error_type
            on conflict (run_id, error_type) do update set failed = f.failed + excluded.failed;
        end if;
        is_over := exists (
            select from {SCHEMA}.run_failures
            where run_id = new.run_id and error_type = any(new.error_types) and failed > tolerated
        );
    end if;
    update {SCHEMA}.run_counters
    set {MOVED}, changed_at = clock_timestamp(),
        state = case
            when state in ('running', 'paused') and (failed + new.failed > tolerated or is_over) then 'stopped'
            else state
        end
    where run_id = new.run_id and batch_execution_id = new.batch_execution_id;
    return new;
end $$;

create trigger run_moves_count instead of insert on {SCHEMA}.run_moves for each row
    execute function {SCHEMA}.count_moves()"""


def upgrade() -> None:
    """Add the view and its trigger."""
    op.execute(COUNT)


def downgrade() -> None:
    """Drop them."""
    op.execute(f"drop view {SCHEMA}.run_moves")
    op.execute(f"drop function {SCHEMA}.count_moves()")
