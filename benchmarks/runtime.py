"""What durable work costs over DBOS doing the same, on the same Postgres in the same run.

Floors are DBOS's own fastest public ways, at the best settings found; those of the rows handlers and latency are the
bars themselves. Run as `runtime.py worker URL` it is the worker of rows that measure one in a process beside.
"""

from __future__ import annotations

import functools
import json
import math
import random
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID  # noqa: TC003 - Pydantic reads the fields' types

import _dbos_side as floor_side
import _measure as measure
from dbos import DBOS, SQLAlchemyDatasource

from eventic_core import Eventic, Record, on
from eventic_core.records.ids import new_id
from eventic_core.records.port import installed_store
from eventic_core.settings import normalise_url
from eventic_core.store import appends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psutil
    import psycopg

APPEND_ONE = appends.APPEND_ONE[False, False]
UNFINISHED = "select 1 from dbos.workflow_status where status in ('ENQUEUED', 'PENDING') limit 1"
LEFT = "select count(*) from dbos.workflow_status where status in ('ENQUEUED', 'PENDING')"
STATUS = "select status from dbos.workflow_status where workflow_uuid = %s"
EMPTY = "truncate dbos.workflow_status, dbos.workflow_input, dbos.workflow_output cascade"
SUCCEEDED = "select count(*) from dbos.workflow_status where status = 'SUCCESS'"
# Purpose: when each quarter of what the handler writes was there; it is stored a group to a transaction.
QUARTERS = """
select percentile_disc(array[0.25, 0.5, 0.75, 1]::float8[]) within group (order by recorded_at)
from eventic.records where class_type = 'Seen' and recorded_at > %s
"""
NOW = "select clock_timestamp()"

WRITES, WARM_UP = 10, 500
QUEUE = Eventic.queue("benchmark")
WORKER = (__file__, "worker")


class Todo(Record):
    """What workflows write."""

    text: str
    priority: int = 0


class Story(Record):
    """What a handler hears of."""

    title: str


class Seen(Record):
    """What the handler writes."""

    story: UUID


@on.create(Story)
def note_seen(story: Story) -> None:
    """Write one record for each."""
    Seen(story=story.id)


@Eventic.workflow()
def write_ten(record_id: UUID) -> None:
    """Write a record ten times."""
    item = Todo.hydrate(record_id)
    for number in range(WRITES):
        item.priority = number + 1


@Eventic.workflow()
def as_workflow(number: int) -> int:
    """Do nothing, durably."""
    return number


@Eventic.step()
def as_step(number: int) -> int:
    """Do nothing."""
    return number


@Eventic.transaction()
def as_transaction(number: int) -> int:
    """Do nothing, in a transaction."""
    return number


class Bench:
    """Where and how long to measure."""

    def __init__(
        self, server: measure.Server, url: str, bare: psycopg.Connection[Any], *, rows: list[str], quick: bool
    ) -> None:
        self.server = server
        self.url = url
        self.bare = bare
        self.rows = rows
        self.quick = quick

    def size(self, many: int, quick: int) -> int:
        """Give so many, or those if it has to be quick."""
        return quick if self.quick else many


# -- a workflow that writes


def ten_transactions(source: SQLAlchemyDatasource) -> Callable[[list[tuple[Any, ...]]], None]:
    """Make the workflow that sends statements as DBOS's datasource does it: each a transaction and a step."""

    def write(values: tuple[Any, ...]) -> int:
        return len(source.sql_session().connection().exec_driver_sql(APPEND_ONE, values).fetchall())

    @DBOS.workflow(name="ten_transactions")
    def send(number: int) -> None:
        for values in sent[number]:
            source.run_tx_step({"name": "write", "isolation_level": "READ COMMITTED"}, write, values)

    sent: list[list[tuple[Any, ...]]] = []

    def run(values: list[tuple[Any, ...]]) -> None:
        sent.append(values)
        send(len(sent) - 1)

    return run


def workflow(bench: Bench) -> Iterator[measure.Result]:
    rounds, warm_up = bench.size(60, 12), 5
    options = {"pool_pre_ping": False}
    source = SQLAlchemyDatasource.create(normalise_url(bench.url), engine_kwargs=options)  # before DBOS is launched
    send = ten_transactions(source)
    Eventic.launch()
    generation = bench.bare.execute("select generation from eventic.handlers_generation").fetchall()[0][0]
    items = [Todo(text="ours").id for _ in range(rounds + warm_up)]
    others = [Todo(text="floor").id for _ in range(rounds + warm_up)]
    sent = [[next_version(other, 1 + write, generation) for write in range(WRITES)] for other in others]
    ours, floor = measure.side_by_side(
        lambda number: write_ten(items[number]), lambda number: send(sent[number]), rounds=rounds, warm_up=warm_up
    )
    source.engine.dispose()
    if any(Todo.hydrate(record_id).version != WRITES for record_id in items + others):
        raise RuntimeError("workflow: not every version is stored")
    note = f"{WRITES} writes and the read before them"
    yield measure.Result("workflow", ours, floor, 6, more_is_better=True, note=note)


