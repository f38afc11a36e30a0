"""Workers as real processes: what they do together, and what becomes of the work of those that stop, die or hang."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import pytest
from conftest import new_database, rows, until

from eventic_core import Eventic, Record, later, on
from eventic_core.errors import ConfigurationError, NotInitialised
from eventic_core.runtime import runs

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
RUNNER = [sys.executable, "-c", "from eventic_core.cli.worker import runner; runner()"]

# What every process of the application shares, and what only its workers know.
CLASSES = """
import os, pathlib, sys, time
from uuid import UUID
import eventic_core.runtime.performer, eventic_core.runtime.presence
from eventic_core import Eventic, Record, later, on

eventic_core.runtime.presence.TAKE_OVER_SECONDS = 0.2
eventic_core.runtime.performer.UNKNOWN_SECONDS = 0.5

class WorkOrder(Record):
    text: str = ""

    def close(self) -> str:
        self.text = "closed"
        return self.text

class WorkNote(Record):
    about: str
    number: int
    pid: int

def until(condition):
    deadline = time.monotonic() + 100
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)

def mark(name):
    with open(name, "a") as file:
        file.write(f"{os.getpid()}\\n")

def connect(**settings):
    Eventic.init(name="shop", database_url=sys.argv[1], **settings)

pieces = Eventic.queue("pieces", concurrency=4)
"""
FUNCTIONS = """
@Eventic.step()
def quick(number: int) -> int:
    return number

@Eventic.step()
def slow(number: int) -> int:
    mark(f"begun-{number}")
    time.sleep(1)
    mark(f"ended-{number}")
    return number

@Eventic.transaction()
def noted(about: str, number: int) -> int:
    WorkNote(about=about, number=number, pid=os.getpid())
    return number

@Eventic.transaction()
def held_up(about: str) -> None:
    WorkNote(about=about, number=0, pid=os.getpid())
    Eventic.connection()
    first = not os.path.exists(f"begun-{about}")
    mark(f"begun-{about}")
    if first:
        until(lambda: os.path.exists("go-on"))

@Eventic.workflow()
def long_story(about: str) -> int:
    WorkNote(about=about, number=1, pid=os.getpid())
    first = not os.path.exists(f"begun-{about}")
    mark(f"begun-{about}")
    if first:
        until(lambda: os.path.exists("go-on"))
    WorkNote(about=about, number=2, pid=os.getpid())
    return 2
"""
HANDLERS = """
@on.create(WorkOrder)
@on.update(WorkOrder)
def order_noted(order: WorkOrder) -> None:
    with open(f"busy-{order.id}", "x"):  # refused while another one is at work on the same record
        pass
    try:
        if order.text == "meet":
            mark(f"meets-{order.id}")
            until(lambda: len(list(pathlib.Path().glob("meets-*"))) >= 4)
        WorkNote(about=str(order.id), number=order.version, pid=os.getpid())
    finally:
        os.remove(f"busy-{order.id}")
