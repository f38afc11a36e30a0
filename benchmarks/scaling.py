"""Where one Postgres is no longer enough for a load: a model of sums, with what pieces of work cost as its inputs.

The built-in costs were measured on one machine; `--measure` measures them here first. It knows nothing of queues that
form near a limit: trust it to a factor of two, and leave room.
"""

from __future__ import annotations

import argparse
import contextlib
import threading
import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import _measure as measure
import psutil

from eventic_core import Eventic, Record, on
from eventic_core.automation import automation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_counting = threading.Lock()
FACTORS = (1, 2, 5, 10, 20, 50, 100)
BUSY = 0.7
"""Of a core or a disk that may be used: above it waiting grows faster than work."""
PEOPLE = 20
"""Connections for whoever is neither worker nor web process."""
MEASURED = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one piece of work costs.

    Attributes:
        server_us: Of a core, in the server's backends.
        worker_us: Of a core, in the process that does it.
        wal_bytes: Written ahead; what crosses to replicas and archives too.
        disk_bytes: Of tables and indexes, for as long as it is kept.
        dead_rows: Left to vacuum.
    """

    server_us: float
    worker_us: float
    wal_bytes: float
    disk_bytes: float
    dead_rows: float


COSTS = {
    "writes": Cost(server_us=720, worker_us=950, wal_bytes=1_070, disk_bytes=550, dead_rows=0.6),
    "handlers": Cost(server_us=2_500, worker_us=2_800, wal_bytes=3_400, disk_bytes=1_800, dead_rows=2.0),
    "runs": Cost(server_us=3_000, worker_us=2_800, wal_bytes=2_800, disk_bytes=1_200, dead_rows=1.8),
    "steps": Cost(server_us=1_250, worker_us=4_100, wal_bytes=600, disk_bytes=380, dead_rows=0.1),
    "items": Cost(server_us=1_250, worker_us=950, wal_bytes=6_300, disk_bytes=4_400, dead_rows=0.3),
}
"""Of a version written by plain code, a version handled, a workflow, a step of it, and an item that writes a record.
Measured on two cores that were busy with other work, which makes CPU dear: a quiet machine needs a half or a third."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One Postgres."""

    cores: float
    wal_mb: float
    connections: int
    disk_gb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What a load needs of it, and what follows."""

    cores: float
    wal_mb: float
    connections: int
    disk_gb: float
    workers: int
    rows_per_day: float
    dead_rows: float


def need(rates: dict[str, float], costs: dict[str, Cost], wanted: argparse.Namespace) -> Need:
    """Add up what a load of so many pieces of each kind a second needs."""

    def total(what: str) -> float:
        return sum(rate * float(getattr(costs[kind], what)) for kind, rate in rates.items())

    by_workers = {kind: rate for kind, rate in rates.items() if kind != "writes"}  # those are the web processes'
    busy = sum(rate * costs[kind].worker_us for kind, rate in by_workers.items()) / 1e6
    workers = max(2, round(busy / BUSY + 0.5))
    a_day = 3600 * wanted.hours
    return Need(
        cores=total("server_us") / 1e6,
        wal_mb=total("wal_bytes") / 2**20,
        connections=workers * (3 * wanted.pool_size + 3) + wanted.web * (2 * wanted.pool_size + 1) + PEOPLE,
        disk_gb=total("disk_bytes") * a_day * wanted.days / 2**30,
        workers=workers,
        rows_per_day=sum(rates.values()) * a_day,
        dead_rows=total("dead_rows"),
    )


THEN = {
    "cores": "a larger machine; fewer writes (batches, one scope for several changes); then a database for each tenant",
    "wal_mb": "faster disks for WAL; smaller documents; then a database for each tenant",
    "connections": "a smaller pool_size, fewer and larger workers; raise max_connections (5 to 10 MB each)",
    "disk_gb": "retention rules; a larger disk",
}


def limits(found: Need, machine: Machine) -> dict[str, float]:
    """Give how much of each of the machine's limits is used, 1 being all that should be."""
    room = {"cores": BUSY, "wal_mb": BUSY, "connections": 1.0, "disk_gb": 0.8}
    return {name: getattr(found, name) / (getattr(machine, name) * part) for name, part in room.items()}


