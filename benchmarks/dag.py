"""What a run of a DAG costs beside DBOS's child workflows, started layer by layer by a parent that awaits them.

A job adds the results of two jobs of the layer before. Run as `dag.py worker URL LAYERSxWIDTH ...` it is the worker of
our side, in a process beside, which knows DAGs of those shapes.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import _dbos_side as floor_side
import _measure as measure

from eventic_core import Eventic
from eventic_core.automation import automation
from eventic_core.jobs import JobContext, dag, job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from eventic_core.jobs import DagRun, DeclaredDag, DeclaredJob

STATE = "select state from eventic.dag_runs where run_id = %s"
# Purpose: how many jobs are completed, and in how many job runs, and the results of the last layer, in its order.
DONE = """
select count(distinct data ->> 'job'), count(*),
    array_agg((data ->> 'result_payload')::bigint order by (data ->> 'number')::int)
        filter (where (data ->> 'number')::int > %(jobs)s - %(width)s)
from eventic.records
where class_type = 'JobRun' and superseded_at is null
  and data ->> 'dag_run_id' = %(run)s and data ->> 'status' = 'COMPLETED'
"""
SECONDS = "select (completed_at - started_at_epoch_ms) / 1e3::float8 from dbos.workflow_status where workflow_uuid = %s"


class Shape(NamedTuple):
    """Of a DAG."""

    layers: int
    width: int

    @property
    def jobs(self) -> int:
        """How many jobs there are."""
        return self.layers * self.width

    def __str__(self) -> str:
        return f"{self.layers}x{self.width}"

    @property
    def results(self) -> list[int]:
        """What the jobs of the last layer give."""
        results = list(range(self.width))
        for _ in range(self.layers - 1):
            results = [floor_side.added(*pair) for pair in zip(results, results[1:] + results[:1], strict=True)]
        return results


CHAIN = Shape(50, 1)


class Bench(NamedTuple):
    """Where and how long to measure."""

    server: measure.Server
    url: str
    bare: psycopg.Connection[Any]
    quick: bool

    def size(self, many: int, quick: int) -> int:
        """Give so many, or those if it has to be quick."""
        return quick if self.quick else many


def first(context: JobContext) -> int:
    """Give the job's own place: the first layer has nothing to add."""
    return int(context.job.rpartition("-")[2])


@automation("one more", concurrency=8)
def one_more(item: dict[str, int]) -> int:
    """Do what an element of the mapped job does."""
    return item["value"] + 1


def up_to(count: int) -> range:
    """Give the elements of the mapped job."""
    return range(count)


@job(map="number", over=up_to, concurrency=8)
def more(number: int) -> int:
    """Do as little as a job can."""
    return number + 1


@job
def total(more: list[int]) -> int:
    """Take all results."""
    return sum(more)


MAPPED = dag("mapped", more, total)


def declare(shape: Shape) -> DeclaredDag:
    """Make the DAG of a shape."""
    jobs: list[DeclaredJob[..., int]] = [job(name=f"0-{place}")(first) for place in range(shape.width)]
    for layer, place in itertools.product(range(1, shape.layers), range(shape.width)):
        inputs = {"left": f"{layer - 1}-{place}", "right": f"{layer - 1}-{(place + 1) % shape.width}"}
        jobs.append(job(name=f"{layer}-{place}", inputs=inputs)(floor_side.added))
    return dag(f"of {shape}", *jobs)


# -- the two sides


def ours(bare: psycopg.Connection[Any], made: DeclaredDag, shape: Shape) -> tuple[float, DagRun]:
    """Run a DAG; gives the seconds from its start until its end is stored, and the run."""
    bare.execute("vacuum analyze eventic.records")
    begin = time.perf_counter()
    run = made.start()
    while bare.execute(STATE, (run.id,)).fetchall() != [("ended",)]:
        time.sleep(0.02)
    seconds = time.perf_counter() - begin
    values = {"run": str(run.id), "jobs": shape.jobs, "width": shape.width}
    completed, job_runs, results = bare.execute(DONE, values).fetchall()[0]
    check((completed, job_runs), (shape.jobs, shape.jobs))
    check(results, shape.results)
    run.refresh()
    return seconds, run


def as_workflows(bench: Bench, shape: Shape, rounds: int) -> tuple[float, float]:
    """Have a worker of DBOS do it; gives the medians of the seconds, until the end is seen and of the parent itself."""
    walls, runs = [], []
    with (
        bench.server.database(with_tables=False) as url,
        measure.beside(floor_side.__file__, url),
        floor_side.graphs(url) as run,
        bench.server.connect(url) as bare,
    ):
        run(1, min(shape.width, 20))
        for _ in range(rounds):
            begin = time.perf_counter()
            run_id, results = run(*shape)
            walls.append(time.perf_counter() - begin)
            check(results, shape.results)
            runs.append(bare.execute(SECONDS, (run_id,)).fetchall()[0][0])
    return statistics.median(walls), statistics.median(runs)


