"""What a run over a batch costs beside a DBOS workflow for each item, and beside bare SQL for many items at once.

All three keep each item's status and result, and 1 % of the items fail once and are tried again. Run as
`batch.py worker URL` it is the worker of our side, in a process beside.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import _dbos_side as floor_side
import _measure as measure

from eventic_core import Eventic, Retry
from eventic_core.automation import ItemContext, automation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psutil
    import psycopg

WORKER = (__file__, "worker")
AGAIN = Retry(max_attempts=3, delay_seconds=0)
FAILING = 100
"""One item in so many fails once."""
CHUNK = 500
"""Items in a statement of bare SQL: as many as share one of ours."""
STATE = "select state from eventic.run_counters where run_id = %s and workflow_id is not null"
STATUSES = """
select count(*) filter (where data ->> 'status' = 'COMPLETED'), count(*) filter (where data ->> 'attempt_count' = '2')
from eventic.records where class_type = 'ItemExecution' and superseded_at is null
  and data ->> 'run_id' = %s
"""
LEFT = "select 1 from dbos.workflow_status where status in ('ENQUEUED', 'PENDING') limit 1"
DONE = "select count(*), count(*) filter (where attempts = 2) from bench_item where status = 'COMPLETED'"
ITEM_TABLE = """
create table bench_item (
    number bigint primary key, status text not null, attempts int not null default 0, payload jsonb not null,
    result jsonb
)
"""
FILL = """
insert into bench_item (number, status, payload)
select n, 'PENDING', jsonb_build_object('number', n) from generate_series(1, %s) n
"""
CLAIM = """
update bench_item set status = 'PROCESSING', attempts = attempts + 1
where number between %s and %s and status in ('PENDING', 'RETRYING') returning number, payload, attempts
"""
KEEP = """
update bench_item b set status = i.status, result = i.result::jsonb
from unnest(%s::bigint[], %s::text[], %s::text[]) as i (number, status, result) where b.number = i.number
"""


@automation("benchmark", retry=AGAIN, concurrency=6)  # while some groups are stored, others are done
def square(item: dict[str, int], context: ItemContext) -> dict[str, int]:
    """Do next to nothing, so that what is measured is the engine."""
    number = item["number"]
    if number % FAILING == 0 and context.attempt == 1:
        raise ConnectionError(f"{number} fails once")
    return {"square": number * number}


class Bench(NamedTuple):
    """Where and how long to measure."""

    server: measure.Server
    url: str
    bare: psycopg.Connection[Any]
    quick: bool

    def size(self, many: int, quick: int) -> int:
        """Give so many, or those if it has to be quick."""
        return quick if self.quick else many


def rows(count: int) -> Iterator[dict[str, int]]:
    return ({"number": number} for number in range(1, count + 1))


# -- the three sides


def ours(bare: psycopg.Connection[Any], count: int, worker: psutil.Process) -> tuple[float, int]:
    """Run over a new batch; gives items a second from its start to its end, and the worker's peak of memory."""
    batch = square.batch(f"of {count} at {time.time_ns()}", rows(count))
    bare.execute("vacuum analyze eventic.records")
    peak = 0
    begin = time.perf_counter()
    run = square.start(batch)
    while bare.execute(STATE, (run.id,)).fetchall() != [("ended",)]:
        peak = max(peak, worker.memory_info().rss)
        time.sleep(0.02)
    seconds = time.perf_counter() - begin
    check("batch", bare.execute(STATUSES, (str(run.id),)).fetchall()[0], count)
    return count / seconds, peak


def as_sql(bare: psycopg.Connection[Any], count: int) -> float:
    """Do the same with two statements for each chunk of items, and no history; gives items a second."""
    bare.execute(ITEM_TABLE)
    bare.execute(FILL, (count,))
    begin = time.perf_counter()
    for first in range(1, count + 1, CHUNK):
        while True:
            with bare.transaction():
                claimed = bare.execute(CLAIM, (first, first + CHUNK - 1)).fetchall()
                kept = [keep(number, payload, attempt) for number, payload, attempt in claimed]
                if kept:
                    bare.execute(KEEP, tuple(map(list, zip(*kept, strict=True))))
            if all(status == "COMPLETED" for _number, status, _result in kept):
                break
    return count / (time.perf_counter() - begin)


