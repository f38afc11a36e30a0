"""What a worker costs while there is nothing to do: 100 record classes, of which 10 have background work.

The floor is a worker of DBOS by itself with 10 queues, polled once a second. Run as `idle.py worker URL` it is ours.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import _dbos_side as floor_side
import _measure as measure
import psutil
from psycopg import errors as pg

from eventic_core import Eventic, Record, on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CLASSES, WITH_WORK = 100, 10
BACKENDS = "select pid from pg_stat_activity where datname = %s"
CALLS = """
select sum(calls) from pg_stat_statements s join pg_database d on d.oid = s.dbid where d.datname = %s
"""
TRANSACTIONS = "select xact_commit + xact_rollback from pg_stat_database where datname = %s"
LOGGED = re.compile(rb"LOG:  (?:statement|execute [^:]+): ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a worker and its Postgres did in a while; parts of a core in percent."""

    worker_percent: float
    backends_percent: float
    statements_per_second: float
    threads: int
    connections: int


class Meter:
    """Reads what a worker has used so far, over a connection to another database."""

    def __init__(self, server: measure.Server, name: str, worker: psutil.Process) -> None:
        self._server = server
        self._name = name
        self._worker = worker
        self._bare = server.connect(server.url)
        self.source, self._count = self._counter()

    def close(self) -> None:
        """Close the connection."""
        self._bare.close()

    def cost(self, seconds: float) -> Cost:
        """Watch it for a while."""
        backends, statements, worker = self._backends(), self._count(), cpu_seconds([self._worker])
        start = time.monotonic()
        time.sleep(seconds)
        passed = time.monotonic() - start
        worker = cpu_seconds([self._worker]) - worker
        after = self._backends()
        used = sum(after[pid] - backends.get(pid, 0.0) for pid in after)
        return Cost(
            worker_percent=worker / passed * 100,
            backends_percent=used / passed * 100,
            statements_per_second=(self._count() - statements) / passed,
            threads=self._worker.num_threads(),
            connections=len(after),
        )

    def _backends(self) -> dict[int, float]:
        """Give the CPU time of the database's backends; 0 each where they are not on this machine."""
        rows = self._bare.execute(BACKENDS, (self._name,)).fetchall()
        return {pid: cpu_seconds([psutil.Process(pid)]) if self._server.log else 0.0 for (pid,) in rows}

    def _counter(self) -> tuple[str, Callable[[], int]]:
        """Choose how to count statements: best by the server's log, which has each, begin and commit included."""
        log = self._server.log
        if log is not None:
            return "in the server's log", lambda: len(LOGGED.findall(log.read_bytes()))
        try:
            self._number(CALLS)
        except (pg.UndefinedTable, pg.ObjectNotInPrerequisiteState):
            return "transactions, not statements", lambda: self._number(TRANSACTIONS)
        return "in pg_stat_statements", lambda: self._number(CALLS)

    def _number(self, sql: str) -> int:
        return int(self._bare.execute(sql, (self._name,)).fetchall()[0][0] or 0)


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """Add up what processes have used, in user and system mode."""
    used = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):  # a backend that has just ended
            times = process.cpu_times()
            used += times.user + times.system
    return used


def idle(server: measure.Server, *command: str, with_tables: bool, seconds: float) -> tuple[Cost, str]:
    """Watch a worker in a process beside, once it has settled."""
    with server.database(with_tables=with_tables) as url:
        with server.connect(url) as connection:
            name = connection.info.dbname
            if server.log is not None:
                connection.execute(f"alter database {name} set log_statement = 'all'")
        first, *options = command
        with (
            measure.beside(first, *(option.format(url=url) for option in options)) as worker,
            contextlib.closing(Meter(server, name, worker)) as meter,
        ):
            time.sleep(2)
            return meter.cost(seconds), meter.source


def measure_idle(server: measure.Server, *, quick: bool) -> Iterator[measure.Result]:
    seconds = 5 if quick else 20
    ours, source = idle(server, __file__, "worker", "{url}", with_tables=True, seconds=seconds)
    dbos = (floor_side.__file__, "{url}", "--queues", str(WITH_WORK), "--concurrency", "10", "--interval-seconds", "1")
    floor, _ = idle(server, *dbos, with_tables=False, seconds=seconds)
    backends = (
        f"; its Postgres {ours.backends_percent:.1f} % (floor {floor.backends_percent:.1f})" if server.log else ""
    )
    note = f"{CLASSES} classes, {WITH_WORK} with work; {ours.threads} threads (floor {floor.threads}){backends}"
    yield measure.Result("idle cpu", ours.worker_percent, floor.worker_percent, 3, unit="%", note=note, absolute=True)
    note = f"counted {source}; {ours.connections} connections (floor {floor.connections})"
    yield measure.Result(
        "idle statements",
        ours.statements_per_second,
        floor.statements_per_second,
        35,
        unit="/s",
        note=note,
        absolute=True,
    )


def with_text(namespace: dict[str, Any]) -> None:
    """Fill the body of a record class."""
    namespace |= {"__annotations__": {"text": str}, "__module__": __name__}


def work(url: str) -> None:
    """Be the worker."""
    for number in range(CLASSES):
        made: Any = types.new_class(f"Kind{number}", (Record,), {}, with_text)
        if number < WITH_WORK:
            on.create(made, name=f"hear_of_{number}")(lambda _record: None)
    with measure.eventic(url):
        Eventic.launch()
        measure.wait_to_be_stopped()


def main() -> None:
    if sys.argv[1:2] == ["worker"]:
        work(sys.argv[2])
        return
    wanted = measure.arguments(__doc__ or "", ["idle cpu", "idle statements"])
    with measure.server(wanted.database_url) as server:
        results = measure_idle(server, quick=wanted.quick)
        measure.report((result for result in results if result.row in wanted.rows), as_json=wanted.json)


if __name__ == "__main__":
    main()