def check(found: object, expected: object) -> None:
    """Refuse to measure what did not do all the work, or did it wrong."""
    if found != expected:
        raise RuntimeError(f"the jobs gave {found}, not {expected}")


# -- rows


def rate(bench: Bench) -> Iterator[measure.Result]:
    shape, rounds = Shape(10, 100), bench.size(5, 3)
    made = declare(shape)
    with measure.beside(__file__, "worker", bench.url, str(shape)):
        ours(bench.bare, made, shape)
        seconds = statistics.median(ours(bench.bare, made, shape)[0] for _ in range(rounds))
    graph = Shape(bench.size(10, 3), 100)
    floor, _own = as_workflows(bench, graph, bench.size(3, 1))
    note = f"{shape.jobs:,} jobs in {shape.layers} layers; floor: a DBOS child workflow for each, with a step"
    ours_rate, floor_rate = shape.jobs / seconds, graph.jobs / floor
    yield measure.Result("dag", ours_rate, floor_rate, 6, unit="/s", more_is_better=True, note=note)


def each(bench: Bench) -> Iterator[measure.Result]:
    few, many, rounds = Shape(bench.size(10, 5), 100), Shape(bench.size(100, 20), 100), bench.size(3, 1)
    small, large = declare(few), declare(many)
    with measure.beside(__file__, "worker", bench.url, str(few), str(many)):
        ours(bench.bare, small, few)
        costs = {
            shape: statistics.median(ours(bench.bare, made, shape)[0] for _ in range(times)) * 1e6 / shape.jobs
            for shape, made, times in ((few, small, rounds + 2), (many, large, rounds))
        }
    note = f"with {many.jobs:,} jobs over that with {few.jobs:,}"
    yield measure.Result("dag each", costs[many], costs[few], 1.5, unit="us/each", note=note)


def edge(bench: Bench) -> Iterator[measure.Result]:
    made, rounds = declare(CHAIN), bench.size(15, 3)
    with measure.beside(__file__, "worker", bench.url, str(CHAIN)):
        ours(bench.bare, made, CHAIN)
        runs = [ours(bench.bare, made, CHAIN)[1] for _ in range(rounds)]
    ms = statistics.median(1000 * (run.duration or 0) / CHAIN.jobs for run in runs)
    _wall, floor = as_workflows(bench, CHAIN, bench.size(5, 2))
    note = f"p50 in a chain of {CHAIN.jobs}; floor: DBOS's parent calls one child after the other, with no queue"
    yield measure.Result("dag edge", ms, 1000 * floor / CHAIN.jobs, 10, unit="ms", absolute=True, note=note)


def mapped(bench: Bench) -> Iterator[measure.Result]:
    elements, rounds = bench.size(10_000, 2_000), bench.size(5, 3)
    items = [{"value": number} for number in range(elements)]
    with measure.beside(__file__, "worker", bench.url):
        floors, times = [], []
        for turn in range(rounds + 1):  # the first for nothing
            bench.bare.execute("vacuum analyze eventic.records")
            begin = time.perf_counter()
            one_more.start(one_more.batch(f"turn {turn}", items)).wait()
            floors.append(time.perf_counter() - begin)
            bench.bare.execute("vacuum analyze eventic.records")
            begin = time.perf_counter()
            run = MAPPED.start(count=elements).wait()
            times.append(time.perf_counter() - begin)
            check(run.result("total"), elements * (elements + 1) // 2)
    ours_each, floor_each = (statistics.median(found[1:]) * 1e6 / elements for found in (times, floors))
    note = f"a job for each of {elements:,} elements; floor: an automation over as many items"
    yield measure.Result("dag map", ours_each, floor_each, 1.3, unit="us/each", note=note)


MEASUREMENTS: dict[str, Callable[[Bench], Iterator[measure.Result]]] = {
    "dag": rate,
    "dag each": each,
    "dag edge": edge,
    "dag map": mapped,
}


def work(url: str, shapes: list[str]) -> None:
    """Be the worker."""
    for shape in shapes:
        declare(Shape(*map(int, shape.split("x"))))
    with measure.eventic(url):
        Eventic.launch()
        measure.wait_to_be_stopped()


def main() -> None:
    if sys.argv[1:2] == ["worker"]:
        work(sys.argv[2], sys.argv[3:])
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