def table(wanted: argparse.Namespace, costs: dict[str, Cost], machine: Machine) -> Iterator[str]:
    """Say what the load needs, times more and more, and which limit comes first."""
    rates = {kind: getattr(wanted, kind) for kind in COSTS}
    load = ", ".join(f"{rate:,g} {kind}" for kind, rate in rates.items())
    yield f"{load} a second, {wanted.hours:g} hours a day, kept {wanted.days:g} days"
    yield (
        f"on {machine.cores:g} cores, {machine.wal_mb:g} MB/s of WAL, {machine.connections} connections, "
        f"{machine.disk_gb:,g} GB"
    )
    yield (
        f"{'load':>5} {'cores':>9} {'WAL MB/s':>9} {'workers':>8} {'connections':>12} {'rows a day':>15} {'GB kept':>9}"
        f" {'dead rows/s':>12}  over"
    )
    for factor in FACTORS:
        found = need({kind: rate * factor for kind, rate in rates.items()}, costs, wanted)
        over = [name for name, part in limits(found, machine).items() if part > 1]
        yield (
            f"{factor:>4}x {found.cores:>9.1f} {found.wal_mb:>9.1f} {found.workers:>8} {found.connections:>12}"
            f" {found.rows_per_day:>15,.0f} {found.disk_gb:>9,.0f} {found.dead_rows:>12,.0f}  {', '.join(over)}"
        )
    for name, then in THEN.items():
        times = most(rates, costs, wanted, machine, name)
        yield f"{name:>12} ends at {times:,.1f}x: {then}"


def most(
    rates: dict[str, float], costs: dict[str, Cost], wanted: argparse.Namespace, machine: Machine, name: str
) -> float:
    """Find how many times the load fits into one of the limits."""
    low, high = 0.0, 1e6
    for _ in range(60):
        factor = (low + high) / 2
        found = need({kind: rate * factor for kind, rate in rates.items()}, costs, wanted)
        low, high = (factor, high) if limits(found, machine)[name] <= 1 else (low, factor)
    return low


# -- what things cost here


class ScalingThing(Record):
    """Something with a handler."""

    text: str
    count: int = 0


class ScalingPlain(Record):
    """Something without."""

    text: str
    count: int = 0


class Heard:
    """How many versions the handler has seen."""

    count = 0


@on.create(ScalingThing, name="scaling.heard")
def heard(_thing: ScalingThing) -> None:
    with _counting:
        Heard.count += 1


@Eventic.step(name="scaling.stepped")
def stepped(number: int) -> int:
    return number


@Eventic.workflow(name="scaling.walk")
def walk(steps: int) -> int:
    return sum(stepped(number) for number in range(steps))


@automation("scaling item")
def make(item: dict[str, Any]) -> None:
    ScalingPlain(text=f"item {item['number']}")


class Meter:
    """Reads what the server and this process have used so far."""

    def __init__(self, server: measure.Server, url: str) -> None:
        self._bare = server.connect(url)
        self._own = psutil.Process()
        assert server.log is not None
        pid_file = server.log.parent / "data" / "postmaster.pid"
        self._postmaster = psutil.Process(int(pid_file.read_text().split()[0]))

    def close(self) -> None:
        """Close the connection."""
        self._bare.close()

    def cost(self, pieces: int, work: Callable[[], object]) -> Cost:
        """Do so many pieces of work; gives what each cost."""
        before = self._read()
        work()
        after = self._read()
        server_us, worker_us, wal, disk, dead = ((b - a) / pieces for a, b in zip(before, after, strict=True))
        return Cost(
            server_us=server_us * 1e6, worker_us=worker_us * 1e6, wal_bytes=wal, disk_bytes=disk, dead_rows=dead
        )

    def _ended(self) -> float:
        """Give the CPU time of the server's processes that have ended."""
        times = self._postmaster.cpu_times()
        return float(times.children_user + times.children_system)

    def _read(self) -> tuple[float, ...]:
        time.sleep(1.2)  # until backends have told what they did
        sizes = """
            select sum(pg_total_relation_size(relid)), sum(n_tup_upd + n_tup_del) from pg_stat_user_tables"""
        disk, dead = self._bare.execute(sizes).fetchall()[0]
        wal = self._bare.execute("select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')").fetchall()[0][0]
        used = sum(map(seconds, (self._postmaster, *self._postmaster.children())), self._ended())
        own = self._own.cpu_times()
        return used, own.user + own.system, float(wal), float(disk), float(dead)