"""
APP = 'app = Eventic.create_app("shop")\n'
SHOP = CLASSES + APP + FUNCTIONS + HANDLERS


@pytest.fixture
def url(server_url: str, prepared: str) -> Iterator[str]:
    """A database of the test's own, with those tables."""
    with new_database(server_url, prepared) as found:
        yield found


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The folder of the application `shop`."""
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


class Worker:
    """A worker that works."""

    def __init__(self, url: str, folder: Path, *options: str, module: str = "shop") -> None:
        self.process = subprocess.Popen(
            [*RUNNER, module, "--database-url", url, *options], stderr=subprocess.PIPE, text=True, cwd=folder
        )
        assert self.process.stderr is not None
        self.line = self.process.stderr.readline()

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> str:
        """Stop it as an operator would; gives what it said meanwhile."""
        self.signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=100)
        assert self.process.returncode == 0, self.line + errors
        return errors

    def kill(self) -> None:
        assert self.process.stderr is not None
        if not self.process.stderr.closed:
            self.process.kill()
            self.process.communicate()


@contextmanager
def workers(*started: Worker) -> Iterator[None]:
    """Leave no worker behind, whether it was stopped or not."""
    try:
        for worker in started:
            assert "works on" in worker.line, worker.line + worker.process.communicate()[1]
        yield
    finally:
        for worker in started:
            worker.kill()


def run(source: str, url: str, folder: Path) -> list[str]:
    """Run a program of the application that is no worker; gives the words it printed."""
    code = f"from shop import *\n{textwrap.dedent(source)}"
    done = subprocess.run(
        [sys.executable, "-c", code, url], capture_output=True, text=True, check=False, timeout=100, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def unfinished(url: str) -> int:
    sql = "select count(*) from dbos.workflow_status where status in ('ENQUEUED', 'DELAYED', 'PENDING')"
    return int(rows(url, sql)[0][0])


def all_done(url: str) -> None:
    until(lambda: unfinished(url) == 0, "all work is done")


def states(url: str) -> dict[str, int]:
    return dict(rows(url, "select status, count(*)::int from dbos.workflow_status group by 1"))  # type: ignore[arg-type]


def noted(url: str) -> dict[str, list[tuple[int, int]]]:
    """What was noted of each subject, as `(number, pid)` in the order of noting."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    sql = """select data->>'about', (data->>'number')::int, (data->>'pid')::int from eventic.records
        where class_type = 'WorkNote' order by position"""
    for about, number, pid in rows(url, sql):
        found[about].append((number, pid))
    return dict(found)


def lines(file: Path) -> list[int]:
    """The processes that made a mark."""
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def attempts(url: str) -> set[int]:
    return {int(number) for (number,) in rows(url, "select distinct recovery_attempts from dbos.workflow_status")}


PICKLES = """
select format('select %L as place, count(*) from %I.%I t where t::text ~ %L', table_schema || '.' || table_name,
              table_schema, table_name, 'gA[SJ]|py_pickle')
