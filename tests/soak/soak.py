"""A mixed load on two workers, and what they hold on to meanwhile: `soak.py --minutes 30 --folder DIR`.

The load is a steady one that two workers easily do; the figures of each look are printed, and judged at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `histories` is; pytest has put it there already

import psutil
import psycopg
import soak_load as load
from histories import WRONG_HISTORIES
from soak_worker import POOL_SIZE

from eventic_core import Eventic, later
from eventic_core.errors import Conflict, RunNotFound
from eventic_core.runtime import runs

WORKERS, LEDGERS, TURNS = 2, 10, 5
WORKER = Path(__file__).with_name("soak_worker.py")
MOST_CONNECTIONS = 3 * POOL_SIZE + 3
"""Of a worker: twice `pool_size` for records, once for DBOS, and the slot, DBOS's listener and a moment's one apart."""
MEMORY_GROWTH, MOST_BYTES = 0.05, 6 << 20
"""Of the last third over the middle one: 5 %, some 6 MB. Arenas that fragment and caches that fill make up to 3 % in a
short run; a leak of a kilobyte for each piece of work makes 5 % in 5,000 pieces, a minute of this load."""
OBJECT_GROWTH = 0.15
"""The same of objects, counted without garbage: what work in hand holds makes them differ by a tenth from look to look.
Some 15,000 are there at rest, so that one object more for each piece of work is seen in half a minute."""
MOST_THREADS, MOST_FILES = 10, 4
"""More of them. A worker keeps as many threads as it ever had at work at once, which a busy moment adds to; one more
for each run that is watched or stopped would be hundreds."""
OPEN = "status in ('ENQUEUED', 'PENDING', 'DELAYED') and name <> 'eventic.schedule'"
LEFT = {
    "work is left over": f"select workflow_uuid, name, status, queue_name from dbos.workflow_status where {OPEN}",
    "work failed": "select workflow_uuid, name from dbos.workflow_status where status = 'ERROR'",
    "somebody waits for a run that has ended": "select run_id, work_id from eventic.waits",
    **WRONG_HISTORIES,
    "something was made twice": """
        select class_type, data ->> 'name', count(*) from eventic.records
        where class_type in ('SoakMade', 'SoakSeen') and version = 0 group by 1, 2 having count(*) > 1""",
    "a version was not handled": """
        select o.id, o.version from eventic.records o where o.class_type = 'SoakOrder' and not exists (
            select from eventic.records s
            where s.class_type = 'SoakSeen' and s.data ->> 'name' = o.id || ' ' || o.version)""",
    "a run of items or jobs has not ended": """
        select class_type, id, data ->> 'status' from eventic.records
        where class_type in ('Run', 'DagRun', 'BatchExecution', 'ItemExecution', 'JobRun') and superseded_at is null
          and data ->> 'status' not in ('COMPLETED', 'FAILED', 'CANCELLED', 'SKIPPED')""",
    "a dead letter": "select handler, error from eventic.dead_letters",
    "a table that should stay small": """
        select name, rows from (values ('workers', (select count(*) from eventic.workers)),
            ('rate_limits', (select count(*) from eventic.rate_limits)),
            ('schedules', (select count(*) from eventic.schedules)),
            ('handlers', (select count(*) from eventic.handlers)),
            ('queues', (select count(*) from dbos.queues))) t (name, rows) where rows > 16""",
}
"""What is wrong once nothing is under way any more, by what is said when the query gives a row."""
SIZES = """
select relname, pg_total_relation_size(oid) from pg_class
where relkind = 'r' and relnamespace::regnamespace::text in ('eventic', 'dbos') order by 2 desc limit 4"""
DONE = "select count(*) from dbos.workflow_status where status not in ('ENQUEUED', 'PENDING', 'DELAYED')"


class Worker:
    """A worker process; `log` is what it says on stderr."""

    def __init__(self, url: str, log: Path) -> None:
        self.log = log
        with log.open("w") as file:
            self._child = subprocess.Popen(
                [sys.executable, WORKER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True
            )
        self.process = psutil.Process(self._child.pid)

    def wait(self) -> None:
        assert self._read() == "launched"

    def held(self) -> dict[str, int]:
        assert self._child.stdin is not None
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        found: dict[str, int] = json.loads(self._read())
        return found

    def end(self) -> int:
        """Let it drain; gives its exit code."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        return self._child.wait(100)

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                stream.close()

    def _read(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline().strip()


class Look(NamedTuple):
    """What there was at one moment; lists have a number for each worker."""

    second: float
    bytes: list[int]
    objects: list[int]
    threads: list[int]
    files: list[int]
    connections: int
    backlog: int
    done: int
    server_bytes: int


class Soak:
    """The load, the workers and the looks at them.

    Args:
        url: A database with the tables, nobody else's.
        folder: For the workers' logs.
        told: Called with a line about each minute.
    """

    def __init__(self, url: str, folder: Path, told: Callable[[str], object]) -> None:
        self.url = url
        self.told = told
        self.folder = folder
        self.looks: list[Look] = []
        self.workers: list[Worker] = []
        self.entered = 0

    def begin(self) -> None:
        """Connect, and start the workers."""
        Eventic.init(name="soak driver", database_url=self.url, pool_size=2)
        self._bare = psycopg.connect(self.url, autocommit=True, application_name="looks")
        self.workers += [Worker(self.url, self.folder / f"worker-{number}.log") for number in range(WORKERS)]
        for worker in self.workers:
            worker.wait()
        self.ledgers = [load.SoakLedger(name=f"ledger {number}") for number in range(LEDGERS)]
        self.schedule = load.SOAK_TICKS.schedule("every second", overlap="allow")

    def work(self, seconds: float, *, look_seconds: float) -> None:
        """Enqueue a little of everything five times a second, and look now and then."""
        start = time.monotonic()
        next_look = look_seconds
        for number in range(int(seconds * TURNS)):
            self._enqueue(number)
            if (passed := time.monotonic() - start) >= next_look:
                self._look(passed)
                next_look += look_seconds
            if passed >= seconds:
                break
            time.sleep(max(0.0, start + (number + 1) / TURNS - time.monotonic()))
        self.schedule.refresh()
        self.schedule.pause()

    def _enqueue(self, number: int) -> None:
        """All kinds of work, each at its own rate."""
        order = load.SoakOrder(name=f"plain {number}")
        order.raise_by(1)
        later(order.raise_by, 2)
        load.queue.enqueue(load.enter, self.ledgers[number % LEDGERS].id)
        self.entered += 1
        load.queue.enqueue(load.trade if number % 4 else load.trade_async, f"run {number}", run_id=f"run-{number}")
        if number % 10 == 1:
            self._cancel(f"cancelled-{number}")
        if number % 20 == 2:
            load.SOAK_DAG.start()
        if number % 50 == 3:
            rows = ({"of": number, "number": row} for row in range(100))
            load.soak_import.start(load.soak_import.batch(f"batch {number}", rows))

    def _cancel(self, run: str) -> None:
        load.queue.enqueue(load.trade, run, run_id=run)
        try:
            runs.cancel(run)
        except (Conflict, RunNotFound):
            return  # it was quicker

    def _look(self, second: float) -> None:
        held = [worker.held() for worker in self.workers]
        backends = self._rows(
            "select pid from pg_stat_activity where datname = current_database() and application_name like 'soak %%'"
            " and application_name not like 'soak driver%%'"
        )
        look = Look(
            second=second,
            bytes=[worker.process.memory_info().rss for worker in self.workers],
            **{name: [each[name] for each in held] for name in ("objects", "threads", "files")},
            connections=len(backends),
            backlog=self._number(f"select count(*) from dbos.workflow_status where {OPEN}"),
            done=self._number(DONE),
            server_bytes=max(map(private_bytes, (pid for (pid,) in backends)), default=0),
        )
        self.told(self._line(look))
        self.looks.append(look)

    def _line(self, look: Look) -> str:
        last = self.looks[-1] if self.looks else None
        rate = (look.done - last.done) / (look.second - last.second) if last else look.done / look.second
        sizes = ", ".join(f"{name} {megabytes(size)}" for name, size in self._rows(SIZES))
        return (
            f"{look.second / 60:5.1f} min: {'/'.join(map(megabytes, look.bytes))} MB,"
            f" objects {'/'.join(map(str, look.objects))}, threads {'/'.join(map(str, look.threads))},"
            f" files {'/'.join(map(str, look.files))}, {look.connections} connections (largest backend"
            f" {megabytes(look.server_bytes)} MB), backlog {look.backlog}, {rate:.0f} runs/s; MB: {sizes}"
        )

    def settle(self, seconds: float = 60) -> None:
        """Wait until nothing is left to do, for so long at most."""
        deadline = time.monotonic() + seconds
        unended = LEFT["a run of items or jobs has not ended"]
        while self._rows(LEFT["work is left over"]) or self._rows(unended):
            if time.monotonic() > deadline:
                return  # `problems` is about to say so
            time.sleep(0.2)

    def problems(self) -> list[str]:
        """Say what is wrong: with what is left, the memory, the connections, and the logs."""
        found = [f"{what}: {rows[0]}" for what, sql in LEFT.items() if (rows := self._rows(sql))]
        if (entered := sum(load.SoakLedger.hydrate(each.id).entered for each in self.ledgers)) != self.entered:
            found.append(f"{self.entered} were entered, but there are {entered}")
        found += grown(self.looks)
        if (most := max(look.connections for look in self.looks)) > WORKERS * MOST_CONNECTIONS:
            found.append(f"{most} connections, more than {WORKERS * MOST_CONNECTIONS}")
        codes = [worker.end() for worker in self.workers]
        if any(codes):
            found.append(f"workers ended with {codes}")
        found += [f"logged: {line}" for worker in self.workers for line in complaints(worker.log.read_text())]
        return found

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        self._bare.close()
        Eventic.shutdown()

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._bare.execute(sql).fetchall()

    def _number(self, sql: str) -> int:
        return int(self._rows(sql)[0][0])


def thirds(values: list[int]) -> tuple[float, float]:
    """Give the medians of the middle and the last third."""
    size = len(values) // 3
    return statistics.median(values[size : 2 * size]), statistics.median(values[-size:])


def grown(looks: list[Look]) -> Iterator[str]:
    """Say what the last third of the looks has more of than the middle one; the first is for warming up."""
    for number in range(WORKERS):
        middle, last = thirds([look.bytes[number] for look in looks])
        if last - middle > max(middle * MEMORY_GROWTH, MOST_BYTES):
            yield f"worker {number} grew from {megabytes(middle)} to {megabytes(last)} MB"
        middle, last = thirds([look.objects[number] for look in looks])
        if last > middle * (1 + OBJECT_GROWTH):
            yield f"worker {number} grew from {middle:.0f} to {last:.0f} objects"
        for what, most in (("threads", MOST_THREADS), ("files", MOST_FILES)):
            middle, last = thirds([getattr(look, what)[number] for look in looks])
            if last > middle + most:
                yield f"worker {number} went from {middle:.0f} to {last:.0f} {what}"


def private_bytes(pid: int) -> int:
    """Give what a backend has for itself, prepared statements included; 0 where it is not on this machine."""
    try:
        return int(psutil.Process(pid).memory_full_info().uss)
    except psutil.Error:
        return 0


def complaints(log: str) -> list[str]:
    """Give the lines of a log that say something went wrong."""
    words = ("ERROR", "CRITICAL", "WARNING", "Traceback", "Exception", "Error", "Warning")
    return [line for line in log.splitlines() if not line.startswith("TRACE") and any(word in line for word in words)]


def megabytes(size: float) -> str:
    return f"{size / 2**20:.1f}"


def soak(url: str, folder: Path, *, seconds: float, look_seconds: float, told: Callable[[str], object]) -> list[str]:
    """Do it all; gives what is wrong."""
    run = Soak(url, folder, told)
    try:
        run.begin()
        run.work(seconds, look_seconds=look_seconds)
        run.settle()
        return run.problems()
    finally:
        run.close()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Soak for some minutes; gives 1 if anything is wrong."""
    from eventic_core.store.embedded import start_embedded

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument(
        "--folder", type=Path, required=True, help="for the server and the logs; user nobody must reach it"
    )
    asked = parser.parse_args()
    say(f"{asked.minutes:g} minutes on {os.cpu_count()} cores, logs in {asked.folder}")
    server = start_embedded(asked.folder)
    try:
        Eventic.init(name="soak", database_url=server.url)
        Eventic.shutdown()
        seconds = asked.minutes * 60
        found = soak(server.url, asked.folder, seconds=seconds, look_seconds=min(60.0, seconds / 15), told=say)
    finally:
        server.release()
    for line in found:
        say(f"PROBLEM {line}")
    say(f"{asked.minutes:g} minutes: {len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