def next_version(record_id: UUID, version: int, generation: int) -> tuple[Any, ...]:
    """Give the parameters of the store's own statement."""
    data = json.dumps({"properties": {}, "text": "floor", "priority": version})
    values = (new_id(), record_id, version, "Todo", data, False, 1, None, None, None, None, None, None)
    return (record_id, version, generation, *values)


# -- enqueueing


def enqueue(bench: Bench) -> Iterator[measure.Result]:
    with floor_side.enqueueing(bench.url):
        ours, floor = measure.side_by_side(
            lambda number: QUEUE.enqueue(as_step, number),
            lambda number: DBOS.enqueue_workflow(floor_side.QUEUE, floor_side.trivial, number),
            rounds=bench.size(1500, 200),
        )
    yield measure.Result("enqueue", 1e6 / ours, 1e6 / floor, 2, unit="/s", more_is_better=True)


def enqueue_bulk(bench: Bench) -> Iterator[measure.Result]:
    count = bench.size(20_000, 3_000)
    times: dict[str, list[float]] = {"ours": [], "floor": []}
    QUEUE.enqueue(as_step, 0)  # makes DBOS's tables
    with floor_side.client(bench.url) as send:
        sides: dict[str, Callable[[], object]] = {
            "ours": lambda: QUEUE.enqueue_many(as_step, ((number,) for number in range(count))),
            "floor": lambda: send(count),
        }
        for _ in range(bench.size(3, 1)):
            for side, call in sides.items():
                bench.bare.execute(EMPTY)
                times[side].append(measure.microseconds(call) / count)
    ours, floor = (1e6 / statistics.median(times[side]) for side in ("ours", "floor"))
    note = f"{count:,} in a transaction"
    yield measure.Result("enqueue bulk", ours, floor, 8, unit="/s", more_is_better=True, note=note)


# -- draining


def drain(bench: Bench) -> Iterator[measure.Result]:
    functions = {"drain": as_workflow, "drain step": as_step, "drain transaction": as_transaction}
    count, rounds = bench.size(3000, 600), bench.size(5, 1)
    with measure.beside(*WORKER, bench.url):
        rates = {
            row: drained(bench.bare, functools.partial(fill, functions[row]), count, rounds)
            for row in functions
            if row in bench.rows
        }
    with (  # one worker at a time: an idle one of DBOS would take a tenth of our core
        bench.server.database(with_tables=False) as url,
        measure.beside(floor_side.__file__, url),
        floor_side.client(url) as send,
        bench.server.connect(url) as bare,
    ):
        floor = drained(bare, send, count, rounds)
    for row, rate in rates.items():
        yield measure.Result(row, rate, floor, 2.5, unit="/s", more_is_better=True, note=f"{count:,}")


def fill(function: Callable[[int], int], count: int) -> None:
    QUEUE.enqueue_many(function, ((number,) for number in range(count)))


def drained(bare: psycopg.Connection[Any], send: Callable[[int], object], count: int, rounds: int) -> float:
    """Enqueue work in one transaction, which shows it all at once; gives the pieces done in a second from then."""
    rates = []
    for size in (200, *[count] * rounds):
        bare.execute(EMPTY)
        send(size)
        seconds = measure.microseconds(lambda: wait_until_drained(bare)) / 1e6
        done = bare.execute(SUCCEEDED).fetchall()[0][0]
        if done != size:
            raise RuntimeError(f"drain: {done} of {size} were done")
        rates.append(size / seconds)
    return statistics.median(rates[1:])


def wait_until_drained(bare: psycopg.Connection[Any]) -> None:
    while bare.execute(UNFINISHED).fetchall():
        time.sleep(0.02)


# -- handlers