from information_schema.tables where table_schema in ('dbos', 'eventic') and table_type = 'BASE TABLE'
"""


def places_with_pickles(url: str) -> list[tuple[Any, ...]]:
    return [found for (sql,) in rows(url, PICKLES) for found in rows(url, sql) if found[1]]


# -- together


def test_workers_share_the_work_in_order_for_a_record_and_in_parallel_for_others(url: str, shop: Path) -> None:
    with workers(one := Worker(url, shop), two := Worker(url, shop)):
        web = CLASSES + textwrap.dedent("""
            from uuid import uuid4
            from eventic_core.store.work import lane_of
            connect()
            Eventic.launch(queues=[])
            @Eventic.workflow()
            def serve(number: int) -> str:
                order = WorkOrder(text=str(number))
                for other in range(10):
                    order.text = f"{number} {other}"
                return str(order.id)
            made = [serve(number) for number in range(12)]
            lanes = {}  # those of one lane would not meet
            while len(lanes) < 4:
                lanes.setdefault(lane_of(some := uuid4()), some)
            meeting = [WorkOrder(id=some, text="meet") for some in lanes.values()]
            print(*made, *(order.id for order in meeting))
            Eventic.shutdown()
        """)
        (shop / "web.py").write_text(web)
        done = subprocess.run(
            [sys.executable, "web.py", url], capture_output=True, text=True, check=False, timeout=100, cwd=shop
        )
        assert done.returncode == 0, done.stderr
        all_done(url)
    *made, _a, _b, _c, _d = done.stdout.split()
    found = noted(url)
    assert {about: [number for number, _pid in entries] for about, entries in found.items() if about in made} == {
        about: list(range(11)) for about in made
    }
    pids = {pid for entries in found.values() for _number, pid in entries}
    assert pids <= {one.pid, two.pid}
    assert len(list(shop.glob("meets-*"))) == 4
    assert rows(url, "select count(*) from eventic.dead_letters") == [(0,)]
    assert rows(url, "select max(recovery_attempts) from dbos.workflow_status where starts_with(name, 'eventic.')") == [
        (1,)
    ]
    assert places_with_pickles(url) == []
    assert rows(url, "select distinct serialization from dbos.workflow_status") == [("eventic_json",)]


def test_the_line_names_who_works_on_what_and_no_password(url: str, shop: Path) -> None:
    secret = urlunsplit(urlsplit(url)._replace(netloc=urlsplit(url).netloc.replace("@", ":hunter2@", 1)))
    with workers(worker := Worker(secret, shop, "--queue", "pieces")):
        assert worker.line.startswith("shop worker-0 works on pieces")
        assert "queue_work_order" not in worker.line
        assert "named by argument" in worker.line
    assert "hunter2" not in worker.line


def test_a_worker_works_on_the_queues_it_is_told(url: str, shop: Path) -> None:
    run("connect(); pieces.enqueue(noted, 'a', 1); Eventic.queue('others').enqueue(noted, 'b', 2)", url, shop)
    with workers(Worker(url, shop, "--queue", "others", "--queue", "more")):
        until(lambda: "b" in noted(url), "its queue is worked on")
    assert list(noted(url)) == ["b"]
    assert states(url) == {"SUCCESS": 1, "ENQUEUED": 1}


def test_work_of_another_app_version_is_left_alone(url: str, shop: Path) -> None:
    source = "connect(app_version='2'); pieces.enqueue(noted, 'new', 1); Eventic.shutdown()"
    run(f"{source}; connect(); pieces.enqueue(noted, 'old', 1)", url, shop)
    with workers(Worker(url, shop)):
        until(lambda: "old" in noted(url), "work of its own version is done")
    ((status, count, executor),) = rows(
        url,
        "select status, recovery_attempts, executor_id from dbos.workflow_status where application_version = '2'",
    )
    assert (status, count, executor) == ("ENQUEUED", 0, None)
    (shop / "newer.py").write_text(
        SHOP.replace('create_app("shop")', 'create_app("shop", settings={"app_version": "2"})')
    )
    with workers(Worker(url, shop, module="newer")):
        all_done(url)
    assert sorted(noted(url)) == ["new", "old"]


# -- stopping


def test_sigterm_ends_what_began_and_gives_back_what_did_not(url: str, shop: Path) -> None:
    source = """
        connect()
        with Eventic.unit_of_work():
            for number in range(300):
                pieces.enqueue(quick, number)
            for number in range(12):
                pieces.enqueue(slow, number)
    """
    run(source, url, shop)
    with workers(worker := Worker(url, shop)):
        until(lambda: len(list(shop.glob("begun-*"))) == 4, "four slow pieces have begun")
        begun = {int(path.name[6:]) for path in shop.glob("begun-*")}
        claimed = rows(url, "select count(*) from dbos.workflow_status where status = 'PENDING'")[0][0]
        assert "Stopped" in worker.end()
        assert claimed > 4
        assert {int(path.name[6:]) for path in shop.glob("ended-*")} == begun
        assert states(url) == {"SUCCESS": 304, "ENQUEUED": 8}
        counted = "select max(recovery_attempts) from dbos.workflow_status where status = 'ENQUEUED'"
        assert rows(url, counted) == [(0,)]
    with workers(other := Worker(url, shop)):
        all_done(url)
    assert all(len(lines(shop / f"begun-{number}")) == 1 for number in range(12))
    assert {pid for number in set(range(12)) - begun for pid in lines(shop / f"begun-{number}")} == {other.pid}
    assert attempts(url) == {1}


def test_a_drain_that_takes_too_long_is_ended_and_the_work_taken_over(url: str, shop: Path) -> None:
    run("connect(); pieces.enqueue(held_up, 'x')", url, shop)
    with workers(worker := Worker(url, shop, "--drain-seconds", "0.2")):
        until(lambda: lines(shop / "begun-x"), "it has begun")
        worker.end()
    with workers(other := Worker(url, shop)):
        all_done(url)
    assert noted(url) == {"x": [(0, other.pid)]}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_it_at_once(url: str, shop: Path, number: int, code: int) -> None:
    run("connect(); pieces.enqueue(held_up, 'x')", url, shop)
    with workers(worker := Worker(url, shop)):
        until(lambda: lines(shop / "begun-x"), "it has begun")
        worker.signal(signal.SIGINT)
        assert worker.process.stderr is not None
        assert "Stopping" in worker.process.stderr.readline()
        worker.signal(number)
        assert worker.process.wait(100) == code
    assert noted(url) == {}


# -- dying


IN_THE_MIDDLE = """
connect()
print(pieces.enqueue(held_up, "transaction").id, pieces.enqueue(long_story, "workflow").id)
"""


def in_the_middle(url: str, shop: Path) -> list[str]:
    """Let the only worker begin a transaction and a workflow; gives their ids."""
    ids = run(IN_THE_MIDDLE, url, shop)
    for about in ("transaction", "workflow"):
        until(lambda about=about: lines(shop / f"begun-{about}"), "it has begun")
    return ids


def done_by_heir(url: str, shop: Path, first: Worker, heir: Worker, ids: list[str]) -> None:
    """Check that each was done once more, and what it wrote is there once."""
    assert noted(url) == {"transaction": [(0, heir.pid)], "workflow": [(1, first.pid), (2, heir.pid)]}
    assert [lines(shop / f"begun-{about}") for about in ("transaction", "workflow")] == [[first.pid, heir.pid]] * 2
    sql = "select status, recovery_attempts from dbos.workflow_status where workflow_uuid = any(%s)"
    assert rows(url, sql, ids) == [("SUCCESS", 2)] * 2


def test_the_work_of_a_killed_worker_is_taken_over_by_one_that_lives(url: str, shop: Path) -> None:
    with workers(dead := Worker(url, shop)):
        ids = in_the_middle(url, shop)
        with workers(heir := Worker(url, shop)):
            dead.kill()
            all_done(url)
    done_by_heir(url, shop, dead, heir, ids)


def test_a_worker_that_was_cut_off_and_comes_back_writes_nothing_more(url: str, shop: Path) -> None:
    cut = """select count(*) filter (where pg_terminate_backend(pid)) from pg_locks
        where locktype = 'advisory' and objsubid = 2 and objid = %s
          and database = (select oid from pg_database where datname = current_database())"""
    with workers(zombie := Worker(url, shop)):
        ids = in_the_middle(url, shop)
        zombie.signal(signal.SIGSTOP)
        assert rows(url, cut, 0) == [(1,)]
        with workers(heir := Worker(url, shop)):
            all_done(url)
            (shop / "go-on").touch()
            zombie.signal(signal.SIGCONT)
            zombie.end()
    done_by_heir(url, shop, zombie, heir, ids)


# -- what a worker does not know

KNOWS_MORE = """
from dataclasses import dataclass

