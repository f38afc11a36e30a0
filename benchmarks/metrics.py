"""What metrics cost: a scrape at a million runs and records beside one at a hundred thousand; spans nobody records.

The tables are filled by SQL: of the runs six in ten have ended, two are ready in twenty queues, and two are delayed.
"""

from __future__ import annotations

import statistics
from contextlib import contextmanager
from typing import TYPE_CHECKING

import _measure as measure

from eventic_core import Eventic
from eventic_core.operations.metrics import render
from eventic_core.runtime import adapter, counts, process, tracing
from eventic_core.store import probe
from eventic_core.store.metrics import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventic_core.store.engine import Database

MANY, QUICK, FEW = 1_000_000, 300_000, 100_000
# Of the few, each queue has as many ready as are looked at: a thousand.
RUNS = """
insert into dbos.workflow_status (workflow_uuid, status, name, queue_name, application_version, delay_until_epoch_ms,
                                  created_at, updated_at, priority)
select 'run ' || n,
       case when n %% 10 < 6 then 'SUCCESS' when n %% 10 < 8 then 'ENQUEUED' else 'DELAYED' end,
       'bench', 'queue ' || n / 10 %% 20, '1',
       case when n %% 10 >= 8 then (extract(epoch from clock_timestamp()) * 1000)::bigint + n %% 1000000 end,
       n, n, 0
from generate_series(1, %s::bigint) n
"""
RECORDS = """
insert into eventic.records (version_id, id, version, class_type, data)
select gen_random_uuid(), gen_random_uuid(), 0, 'Bench', jsonb_build_object('text', n)
from generate_series(1, %s::bigint) n
"""
LETTERS = """
insert into eventic.dead_letters (id, handler, class_type, record_id, version, attempts, error)
select gen_random_uuid(), 'handler ' || n %% 5, 'Bench', gen_random_uuid(), 0, 1, '{}'
from generate_series(1, %s::bigint) n
"""
COUNTERS = """
insert into eventic.run_counters (run_id, batch_execution_id, state, total)
select gen_random_uuid(), '00000000-0000-0000-0000-000000000000', 'ended', 1 from generate_series(1, %s::bigint) n
"""


@contextmanager
def filled(server: measure.Server, rows: int) -> Iterator[Database]:
    """Give a database with so many runs and records, and a tenth of letters and automations' runs, vacuumed."""
    with server.database() as url:
        adapter.migrate(url)
        with server.connect(url) as connection:
            for sql, count in ((RUNS, rows), (RECORDS, rows), (LETTERS, rows // 10), (COUNTERS, rows // 10)):
                connection.execute(sql, (count,))
            connection.execute("vacuum analyze")
        Eventic.init(name="benchmarks", database_url=url)
        try:
            yield process().store.database
        finally:
            Eventic.shutdown()


def milliseconds(call: Callable[[], object], rounds: int) -> float:
    """Give the median of some calls, after one that warms up."""
    call()
    return statistics.median(measure.microseconds(call) for _ in range(rounds)) / 1000


def measure_scrape(server: measure.Server, *, quick: bool) -> Iterator[measure.Result]:
    """Yield what a scrape costs."""
    rounds = 10 if quick else 30
    with filled(server, FEW) as database:
        floor = milliseconds(lambda: read(database), rounds)
    many = QUICK if quick else MANY
    with filled(server, many) as database:
        found = read(database)
        assert found is not None
        assert None not in found, found
        ours = milliseconds(lambda: read(database), rounds)
        ready = milliseconds(lambda: probe.probe(database), rounds)
        rendered = milliseconds(render, rounds)
    note = f"{many:,} runs and as many records over {FEW:,}; the text, once read: {rendered:.1f} ms"
    yield measure.Result("metrics", ours, floor, 2, unit="ms", note=note)
    yield measure.Result("readiness", ready, ready, 50, unit="ms", note="with its connection", absolute=True)


def measure_off() -> Iterator[measure.Result]:
    """Yield what is paid for traces and counts where nobody asks for either."""
    rounds = 200_000

    def spans() -> None:
        for _ in range(rounds):
            with tracing.span("item", "bench", run__id="r", attempt=1):
                pass

    def additions() -> None:
        for _ in range(rounds):
            counts.ATTEMPTS.add("item", "done")

    note = "an item of a batch takes some 300 us"
    for row, call in (("span, off", spans), ("count", additions)):
        cost = min(measure.microseconds(call) for _ in range(5)) / rounds
        yield measure.Result(row, cost, cost, 1.5, unit="us", note=note, absolute=True)


def main() -> None:
    arguments = measure.arguments("Measure what metrics, readiness and spans cost.", ["scrape", "off"])

    def results() -> Iterator[measure.Result]:
        if "off" in arguments.rows:
            yield from measure_off()
        if "scrape" in arguments.rows:
            with measure.server(arguments.database_url) as server:
                yield from measure_scrape(server, quick=arguments.quick)

    measure.report(results(), as_json=arguments.json)


if __name__ == "__main__":
    main()