def keep(number: int, payload: dict[str, int], attempt: int) -> tuple[int, str, str | None]:
    if number % FAILING == 0 and attempt == 1:
        return number, "RETRYING", None
    return number, "COMPLETED", json.dumps({"square": payload["number"] ** 2})


def as_workflows(bench: Bench, count: int) -> float:
    """Let a worker of DBOS do a workflow for each item, each with a transaction of its own; gives items a second."""
    with (
        bench.server.database(with_tables=False) as url,
        bench.server.connect(url) as bare,
    ):
        bare.execute(ITEM_TABLE)
        bare.execute(FILL, (count,))
        with (
            measure.beside(floor_side.__file__, url, "--items", "--concurrency", "32"),
            floor_side.client(url, "item") as send,
        ):
            send(count)
            begin = time.perf_counter()
            while bare.execute(LEFT).fetchone():
                time.sleep(0.05)
            seconds = time.perf_counter() - begin
        (done,) = bare.execute(DONE).fetchall()
    check("floor", done, count)
    return count / seconds


def check(row: str, done: tuple[int, int], count: int) -> None:
    """Refuse to measure what did not do all the work: every item, and some twice."""
    if done != (count, count // FAILING):
        raise RuntimeError(f"{row}: {done[0]} items done, {done[1]} of them twice, of {count}")


# -- rows


def batch(bench: Bench) -> Iterator[measure.Result]:
    count, rounds, of_floor = bench.size(10_000, 4_000), bench.size(5, 1), bench.size(1_000, 150)
    floors = [as_workflows(bench, of_floor)]  # before and after, for the machine has other work now and then
    with measure.beside(*WORKER, bench.url) as worker:
        ours(bench.bare, 200, worker)
        rates = [ours(bench.bare, count, worker)[0] for _ in range(rounds)]
    rate = statistics.median(rates)
    floors.append(as_workflows(bench, of_floor))
    floor = statistics.mean(floors)
    note = f"{count:,} items, 1 % fail once; floor: a DBOS workflow with a transaction for each"
    yield measure.Result("batch", rate, floor, 50, unit="/s", more_is_better=True, note=note)
    with bench.server.database(with_tables=False) as url, bench.server.connect(url) as bare:
        sql = as_sql(bare, count)
    note = f"floor: two statements for each {CHUNK} items, no history, no queue, one process"
    yield measure.Result("batch sql", 1e6 / rate, 1e6 / sql, 10, unit="us/each", note=note)


def memory(bench: Bench) -> Iterator[measure.Result]:
    few, many = bench.size(10_000, 1_000), bench.size(200_000, 10_000)
    with measure.beside(*WORKER, bench.url) as worker:
        ours(bench.bare, 200, worker)
        _rate, small = ours(bench.bare, few, worker)
        rate, large = ours(bench.bare, many, worker)
    note = f"worker's peak with {many:,} items over that with {few:,}; {many:,} at {rate:,.0f}/s"
    yield measure.Result("batch memory", large / 1e6, small / 1e6, 1.25, unit="MB", note=note)


MEASUREMENTS: dict[str, Callable[[Bench], Iterator[measure.Result]]] = {"batch": batch, "batch memory": memory}


def work(url: str) -> None:
    """Be the worker."""
    with measure.eventic(url):
        Eventic.launch()
        measure.wait_to_be_stopped()


def main() -> None:
    if sys.argv[1:2] == ["worker"]:
        work(sys.argv[2])
        return
    wanted = measure.arguments(__doc__ or "", list(MEASUREMENTS))

    def results() -> Iterator[measure.Result]:
        for row in wanted.rows:
            with server.database() as url, measure.eventic(url), server.connect(url) as bare:
                yield from MEASUREMENTS[row](Bench(server, url, bare, wanted.quick))

    with measure.server(wanted.database_url) as server:
        measure.report(results(), as_json=wanted.json)


if __name__ == "__main__":
    main()
