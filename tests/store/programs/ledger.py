"""Record classes of the crash and concurrency tests, and what must hold in their table; for tests and programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from eventic_core import Record, evented

if TYPE_CHECKING:
    from uuid import UUID


class LedgerCounter(Record):
    """One number that many writers raise."""

    value: int = 0

    @evented(retry=1000)
    def increment(self) -> None:
        """Add one, again after every conflict."""
        self.value += 1

    def increment_once(self) -> None:
        """Add one, or raise VersionConflict."""
        self.value += 1


class LedgerAccount(Record, unique=("name",)):
    """One side of transfers whose sum is zero; `transfer` names the last one."""

    name: str
    balance: int = 0
    transfer: str | None = None
    group: str = "one"


def rows(url: str, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Read with plain SQL on a connection of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(sql, parameters).fetchall()


def wait_until_alone(url: str) -> None:
    """Wait until no backend of a dead process still works in the database."""
    others = """select count(*) from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"""
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(1000):
            if connection.execute(others).fetchall() == [(0,)]:
                return
            connection.execute("select pg_sleep(0.01)")
    raise AssertionError("the backends of a dead process do not end")


def table_problems(url: str) -> list[str]:
    """Name what is broken in the chain of versions of any record, whatever its class."""
    checks = {
        "versions have gaps": """select id from eventic.records group by id
            having min(version) <> 0 or max(version) <> count(*) - 1""",
        "not exactly one current row": """select id from eventic.records group by id
            having count(*) filter (where superseded_at is null) <> 1""",
        "the current row is not the last": """select id from eventic.records r where superseded_at is null
            and exists (select from eventic.records n where n.id = r.id and n.version > r.version)""",
        "superseded_at is not the next recorded_at": """select id, version from (
            select id, version, superseded_at, lead(recorded_at) over w as next from eventic.records
            window w as (partition by id order by version)) t where superseded_at is distinct from next""",
        "recorded_at does not rise": """select id, version from (
            select id, version, recorded_at, lag(recorded_at) over w as last from eventic.records
            window w as (partition by id order by version)) t where recorded_at <= last""",
        "the feed does not rise with versions": """select id, version from (
            select id, version, xid, position, lag(xid) over w as lx, lag(position) over w as lp from eventic.records
            window w as (partition by id order by version)) t where (xid, position) <= (lx, lp)""",
    }
    return [f"{name}: {found[:3]}" for name, sql in checks.items() if (found := rows(url, sql))]


def ledger_problems(url: str) -> list[str]:
    """Name what is broken in the transfers and unique keys of accounts."""
    checks = {
        "the current sum is not zero": """select sum((data->>'balance')::int) from eventic.records
            where class_type = 'LedgerAccount' and superseded_at is null
            having sum((data->>'balance')::int) <> 0""",
        "a transfer has not both sides": """select transfer, n, moved from (
            select transfer, count(*) as n, sum(balance - last_balance) as moved from (
                select data->>'transfer' as transfer, (data->>'balance')::int as balance,
                       lag(data->>'transfer') over w as last_transfer,
                       lag((data->>'balance')::int) over w as last_balance
                from eventic.records where class_type = 'LedgerAccount'
                window w as (partition by id order by version)) v
            where transfer is distinct from last_transfer group by transfer) t
            where n <> 2 or moved <> 0""",
        "a key without its record": """select record_id, value from eventic.record_keys k
            where scope = 'LedgerAccount' and not exists (select from eventic.records r
                where r.id = k.record_id and superseded_at is null and not tombstone
                and r.data->'name' = k.value::jsonb)""",
        "a record without its key": """select id, version from eventic.records r
            where class_type = 'LedgerAccount' and superseded_at is null and not tombstone and not exists (
                select from eventic.record_keys k where k.record_id = r.id and k.name = 'name'
                and r.data->'name' = k.value::jsonb)""",
    }
    return [f"{name}: {found[:3]}" for name, sql in checks.items() if (found := rows(url, sql))]


def torn_moments(url: str, *, group: str = "one") -> list[tuple[Any, ...]]:
    """Give the moments, of all at which an account changed, as of which the balances do not sum to zero."""
    return rows(
        url,
        """with accounts as materialized (
               select recorded_at, superseded_at, tombstone, (data->>'balance')::int as balance from eventic.records
               where class_type = 'LedgerAccount' and data->>'group' = %s)
           select m.moment, s.total from (select distinct recorded_at as moment from accounts) m
           cross join lateral (select sum(balance) as total from accounts a where recorded_at <= m.moment
               and (superseded_at is null or superseded_at > m.moment) and not tombstone) s
           where s.total <> 0 order by 1""",
        group,
    )


def versions(url: str, record_id: UUID) -> list[tuple[int, dict[str, Any]]]:
    """Read a record's versions and documents."""
    return rows(url, "select version, data from eventic.records where id = %s order by version", record_id)
