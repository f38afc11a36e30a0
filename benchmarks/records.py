"""What a record costs over the same SQL sent by bare psycopg, on the same Postgres in the same run.

Floors send the store's own statements, prepared, in autocommit, with parameters made beforehand; reads decode the JSON.
"""

from __future__ import annotations

import contextlib
import functools
import json
import statistics
import threading
from typing import TYPE_CHECKING, Any

import _measure as measure

from eventic_core import Eventic, Record, evented
from eventic_core.records.filters import Selection
from eventic_core.records.ids import new_id
from eventic_core.records.record_class import family
from eventic_core.store import appends, queries
from eventic_core.store.sql import COLUMNS, statement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from uuid import UUID

    import psycopg

CREATE_ONE = appends.CREATE_ONE[False, False]
APPEND_ONE = appends.APPEND_ONE[False, False]
HEAD = statement("head", columns=COLUMNS)
VERSION = statement("version", columns=COLUMNS)
HISTORY = statement("history", columns=COLUMNS)
COPY = statement("copy")

RECORDS, MATCHES, THREADS, RETRIES = 50, 7, 8, 10_000

# Purpose: a current record and its past, 10 versions each, without the application's round trips.
FILL = """
insert into eventic.records (version_id, id, version, class_type, data, recorded_at, superseded_at)
select gen_random_uuid(), md5(r::text)::uuid, v, 'Todo',
       jsonb_build_object('properties', '{}'::jsonb, 'text', 'Learn ' || v, 'done', false, 'priority', v,
                          'team', r / 7),
       timestamptz '2026-01-01' + make_interval(secs => v),
       case when v < 9 then timestamptz '2026-01-01' + make_interval(secs => v + 1) end
from generate_series(0, %s - 1) r, generate_series(0, 9) v
"""


class Todo(Record):
    """What is measured: a small record of a few kinds."""

    text: str
    done: bool = False
    priority: int = 0
    team: int = 0

    @evented(retry=RETRIES)
    def raise_priority(self) -> None:
        """Count one up."""
        self.priority += 1


