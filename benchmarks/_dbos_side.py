"""DBOS by itself, the floor of what the runtime costs: trivial workflows on queues, or of a parent; no import of ours.

Run as a script it is a worker on queues `floor-0`, `floor-1` and so on, until its standard input ends.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from typing import TYPE_CHECKING

import sqlalchemy as sa
from dbos import DBOS, DBOSClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dbos import DBOSConfig, WorkflowHandle

VERSION = "1"
"""Stated, as everybody does who enqueues from elsewhere: else each claim looks the latest one up."""
QUEUE = "floor-0"


@DBOS.workflow()
def trivial(number: int) -> int:
    """Do nothing, durably."""
    return number


def added(left: int, right: int) -> int:
    """Add, and keep the sum short however often that is done."""
    return (left + right) % 1_000_003


@DBOS.step()
def add(left: int, right: int) -> int:
    """Add, in a step."""
    return added(left, right)


@DBOS.workflow()
def child(left: int, right: int) -> int:
    """Be a job of a graph."""
    return add(left, right)


@DBOS.workflow()
def graph(layers: int, width: int) -> list[int]:
    """Do layers of children, each but the first of them on the results of two of the layer before."""
    values = [(number, 0) for number in range(width)]
    for layer in range(layers):
        handles = [DBOS.start_workflow(child, *pair) for pair in values]
        results = [handle.get_result() for handle in handles]
        if layer == layers - 1:
            return results
        values = [(result, results[(place + 1) % width]) for place, result in enumerate(results)]
    return []


KEEP = """
update bench_item set status = 'COMPLETED', attempts = :attempts, result = cast(:result as jsonb) where number = :number
"""


def queue_name(number: int) -> str:
    """Name a queue."""
    return f"floor-{number}"


def config(url: str) -> DBOSConfig:
    """Give DBOS's defaults, less the ping that precedes each transaction: its own retries make up for it."""
    return {
        "name": "benchmarks",
        "system_database_url": url,
        "application_version": VERSION,
        "db_engine_kwargs": {"pool_pre_ping": False},
        "log_level": "ERROR",
    }


@contextlib.contextmanager
def enqueueing(url: str) -> Iterator[None]:
    """Launch DBOS in this process to enqueue only: it listens to no queue."""
    DBOS(config=config(url))
    DBOS.listen_queues([])
    DBOS.launch()
    try:
        DBOS.register_queue(QUEUE)
        yield
    finally:
        DBOS.destroy()


@contextlib.contextmanager
def client(url: str, workflow: str = "trivial") -> Iterator[Callable[[int], None]]:
    """Give what enqueues so many in one transaction of DBOS's client."""
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    dbos = DBOSClient(system_database_engine=engine)

    def send(count: int) -> None:
        with engine.begin() as connection:
            for number in range(count):
                dbos.enqueue_in_transaction(
                    connection,
                    {"queue_name": QUEUE, "workflow_name": workflow, "app_version": VERSION},
                    number,
                )

    try:
        yield send
    finally:
        dbos.destroy()
        engine.dispose()


@contextlib.contextmanager
def graphs(url: str) -> Iterator[Callable[[int, int], tuple[str, list[int]]]]:
    """Give what has a graph done, and gives the id of its workflow and the results of its last layer."""
    engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
    dbos = DBOSClient(system_database_engine=engine)

    def run(layers: int, width: int) -> tuple[str, list[int]]:
        handle: WorkflowHandle[list[int]] = dbos.enqueue(
            {"queue_name": QUEUE, "workflow_name": "graph", "app_version": VERSION}, layers, width
        )
        return handle.get_workflow_id(), handle.get_result(polling_interval_sec=0.02)

    try:
        yield run
    finally:
        dbos.destroy()
        engine.dispose()


def define_items(url: str) -> None:
    """Define a workflow that does an item of table bench_item, in a transaction; one in a hundred fails once."""
    from dbos import SQLAlchemyDatasource

    source = SQLAlchemyDatasource.create(
        sa.make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False),
        engine_kwargs={"pool_pre_ping": False, "pool_size": 40},
    )

    def attempt(number: int, attempts: int) -> dict[str, int]:
        if number % 100 == 0 and attempts == 1:
            raise ConnectionError(f"{number} fails once")
        result = {"square": number * number}
        values = {"number": number, "attempts": attempts, "result": json.dumps(result)}
        source.sql_session().execute(sa.text(KEEP), values)
        return result

    @DBOS.workflow(name="item")
    def item(number: int) -> dict[str, int]:
        number += 1
        for attempts in (1, 2):
            try:
                return source.run_tx_step({"name": f"attempt {attempts}"}, attempt, number, attempts)
            except ConnectionError:
                continue
        raise RuntimeError(f"{number} failed twice")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--queues", type=int, default=1)
    parser.add_argument("--concurrency", type=int, default=100, help="of a queue in this worker")
    parser.add_argument("--interval-seconds", type=float, default=0.05, help="between polls of a queue")
    parser.add_argument("--items", action="store_true", help="also do items of table bench_item")
    wanted = parser.parse_args()
    if wanted.items:
        define_items(wanted.url)
    DBOS(config=config(wanted.url))
    DBOS.launch()
    for number in range(wanted.queues):
        DBOS.register_queue(
            queue_name(number),
            worker_concurrency=wanted.concurrency,
            polling_interval_sec=wanted.interval_seconds,
        )
    print("ready", flush=True)
    sys.stdin.read()
    DBOS.destroy()


if __name__ == "__main__":
    main()
