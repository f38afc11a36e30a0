"""The doctor: what is well with a system, what is not, and what to do about it; judged from facts that were read.

Owns the checks of the server and the tables, and the order of all; `stranded` judges the workers and their work.
Everything but `examine` is a function of values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from eventic_core.errors import StoreUnavailable
from eventic_core.runtime import stranded
from eventic_core.runtime.findings import LIMITS, Finding, Limits, Status, duration, ok, problem, unread, warning
from eventic_core.store import health
from eventic_core.store.health import Unread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventic_core.store.health import Health, OpenTransaction, Server, TableFacts

_OLDEST_SERVER: Final = 140000


class Examination(NamedTuple):
    """The findings about a system, in the order of the checks."""

    findings: tuple[Finding, ...]
    is_reachable: bool = True

    @property
    def exit_code(self) -> int:
        """0 if there is no problem, 1 if there is one, 3 if the database cannot be reached."""
        if not self.is_reachable:
            return StoreUnavailable.exit_code
        return int(any(finding.status is Status.PROBLEM for finding in self.findings))


def examine(url: str, *, target: str | None = None) -> Examination:
    """Look at the system in a database once, changing nothing.

    Args:
        url: The database; it may be empty, or away.
        target: How remedies name the application to start a worker of.

    Raises:
        ConfigurationError: `url` is not one of Postgres.
    """
    try:
        found = health.read(url)
    except StoreUnavailable as error:
        remedy = (
            "check that the server runs, that the URL names it, and that it accepts this user and one more session."
        )
        return Examination((Finding(check="database", status=Status.PROBLEM, found=str(error), remedy=remedy),), False)
    return Examination(tuple(diagnose(found, target=target)))


def diagnose(found: Health, *, target: str | None = None, limits: Limits = LIMITS) -> Iterator[Finding]:
    """Judge what was read; gives at least one finding for each check, in the order in which to look at them.

    Args:
        found: What was read.
        target: How remedies name the application; default `TARGET`.
        limits: Between well and not.
    """
    yield _database(found.server, limits)
    yield _settings(found.server)
    yield from _migrations(found)
    yield _connections(found, limits)
    yield _clock(found.server, limits)
    yield from stranded.diagnose(found, target or "TARGET", limits)
    yield from _transactions(found, limits)
    yield _feed(found)
    yield from _vacuum(found, limits)
    yield _transaction_ids(found.server, limits)
    yield _sizes(found)


# -- the server


def _database(server: Server, limits: Limits) -> Finding:
    line = (
        f"Postgres {server.version}, database {server.database} as {server.role}, "
        f"a round trip takes {server.latency_seconds * 1000:.1f} ms"
    )
    if server.version_number < _OLDEST_SERVER:
        return problem("database", line, "eventic_core needs Postgres 14 or newer: upgrade the server.")
    if server.is_replica:
        remedy = "name the primary in the database URL."
        return problem("database", f"{line}; it is a replica and takes no writes", remedy)
    if server.is_read_only:
        remedy = "switch default_transaction_read_only off again, once whoever set it (a full disk?) agrees."
        return problem("database", f"{line}; it is read-only", remedy)
    if server.latency_seconds > limits.latency_seconds:
        remedy = "every write waits for it: bring workers nearer to the server, or see what the server is busy with."
        return warning("database", line, remedy)
    return ok("database", line)


def _settings(server: Server) -> Finding:
    if server.encoding != "UTF8":
        found = f"the database's encoding is {server.encoding}, which cannot hold all JSON"
        return problem("settings", found, "dump it and restore it into one with encoding UTF8.")
    if lossy := [name for name in server.off if name in ("fsync", "full_page_writes")]:
        found = f"{' and '.join(lossy)} off: what is committed is lost or torn when the machine stops"
        return problem(
            "settings", found, f"set {' and '.join(f'{name} = on' for name in lossy)} and reload the server."
        )
    if server.off:
        found = f"{' and '.join(server.off)} off: dead rows pile up and nobody is told"
        return problem("settings", found, f"set {' and '.join(f'{name} = on' for name in server.off)} and reload.")
    return ok("settings", "as needed; no extension is")


def _migrations(found: Health) -> Iterator[Finding]:
    revisions = found.revisions
    for check, now, needed in (
        ("migrations", revisions.found, revisions.needed),
        ("dbos_migrations", revisions.dbos_found, revisions.dbos_needed),
    ):
        whose = "eventic's tables" if check == "migrations" else "DBOS's tables"
        if isinstance(now, Unread):
            yield unread(check, now)
        elif now is None and check == "dbos_migrations" and revisions.found is not None:
            remedy = "run `eventic migrate` before background work is to be done."
            yield warning(check, "DBOS's tables are not there: no worker was ever launched here", remedy)
        elif now is None:
            yield problem(check, f"{whose} are not there", "run `eventic migrate`.")
        elif int(now) < int(needed):
            found_now = f"{whose} are at revision {now}, this version needs {needed}"
            yield problem(check, found_now, "run `eventic migrate`.")
        elif int(now) > int(needed) and check == "migrations":
            remedy = "this eventic_core is older than the tables: run the doctor, and the workers, of the newer one."
            yield problem(check, f"{whose} are at revision {now}, this version knows {needed}", remedy)
        else:
            yield ok(check, f"{whose} are at revision {now}")


def _connections(found: Health, limits: Limits) -> Finding:
    now = found.connections
    if isinstance(now, Unread):
        return unread("connections", now)
    share, line = now.used / max(now.limit, 1), f"{now.used} of {now.limit} in use, {now.of_database} of this database"
    if now.database_limit is not None:
        share = max(share, now.of_database / max(now.database_limit, 1))
        line += f", which may have {now.database_limit}"
    remedy = "see who holds them in pg_stat_activity; lower EVENTIC_POOL_SIZE, run fewer processes, or raise the limit."
    if share >= limits.connections_problem_share:
        return problem("connections", line, remedy)
    return warning("connections", line, remedy) if share >= limits.connections_share else ok("connections", line)


def _clock(server: Server, limits: Limits) -> Finding:
    apart = abs(server.ahead_seconds)
    way = "ahead of" if server.ahead_seconds > 0 else "behind"
    line = f"the server's clock is {apart:.3f} s {way} this machine's"
    remedy = "synchronise both with NTP; liveness and due times go by the server's alone."
    if apart >= limits.clock_problem_seconds:
        return problem("clock", line, remedy)
    return warning("clock", line, remedy) if apart >= limits.clock_seconds else ok("clock", line)


# -- what stands in the way


def _transactions(found: Health, limits: Limits) -> Iterator[Finding]:
    now = found.transactions
    if isinstance(now, Unread):
        yield unread("transactions", now)
        return
    hidden = 0 if isinstance(found.horizon, Unread) else found.horizon.hidden
    unseen = f"; {hidden} sessions of other roles are not visible to this role" if hidden else ""
    old = [open_one for open_one in now if open_one.seconds >= limits.transaction_seconds]
    for open_one in old:
        is_problem = open_one.seconds >= limits.transaction_problem_seconds
        make = problem if is_problem else warning
        yield make("transactions", _transaction(open_one), _ending(open_one))
    if not old:
        oldest = f"the oldest is {duration(now[0].seconds)} old" if now else "none is open that holds anything back"
        yield ok("transactions", oldest + unseen)


def _transaction(one: OpenTransaction) -> str:
    held = " and ".join(
        what for what, holds in (("the change feed", one.holds_feed), ("vacuum", one.holds_vacuum)) if holds
    )
    who = one.program if one.pid is None else f"{one.program} (process {one.pid}, {one.user} from {one.machine})"
    line = f"{who} has had a transaction open for {duration(one.seconds)}"
    return f"{line}, {one.state} in {one.database}: it holds back {held}"


def _ending(one: OpenTransaction) -> str:
    if one.pid is None:
        gid = one.program.removeprefix("prepared transaction ")
        return f"end it: `commit prepared '{gid}'` or `rollback prepared '{gid}'`."
    return (
        f"end the program, or `select pg_terminate_backend({one.pid})`; "
        "idle_in_transaction_session_timeout ends such by itself."
    )


def _feed(found: Health) -> Finding:
    if isinstance(found.is_feed_ahead, Unread):
        return unread("feed", found.is_feed_ahead)
    if found.is_feed_ahead:
        line = "the change feed stands still: its transaction ids are ahead of the server's, as after restoring a dump"
        return problem("feed", line, "see Known limits in ARCHITECTURE.md.")
    if isinstance(found.horizon, Unread):
        return unread("feed", found.horizon)
    return ok("feed", f"{found.horizon.behind:,} transactions behind the newest")


def _vacuum(found: Health, limits: Limits) -> Iterator[Finding]:
    if isinstance(found.tables, Unread):
        yield unread("vacuum", found.tables)
        return
    for table in found.tables:
        yield _rows(table, limits)
    if not found.tables:
        yield ok("vacuum", "there are no tables yet")


def _rows(table: TableFacts, limits: Limits) -> Finding:
    share = table.dead / max(table.dead + table.alive, 1)
    when = "never vacuumed" if table.vacuumed_seconds is None else f"vacuumed {duration(table.vacuumed_seconds)} ago"
    line = f"{table.name}: {table.dead:,} of {table.dead + table.alive:,} rows are dead ({share:.0%}), {when}"
    remedy = f"end what the transactions check names, then `vacuum (analyze) {table.name}`; see autovacuum's settings."
    if table.is_excluded:
        off = f"`alter table {table.name} reset (autovacuum_enabled)`, then `vacuum (analyze) {table.name}`."
        return problem("vacuum", f"{line}; autovacuum is switched off for it", off)
    if table.dead >= limits.dead_problem_rows and share >= limits.dead_problem_share:
        return problem("vacuum", line, remedy)
    return warning("vacuum", line, remedy) if _is_much(table, share, limits) else ok("vacuum", line)


def _is_much(table: TableFacts, share: float, limits: Limits) -> bool:
    return table.dead >= limits.dead_rows and share >= limits.dead_share


def _transaction_ids(server: Server, limits: Limits) -> Finding:
    line = f"the oldest one not frozen is {server.transaction_age:,} transactions old; at 2,100,000,000 all writes stop"
    remedy = "end old transactions, then `vacuum freeze` the tables with the greatest age(relfrozenxid)."
    if server.transaction_age >= limits.transaction_problem_age:
        return problem("transaction_ids", line, remedy)
    is_old = server.transaction_age >= limits.transaction_age
    return warning("transaction_ids", line, remedy) if is_old else ok("transaction_ids", line)


def _sizes(found: Health) -> Finding:
    if isinstance(found.sizes, Unread):
        return unread("sizes", found.sizes)
    named = {size.name: size.size_bytes for size in found.sizes}
    whole = named.pop("", 0)
    largest = ", ".join(f"{name} {_bytes(number)}" for name, number in named.items())
    return ok("sizes", f"the database has {_bytes(whole)}" + (f"; {largest}" if largest else ""))


def _bytes(size: int) -> str:
    amount, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1024:  # noqa: PLR2004 - of a unit
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if amount >= 10 or unit == "B" else f"{amount:.1f} {unit}"  # noqa: PLR2004 - two digits