def handlers(bench: Bench) -> Iterator[measure.Result]:
    count = bench.size(100_000, 10_000)
    with measure.beside(*WORKER, bench.url) as worker:
        Story.create_many([{"title": "warm-up"}] * WARM_UP)
        wait_for_handlers(bench, worker)
        warm = bench.bare.execute(NOW).fetchall()[0][0]
        Story.create_many({"title": f"Story {number}"} for number in range(count))
        start = bench.bare.execute(NOW).fetchall()[0][0]
        quarter_bytes, end_bytes = wait_for_handlers(bench, worker)
    if Seen.where().count() != count + WARM_UP:
        raise RuntimeError("handlers: not every record was handled once")
    quarters = bench.bare.execute(QUARTERS, (warm,)).fetchall()[0][0]
    first, second, third, last = ((moment - start).total_seconds() for moment in quarters)
    note = f"{count:,} records; {quarter_bytes / 1e6:.0f} MB after a quarter, {end_bytes / 1e6:.0f} MB at the end"
    yield measure.Result("handlers", count / last, 2000, 1, unit="/s", more_is_better=True, note=note)
    each = 1e6 / (count / 4)
    note = "last quarter over the second" + (" (quick: not of 100,000)" if bench.quick else "")
    yield measure.Result(
        "handlers flat", (last - third) * each, (second - first) * each, 1.3, unit="us/each", note=note
    )


def wait_for_handlers(bench: Bench, worker: psutil.Process) -> tuple[int, int]:
    """Wait until no work is left; gives the worker's memory when a quarter of it was done, and at the end."""
    total = bench.bare.execute(LEFT).fetchall()[0][0]
    left, at_quarter = total, 0
    while left:
        time.sleep(0.02)
        left = bench.bare.execute(LEFT).fetchall()[0][0]
        if not at_quarter and left <= total * 0.75:
            at_quarter = worker.memory_info().rss
    return at_quarter, worker.memory_info().rss


# -- latency


def latency(bench: Bench) -> Iterator[measure.Result]:
    Eventic.launch()
    yield from one_by_one(bench, "latency", 10)


def latency_across(bench: Bench) -> Iterator[measure.Result]:
    with measure.beside(*WORKER, bench.url):
        if "latency across" in bench.rows:
            yield from one_by_one(bench, "latency across", 10)
        if "latency silent" in bench.rows:
            store: Any = installed_store()
            store.work.serves = lambda _queue: True  # so that nobody is notified
            yield from one_by_one(bench, "latency silent", 150)


def one_by_one(bench: Bench, row: str, bar: float) -> Iterator[measure.Result]:
    """Enqueue now and then, and see how long it takes until the result is stored."""
    samples = bench.size(100, 10)
    for number in range(5):
        sample(bench, number)
    times = []
    for number in range(samples):
        time.sleep(random.uniform(0.2, 0.4))  # in no step with any poll
        times.append(sample(bench, number) / 1000)
    times.sort()
    p50, p99 = statistics.median(times), times[math.ceil(0.99 * samples) - 1]
    yield measure.Result(row, p50, bar, 1, unit="ms", note=f"p50 of {samples}; p99 {p99:.1f} ms")


def sample(bench: Bench, number: int) -> float:
    return measure.microseconds(lambda: wait_for(bench, QUEUE.enqueue(as_workflow, number).id))


def wait_for(bench: Bench, run_id: str) -> None:
    while bench.bare.execute(STATUS, (run_id,)).fetchall() != [("SUCCESS",)]:
        time.sleep(0.0005)


MEASUREMENTS: list[tuple[list[str], Callable[[Bench], Iterator[measure.Result]]]] = [
    (["workflow"], workflow),
    (["enqueue"], enqueue),
    (["enqueue bulk"], enqueue_bulk),
    (["drain", "drain step", "drain transaction"], drain),
    (["handlers", "handlers flat"], handlers),
    (["latency"], latency),
    (["latency across", "latency silent"], latency_across),
]


def work(url: str) -> None:
    """Be the worker."""
    with measure.eventic(url):
        Eventic.launch()
        measure.wait_to_be_stopped()


def main() -> None:
    if sys.argv[1:2] == ["worker"]:
        work(sys.argv[2])
        return
    wanted = measure.arguments(__doc__ or "", [row for rows, _call in MEASUREMENTS for row in rows])

    def results() -> Iterator[measure.Result]:
        for rows, call in MEASUREMENTS:
            if not set(rows) & set(wanted.rows):
                continue
            with server.database() as url, measure.eventic(url), server.connect(url) as bare:
                bench = Bench(server, url, bare, rows=wanted.rows, quick=wanted.quick)
                yield from (result for result in call(bench) if result.row in wanted.rows)

    with measure.server(wanted.database_url) as server:
        measure.report(results(), as_json=wanted.json)


if __name__ == "__main__":
    main()