class Bench:
    """Where and how long to measure."""

    def __init__(self, server: measure.Server, url: str, bare: psycopg.Connection[Any], *, quick: bool) -> None:
        self.server = server
        self.url = url
        self.bare = bare
        self.quick = quick
        self.generation = bare.execute("select generation from eventic.handlers_generation").fetchall()[0][0]

    def create(self, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Send version 0 of a record."""
        return self._written(CREATE_ONE, (self.generation, *values))

    def append(self, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Send the next version of a record."""
        record_id, version = values[1:3]
        return self._written(APPEND_ONE, (record_id, version, self.generation, *values))

    def _written(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        rows = self.bare.execute(sql, values).fetchall()
        if not rows:
            raise RuntimeError("the floor wrote nothing: it would be quick for the wrong reason")
        return rows

    def rounds(self, many: int) -> int:
        """Give so many, or fewer if it has to be quick."""
        return many // 5 if self.quick else many


def document(**values: Any) -> str:
    return json.dumps({"properties": {}, "text": "Learn", "done": False, "priority": 0, "team": 0, **values})


def parameters(record_id: UUID, version: int, data: str, reason: str | None = None) -> tuple[Any, ...]:
    """Give what the insert of a version takes, in its order."""
    return (new_id(), record_id, version, "Todo", data, False, 1, None, reason, None, None, None, None)


def with_versions(bench: Bench, count: int) -> Todo:
    """Make a record of so many versions."""
    item = Todo(text="Learn")
    for number in range(1, count):
        bench.append(parameters(item.id, number, document(text=f"Learn {number}", done=True)))
    return Todo.hydrate(item.id)


def create(bench: Bench) -> measure.Result:
    rounds = bench.rounds(1500)
    sent = [parameters(new_id(), 0, document(text=f"Learn {number}")) for number in range(rounds + 20)]
    ours, floor = measure.side_by_side(
        lambda number: Todo(text=f"Learn {number}"),
        lambda number: bench.create(sent[number]),
        rounds=rounds,
    )
    return measure.Result("create", ours, floor, 1.25)


def change(bench: Bench) -> measure.Result:
    rounds = bench.rounds(1500)
    items = [Todo(text="Learn") for _ in range(RECORDS)]
    others = [Todo(text="Learn").id for _ in range(RECORDS)]
    sent = []
    for number in range(rounds + 20):
        key = (others[number % RECORDS], number // RECORDS + 1)
        sent.append(parameters(*key, document(text=f"Learn {number}")))

    def assign(number: int) -> None:
        items[number % RECORDS].text = f"Learn {number}"

    ours, floor = measure.side_by_side(assign, lambda number: bench.append(sent[number]), rounds=rounds)
    return measure.Result("change", ours, floor, 1.25)


def hydrate_current(bench: Bench) -> measure.Result:
    ids = [Todo(text="Learn").id for _ in range(RECORDS)]
    ours, floor = measure.side_by_side(
        lambda number: Todo.hydrate(ids[number % RECORDS]),
        lambda number: read(bench, HEAD, (ids[number % RECORDS],)),
        rounds=bench.rounds(3000),
    )
    return measure.Result("hydrate current", ours, floor, 1.6)


def hydrate_old(bench: Bench, *, version: int, versions: int, name: str = "hydrate old") -> measure.Result:
    item = with_versions(bench, versions)
    ours, floor = measure.side_by_side(
        lambda _: Todo.hydrate(item.id, version=version),
        lambda _: read(bench, VERSION, (item.id, version)),
        rounds=bench.rounds(3000),
    )
    return measure.Result(name, ours, floor, 1.6, note=f"version {version} of {versions}")


def read(bench: Bench, sql: str, values: Any) -> list[Any]:
    """Select rows and decode their documents."""
    return [(row, json.loads(row[3])) for row in bench.bare.execute(sql, values).fetchall()]


def history(bench: Bench) -> measure.Result:
    item = with_versions(bench, 1000)
    ours, floor = measure.side_by_side(
        lambda _: item.history(),
        lambda _: read(bench, HISTORY, (item.id, 2**31 - 1, None)),
        rounds=bench.rounds(150),
        warm_up=3,
    )
    return measure.Result("list", ours, floor, 1.1, note="1000 versions")


def query(bench: Bench) -> measure.Result:
    bench.bare.execute(FILL, (MATCHES * RECORDS,))
    bench.bare.execute("vacuum analyze eventic.records")
    sent = [queries.select(Selection(family(Todo), filter=Todo.fields.team == team)) for team in range(1, RECORDS)]
    ours, floor = measure.side_by_side(
        lambda number: Todo.where(Todo.fields.team == 1 + number % len(sent)).all(),
        lambda number: read(bench, *sent[number % len(sent)]),
        rounds=bench.rounds(2000),
    )
    return measure.Result("query", ours, floor, 1.7, note=f"{MATCHES} rows")


def create_many(bench: Bench) -> measure.Result:
    count = 20_000
    rows = [{"text": f"Learn {number}", "priority": number} for number in range(count)]
    documents = [document(**row) for row in rows]

    def floor(_: int) -> None:
        values = prepared.pop()
        with bench.bare.transaction(), bench.bare.cursor().copy(COPY) as copy:
            for row in values:
                copy.write_row(row)

    sent = range(bench.rounds(10) + 1)
    prepared = [[parameters(new_id(), 0, text, "create_many") for text in documents] for _ in sent]
    ours, least = measure.side_by_side(lambda _: Todo.create_many(rows), floor, rounds=bench.rounds(10), warm_up=1)
    return measure.Result("create_many", ours / count, least / count, 2, unit="us/row", note="20k rows")


def counter(bench: Bench) -> measure.Result:
    each = bench.rounds(100)
    times: dict[str, list[float]] = {"ours": [], "floor": []}
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(bench.server.connect(bench.url)) for _ in range(THREADS)]
        for _ in range(5):
            item = Todo(text="ours")
            objects = [Todo.hydrate(item.id) for _ in range(THREADS)]
            times["ours"].append(in_threads([todo.raise_priority for todo in objects], each))
            check_count(item.id, each)
            item = Todo(text="floor")
            calls = [
                functools.partial(raise_priority_bare, connection, item.id, bench.generation)
                for connection in connections
            ]
            times["floor"].append(in_threads(calls, each))
            check_count(item.id, each)
    ours, floor = (statistics.median(times[side]) / (THREADS * each) for side in ("ours", "floor"))
    return measure.Result("counter", ours, floor, 1.2, unit="us/each", note=f"{THREADS} threads, nothing lost")


def raise_priority_bare(connection: psycopg.Connection[Any], record_id: UUID, generation: int) -> None:
    """Select, compare and swap, again until it went through."""
    for _ in range(RETRIES):
        row = connection.execute(HEAD, (record_id,)).fetchall()[0]
        values, version = json.loads(row[3]), row[1] + 1
        values["priority"] += 1
        sent = parameters(record_id, version, json.dumps(values), "raise_priority")
        if connection.execute(APPEND_ONE, (record_id, version, generation, *sent)).fetchall():
            return


def in_threads(calls: Sequence[Callable[[], object]], times: int) -> float:
    """Repeat each call in a thread of its own, and time them all."""

    def repeat(call: Callable[[], object]) -> None:
        for _ in range(times):
            call()

    threads = [threading.Thread(target=repeat, args=(call,)) for call in calls]

    def run() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return measure.microseconds(run)


def check_count(record_id: UUID, each: int) -> None:
    item = Todo.hydrate(record_id)
    if (item.priority, item.version) != (THREADS * each, THREADS * each):
        raise RuntimeError(f"counter: {item.priority} of {THREADS * each} increments stored as {item.version} versions")


def where(bench: Bench) -> measure.Result:
    sizes = (10_000, 100_000 if bench.quick else 1_000_000)
    medians: dict[int, list[float]] = {size: [] for size in sizes}
    Eventic.shutdown()  # it is connected to one database at a time
    with contextlib.ExitStack() as stack:
        urls = {size: stack.enter_context(bench.server.database()) for size in sizes}
        for size, url in urls.items():
            with bench.server.connect(url) as connection:
                connection.execute(FILL, (size // 10,))
                connection.execute("vacuum analyze eventic.records")
        for _ in range(5):
            for size, url in urls.items():
                with measure.eventic(url):
                    medians[size].append(time_where(size // 10 // MATCHES, bench.rounds(400)))
    floor, ours = (statistics.median(medians[size]) for size in sizes)
    note = f"{sizes[1]:,} versions over {sizes[0]:,}" + (" (quick: not 1,000,000)" if bench.quick else "")
    return measure.Result("where", ours, floor, 1.3, note=note)


def time_where(teams: int, rounds: int) -> float:
    times = []
    for number in range(rounds + 20):
        wanted = Todo.fields.team == number * 7919 % (teams - 1)
        times.append(measure.microseconds(lambda: Todo.where(wanted).all()))  # noqa: B023 - called at once
    return statistics.median(times[20:])


ROWS: dict[str, Callable[[Bench], measure.Result]] = {
    "create": create,
    "change": change,
    "hydrate current": hydrate_current,
    "hydrate old": functools.partial(hydrate_old, version=5, versions=10),
    "hydrate old 500": functools.partial(hydrate_old, name="hydrate old 500", version=500, versions=1000),
    "list": history,
    "query": query,
    "create_many": create_many,
    "counter": counter,
    "where": where,
}


def main() -> None:
    wanted = measure.arguments(__doc__ or "", list(ROWS))

    def results() -> Iterator[measure.Result]:
        for name in wanted.rows:
            with server.database() as url, measure.eventic(url), server.connect(url) as bare:
                yield ROWS[name](Bench(server, url, bare, quick=wanted.quick))

    with measure.server(wanted.database_url) as server:
        measure.report(results(), as_json=wanted.json)


if __name__ == "__main__":
    main()