def seconds(process: psutil.Process) -> float:
    """Give the CPU time of a process."""
    with contextlib.suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return times.user + times.system
    return 0.0


def write(count: int) -> None:
    """Write versions one by one, half of them the first of a record."""
    for number in range(count // 2):
        ScalingPlain(text=f"text {number}").count = number + 1


def plain(count: int) -> None:
    for number in range(count):
        ScalingPlain(text=f"text {number}")


def handled(count: int) -> None:
    """Write so many records one by one, and wait until each was handled."""
    until = Heard.count + count
    for number in range(count):
        ScalingThing(text=f"text {number}")
    while Heard.count < until:
        time.sleep(0.02)


def walked(count: int, steps: int) -> None:
    queue = Eventic.queue("scaling")
    for handle in [queue.enqueue(walk, steps) for _ in range(count)]:
        handle.result(timeout_seconds=120)


def imported(count: int) -> None:
    batch = make.batch(f"{count} items", ({"number": number} for number in range(count)))
    make.start(batch).wait(timeout_seconds=120)


def less(cost: Cost, part: Cost, times: float = 1.0) -> Cost:
    """Take what other work in it costs away, and share the rest."""
    names = [each.name for each in fields(Cost)]
    return Cost(**{name: max(0.0, getattr(cost, name) - getattr(part, name)) / times for name in names})


def measured(server: measure.Server) -> dict[str, Cost]:
    """Measure each kind of work, done by this very process."""
    with server.database() as url, measure.eventic(url), contextlib.closing(Meter(server, url)) as meter:
        Eventic.launch()
        for warm in (write, handled, imported):
            warm(100)
        walked(20, 2)
        found = {"writes": meter.cost(MEASURED, lambda: write(MEASURED))}
        alone = meter.cost(MEASURED, lambda: plain(MEASURED))
        found["handlers"] = less(meter.cost(MEASURED, lambda: handled(MEASURED)), alone)
        found["runs"] = meter.cost(MEASURED // 5, lambda: walked(MEASURED // 5, 0))
        found["steps"] = less(meter.cost(MEASURED // 5, lambda: walked(MEASURED // 5, 5)), found["runs"], 5)
        found["items"] = meter.cost(MEASURED, lambda: imported(MEASURED))
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for kind, rate in {"writes": 200, "handlers": 100, "runs": 20, "steps": 60, "items": 100}.items():
        parser.add_argument(f"--{kind}", type=float, default=rate, help="a second, while it is busy")
    parser.add_argument("--hours", type=float, default=10, help="a day in which it is busy")
    parser.add_argument("--days", type=float, default=90, help="for which all of it is kept")
    parser.add_argument("--web", type=int, default=4, help="web processes")
    parser.add_argument("--pool-size", type=int, default=10)
    parser.add_argument("--cores", type=float, default=16)
    parser.add_argument("--wal-mb", type=float, default=100, help="a second that its disk takes, and its replicas")
    parser.add_argument("--connections", type=int, default=500)
    parser.add_argument("--disk-gb", type=float, default=2000)
    parser.add_argument("--measure", action="store_true", help="measure what work costs here, in half a minute")
    wanted = parser.parse_args()
    costs = COSTS
    if wanted.measure:
        with measure.server(None) as server:
            costs = measured(server)
        for kind, cost in costs.items():
            print(f"{kind:>9}: " + ", ".join(f"{f.name} {getattr(cost, f.name):,.1f}" for f in fields(cost)))
    machine = Machine(cores=wanted.cores, wal_mb=wanted.wal_mb, connections=wanted.connections, disk_gb=wanted.disk_gb)
    for line in table(wanted, costs, machine):
        print(line)


if __name__ == "__main__":
    main()