class WorkParcel(Record):
    weight: int = 0

    def weigh(self) -> int:
        self.weight += 1
        return self.weight

@dataclass
class WorkSize:
    height: int

@Eventic.transaction()
def rare(about: str) -> None:
    WorkNote(about=about, number=0, pid=os.getpid())

@Eventic.workflow()
def rare_workflow(about: str) -> None:
    rare(about)

@Eventic.transaction()
def measured(size: WorkSize) -> None:
    WorkNote(about="size", number=size.height, pid=os.getpid())

@on.create(WorkOrder)
def order_seen(order: WorkOrder) -> None:
    WorkNote(about="seen", number=order.version, pid=os.getpid())
"""


def test_what_a_worker_does_not_know_waits_for_one_that_does(url: str, shop: Path) -> None:
    (shop / "newer.py").write_text("from shop import *\nfrom shop import connect\n" + KNOWS_MORE)
    served = [option for name in ("pieces", "queue_work_order", "queue_work_parcel") for option in ("--queue", name)]
    with workers(Worker(url, shop, module="newer")):
        pass  # its handler is subscribed
    with workers(Worker(url, shop, *served)):
        source = """
            from newer import *
            connect()
            pieces.enqueue(rare, "transaction")
            pieces.enqueue(rare_workflow, "workflow")
            pieces.enqueue(measured, WorkSize(7))
            later(WorkParcel().weigh)
            WorkOrder()
            pieces.enqueue(noted, "known", 1)
        """
        run(source, url, shop)
        waits = "select count(*) from dbos.workflow_status where attributes ? 'eventic.waiting_for'"
        until(lambda: rows(url, waits) == [(5,)], "what it does not know is put back")
        until(lambda: "known" in noted(url), "what it knows goes on")
        until(
            lambda: rows(url, "select count(*) from eventic.handled where handler = 'order_noted'") == [(1,)], "handled"
        )
        Eventic.init(name="shop", database_url=url)
        try:
            found = {run.id: run for run in runs.list_runs(limit=50) if run.waiting_for}
            blocked = {queue.name: " ".join(queue.blocked) for queue in runs.queues()}
        finally:
            Eventic.shutdown()
    causes = " ".join(sorted(str(run.waiting_for) for run in found.values()))
    for name in ("'rare'", "rare_workflow", "'measured'", "'WorkParcel'", "'order_seen'"):
        assert name in causes
    assert {run.status for run in found.values()} <= {"DELAYED", "ENQUEUED", "PENDING"}
    assert all("waits for" in blocked[name] for name in ("pieces", "queue_work_order", "queue_work_parcel"))
    assert max(run.attempts for run in found.values()) <= 1
    with workers(Worker(url, shop, module="newer")):
        all_done(url)
    assert set(noted(url)) >= {"transaction", "workflow", "size", "seen", "known"}
    assert set(states(url)) == {"SUCCESS"}


# -- in this process


class WorkedStory(Record):
    title: str = ""

    def publish(self) -> None:
        self.title = self.title.upper()


def test_a_launch_is_repeated_harmlessly_and_stands_for_one_database(url: str, migrated_url: str) -> None:
    Eventic.init(name="tests", database_url=url)
    try:
        Eventic.launch()
        Eventic.launch()
        Eventic.init(name="tests", database_url=url)
        with pytest.raises(ConfigurationError, match="another database"):
            Eventic.init(name="tests", database_url=migrated_url)
        story = WorkedStory(title="a")
        later(story.publish).result(timeout_seconds=100)
        story.refresh()
        assert story.title == "A"
    finally:
        Eventic.shutdown()
    with pytest.raises(NotInitialised):
        Eventic.settings()


def test_what_is_defined_after_the_launch_works(url: str) -> None:
    Eventic.init(name="tests", database_url=url)
    try:
        Eventic.launch()

        class WorkedLate(Record):
            title: str = ""

            def publish(self) -> None:
                self.title = self.title.upper()

        @Eventic.workflow(name="worked_late_workflow")
        def told(text: str) -> str:
            return WorkedLate(title=text).title

        @Eventic.transaction(name="worked_late_transaction")
        def tell(text: str) -> str:
            return WorkedLate(title=text).title

        late = WorkedLate(title="a")
        later(late.publish).result(timeout_seconds=100)
        assert told("b") == "b"
        queue = Eventic.queue("late")
        assert queue.enqueue(told, "c").result(timeout_seconds=100) == "c"
        assert queue.enqueue(tell, "d").result(timeout_seconds=100) == "d"
    finally:
        Eventic.shutdown()


def test_a_handler_defined_after_the_launch_is_called(url: str) -> None:
    Eventic.init(name="tests", database_url=url)
    try:
        Eventic.launch()
        seen: set[UUID] = set()

        class WorkedLater(Record):
            title: str = ""

        @on.create(WorkedLater, name="worked_later_handler")
        def heard(story: WorkedLater) -> None:
            seen.add(story.id)

        until(lambda: WorkedLater(title="e") and seen, "the handler is called")
    finally:
        Eventic.shutdown()


def test_a_reset_leaves_an_empty_database_to_launch_on_again(url: str) -> None:
    Eventic.init(name="tests", database_url=url)
    try:
        Eventic.launch()
        story = WorkedStory(title="a")
        later(story.publish).result(timeout_seconds=100)
        Eventic.reset()
        assert WorkedStory.where().count() == 0
        assert runs.list_runs() == []
        assert not Eventic.is_launched()
        Eventic.launch()
        again = WorkedStory(title="b")
        later(again.publish).result(timeout_seconds=100)
        assert WorkedStory.hydrate(again.id).title == "B"
    finally:
        Eventic.shutdown()


# -- DBOS's own tool


def test_dbos_start_runs_the_worker_of_the_configuration(url: str, tmp_path: Path) -> None:
    for name in ("dbos-config.yaml", "examples/09_fastapi/app.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    started = subprocess.Popen(
        ["dbos", "start"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "DATABASE_URL": url},
        executable=str(Path(sys.executable).with_name("dbos")),
    )
    assert started.stderr is not None
    line = started.stderr.readline()
    started.send_signal(signal.SIGTERM)
    output, errors = started.communicate(timeout=100)  # ends with the worker, which holds the pipes
    assert "worker-0 works on" in line
    assert "queue_story" in line
    assert "named by DATABASE_URL" in line
    assert "Executing: dbos-runner examples.09_fastapi.app:app" in output
    assert "Stopped after" in errors
