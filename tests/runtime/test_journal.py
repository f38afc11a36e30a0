"""A run that is repeated after a crash goes on where it was: one suite for both ways of putting steps on record.

A child process runs workflows that stop at points of their bodies, is killed with all of them at once, and a second
child finishes them. What a body sees goes into a file, outside of every transaction: the second execution must see
what the first one saw, and go on. Run as a script, this module is the child.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from eventic_core import Eventic, Record, later
from eventic_core.errors import (
    DuplicateKey,
    EventicError,
    Invalid,
    Nondeterminism,
    NotSerialisable,
    RecordExists,
    ScopeError,
    VersionConflict,
    WriteInStep,
)
from eventic_core.records import current_store
from eventic_core.runtime import runs

WAYS = ("statement", "datasource")
STOP = os.environ.get("JOURNAL_STOP") == "yes"  # the first execution of the runs, which does not end
LOGS = Path(os.environ.get("JOURNAL_LOGS", "."))


class JournalSky(Record):
    """What others change while a run is away."""

    run: str
    state: str = "sun"


class JournalStory(Record):
    title: str = ""
    body: str = ""

    def publish(self) -> None:
        self.title = self.title.upper()


class JournalName(Record, unique=["name"]):
    name: str


class JournalRejected(Exception):
    """An error of the user's own."""

    def __init__(self, what: str, number: int) -> None:
        super().__init__(what)
        self.number = number


queue = Eventic.queue("journal")


# -- what runs are made of


stopped: set[str] = set()


def stand_still() -> None:
    """Be where the process is to be killed."""
    stopped.add(threading.current_thread().name)
    threading.Event().wait()


class Notes:
    """What a run sees, in a file of its own; where it is to stop it stops, until the process is killed."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.stop = run.partition("-")[2]
        self.path = LOGS / run

    def see(self, label: str, value: Any = None) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps([label, value], default=str) + "\n")
        if STOP and label == self.stop:
            stand_still()


def outline(record: Record | None) -> list[Any] | None:
    return None if record is None else [record.id, record.version, record.model_dump(exclude={"id"}, mode="json")]


@Eventic.step(name="journal.random")
def random_number() -> str:
    return uuid4().hex


@Eventic.transaction(name="journal.rename")
def rename(story: JournalStory, title: str) -> JournalStory:
    story.title = title
    return story


@Eventic.transaction(name="journal.sky")
def sky_in_transaction(sky_id: UUID) -> str:
    sky = JournalSky.hydrate(sky_id)
    name = JournalName(name=f"{sky.run} in the rain")
    if sky.state == "sun":
        raise JournalRejected("not in the sun", 7)
    return name.name


@Eventic.transaction(name="journal.read")
def only_reads(sky_id: UUID) -> str:
    return JournalSky.hydrate(sky_id).state


@Eventic.transaction(name="journal.say")
def say(run: str) -> str:
    JournalStory(title=f"said in {run}")
    return f"said in {run}"


@Eventic.step(name="journal.peek")
def peek(story: JournalStory) -> JournalStory:
    return JournalStory.hydrate(story.id)


@Eventic.workflow(name="journal.everything")
def everything(sky: JournalSky, name: str) -> JournalStory:
    """Everything records and functions do in the body of a workflow, with a point to stop at after each."""
    notes = Notes(sky.run)
    notes.see("start", outline(sky))
    state = JournalSky.hydrate(sky.id).state
    notes.see("sky", state)
    story = JournalStory(title="blue" if state == "sun" else "grey")
    notes.see("create", outline(story))
    story.title = "assigned"
    notes.see("assign", outline(story))
    with story.edit(reason="block"):
        story.body = "a"
        story.title = "edited"
    notes.see("edit", outline(story))
    story.publish()
    notes.see("method", outline(story))
    with Eventic.unit_of_work():
        other = JournalStory(title="other")
        story.body = f"with {other.id}"
        notes.see("draft", other.id)
    notes.see("unit", [outline(story), outline(other)])
    story.update(title="x", body="y")
    notes.see("update", outline(story))
    story.delete()
    notes.see("delete")
    story = JournalStory.restore(story.id)
    notes.see("restore", outline(story))
    reads(notes, sky, story)
    conflicts(notes, sky, story, name)
    return functions(notes, sky, other)


def reads(notes: Notes, sky: JournalSky, story: JournalStory) -> None:
    notes.see("where", [outline(found) for found in JournalSky.where(run=sky.run).all()])
    notes.see("count", JournalSky.where(run=sky.run, state="sun").count())
    notes.see("history", [version.version for version in story.history(limit=3)])
    created = JournalStory.hydrate(story.id, version=0)
    notes.see("version", outline(created))
    moment = JournalSky.hydrate(sky.id, version=0).history()[0].stamp.recorded_at
    notes.see("as of", outline(JournalSky.as_of(moment).hydrate(sky.id)))
    sky.refresh()
    notes.see("refresh", outline(sky))
    notes.see("nothing", outline(JournalStory.where(title="no such title").first()))


def conflicts(notes: Notes, sky: JournalSky, story: JournalStory, name: str) -> None:
    stale = JournalStory.hydrate(story.id)
    story.title = "fresh"
    try:
        stale.title = "stale"
    except VersionConflict as error:
        notes.see("conflict", [error.code, str(error), outline(stale)])
    try:
        JournalName(name=name)
    except DuplicateKey as error:
        notes.see("duplicate", [error.code, str(error)])
    else:
        notes.see("no duplicate")
    try:
        JournalStory(id=sky.id, title="an id that is taken")
    except RecordExists as error:
        notes.see("exists", [error.code, str(error)])


def functions(notes: Notes, sky: JournalSky, other: JournalStory) -> JournalStory:
    notes.see("step", random_number())
    renamed = rename(JournalStory(title="named"), "renamed")
    notes.see("transaction", outline(renamed))
    notes.see("only reads", only_reads(sky.id))
    try:
        sky_in_transaction(sky.id)
    except JournalRejected as error:
        notes.see("rejected", [str(error), error.number])
    else:
        notes.see("accepted")
    notes.see("peek", outline(peek(renamed)))
    said = queue.enqueue(say, sky.run)
    notes.see("enqueue", said.id)
    published = later(other.publish)
    notes.see("later", published.id)
    notes.see("result", [said.result(timeout_seconds=100), published.result(timeout_seconds=100)])
    last = JournalStory(title="last")
    notes.see("end", outline(last))
    return last


POINTS = (
    *("start", "sky", "create", "assign", "edit", "method", "draft", "unit", "update", "delete", "restore"),
    *("where", "count", "history", "version", "as of", "refresh", "nothing"),
    *("conflict", "duplicate", "exists", "step", "transaction", "only reads", "rejected", "peek"),
    *("enqueue", "later", "result", "end"),
)


@Eventic.transaction(name="journal.rename_async")
async def rename_async(story_id: UUID, title: str) -> JournalStory:
    story = await JournalStory.hydrate_async(story_id)
    await asyncio.sleep(0)
    async with story.edit():
        story.title = title
    return story


@Eventic.step(name="journal.random_async")
async def random_async() -> str:
    await asyncio.sleep(0)
    return uuid4().hex


@Eventic.workflow(name="journal.gathered")
async def gathered(sky: JournalSky, name: str) -> list[JournalStory]:
    """Calls that run at once have their places in the order in which they were started."""
    notes = Notes(sky.run)
    notes.see("start", outline(sky))
    skies = await asyncio.gather(JournalSky.hydrate_async(sky.id), JournalSky.where(run=sky.run).count_async())
    notes.see("sky", [outline(skies[0]), skies[1]])
    stories = await asyncio.gather(*(JournalStory.create_async(title=str(number)) for number in range(5)))
    notes.see("create", [outline(story) for story in stories])
    await asyncio.gather(*(story.update_async(body=story.title) for story in reversed(stories)))
    notes.see("update", [outline(story) for story in stories])
    async with stories[0].edit():
        stories[0].title = "edited"
    notes.see("edit", outline(stories[0]))
    mixed = await asyncio.gather(
        rename_async(stories[1].id, "renamed"),
        random_async(),
        queue.enqueue_async(say, sky.run),
        JournalStory.hydrate_async(stories[2].id),
    )
    notes.see("mixed", [outline(mixed[0]), mixed[1], mixed[2].id, outline(mixed[3])])
    notes.see("result", await mixed[2])
    return [mixed[0], mixed[3]]


ASYNC_POINTS = ("start", "sky", "create", "update", "edit", "mixed", "result")


OPERATIONS: dict[str, Callable[[str], Any]] = {
    "create": lambda run: JournalStory(title=run),
    "create two": lambda run: two(run),
    "read": lambda run: JournalSky.where(run=run).first(),
    "count": lambda run: JournalSky.where(run=run).count(),
    "enqueue": lambda run: queue.enqueue(say, run),
    "transaction": lambda run: say(run),
    "step": lambda run: random_number(),
}


def two(run: str) -> None:
    with Eventic.unit_of_work():
        JournalStory(title=run)
        JournalStory(title=run)


@Eventic.workflow(name="journal.changing")
def changing(run: str) -> None:
    """Do the first operation, and when repeated the second one in its place."""
    _, first, then = run.split("-")
    if STOP:
        OPERATIONS[first](run)
        stand_still()
    OPERATIONS[then](run)
    JournalStory(title="must not be written")


CHANGES = (
    *("create-read", "create-create two", "create-enqueue", "create-transaction", "read-create", "read-count"),
    *("enqueue-create", "transaction-create", "transaction-read", "step-create", "step-count", "step-transaction"),
)


class JournalMany(Record):
    number: int


@Eventic.step(name="journal.writes")
def writes(what: str) -> None:
    if what == "create":
        JournalStory(title="in a step")
    elif what == "assign":
        story = JournalStory.where().first()
        assert story is not None
        story.title = "in a step"
    else:
        queue.enqueue(say, "in a step")


@Eventic.transaction(name="journal.unkept")
def unkept() -> Any:
    JournalStory(title="its transaction gives what cannot be kept")
    return threading.Lock()


def query_in_an_edit() -> None:
    story = JournalStory(title="before")
    with story.edit():
        story.title = "pending"
        JournalStory.where(title="pending").all()


def sql_of_ones_own() -> None:
    with Eventic.unit_of_work():
        Eventic.connection()


REFUSED: dict[str, Callable[[], Any]] = {
    "a query in an edit": query_in_an_edit,
    "SQL in a body": sql_of_ones_own,
    "create_many in a body": lambda: JournalMany.create_many([{"number": 1}]),
    "create in a step": lambda: writes("create"),
    "assign in a step": lambda: writes("assign"),
    "enqueue in a step": lambda: writes("enqueue"),
    "too many versions": lambda: JournalMany.where().all(),
    "a result that JSON cannot hold": unkept,
}


@Eventic.workflow(name="journal.refused")
def refused() -> dict[str, list[str]]:
    """Try what is refused; gives the errors."""
    found = {}
    for what, action in REFUSED.items():
        try:
            action()
        except EventicError as error:
            found[what] = [type(error).__name__, str(error)]
    return found


# -- lost connections


class Cut:
    """Loses the transaction's connection, at first."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.attempts = 0

    def now(self, pid: int) -> None:
        with psycopg.connect(self.url) as connection:
            connection.execute("select pg_terminate_backend(%s, 5000)", [pid])


@Eventic.transaction(name="journal.cut")
def cut_in_the_middle(story: JournalStory, cut: Cut) -> str:
    cut.attempts += 1
    pid = Eventic.connection().exec_driver_sql("select pg_backend_pid()").scalar_one()
    story.title = f"{story.title}+"
    if cut.attempts == 1:
        cut.now(pid)
    return story.title


@Eventic.transaction(name="journal.cut_at_commit")
def add_a_plus(story: JournalStory, cut: Cut) -> str:
    cut.attempts += 1
    story.title = f"{story.title}+"
    return story.title


@contextmanager
def lost_commit(*, kept: bool) -> Iterator[None]:
    """Lose the connection in the next commit of the datasource, after or before Postgres has kept it."""
    from eventic_core.runtime import adapter

    assert adapter._datasource is not None
    dialect = adapter._datasource.engine.dialect
    commit = dialect.do_commit

    def lose(connection: Any) -> None:
        dialect.do_commit = commit  # type: ignore[method-assign]
        if kept:
            commit(connection)
        connection.driver_connection.close() if hasattr(connection, "driver_connection") else connection.close()
        message = "server closed the connection unexpectedly"
        raise psycopg.OperationalError(message)

    dialect.do_commit = lose  # type: ignore[method-assign]
    yield


@Eventic.workflow(name="journal.cuts")
def cuts(url: str, *, at_commit: bool) -> dict[str, list[Any]]:
    """Change a record the body goes on with, in transactions whose connection is lost."""
    found = {}
    story, cut = JournalStory(title="middle"), Cut(url)
    result = cut_in_the_middle(story, cut)
    found["middle"] = [result, story.title, story.version, cut.attempts]
    for kept in (False, True) if at_commit else ():
        story, cut = JournalStory(title=f"kept={kept}"), Cut(url)
        with lost_commit(kept=kept):
            result = add_a_plus(story, cut)
        found[story.title.partition("+")[0]] = [result, story.title, story.version, cut.attempts]
    return found


@Eventic.workflow(name="journal.queued")
def queued(run: str) -> str:
    return JournalStory(title=say(run)).title


# -- another owner


@Eventic.workflow(name="journal.robbed")
def robbed(what: str, url: str) -> None:
    """Lose the run to somebody else, and try something."""
    JournalStory(title=f"{what}: mine")
    with psycopg.connect(url) as connection:
        connection.execute("update dbos.workflow_status set owner_xid = 'somebody' where workflow_uuid = %s", [what])
    try:
        OPERATIONS[what](f"{what}: not mine any more")
    except BaseException as error:
        Notes(what).see("refused", type(error).__name__)
        raise
    Notes(what).see("allowed")


# -- the child


def planted(what: str) -> None:
    """Break a journal: what the bug leaves unrecorded is done again."""
    from eventic_core.runtime.datasource import DatasourceJournal
    from eventic_core.runtime.journal import StatementJournal
    from eventic_core.runtime.recorder import RecordingStore

    for journal in (StatementJournal, DatasourceJournal):
        if what == "reads":
            journal.read = lambda self, name, read: list(read())  # type: ignore[method-assign]
            journal.value = lambda self, name, compute: compute()  # type: ignore[method-assign]
        if what == "ids":
            journal.new_id = lambda self: uuid4()  # type: ignore[method-assign]
    if what == "writes":
        RecordingStore.append = lambda self, appends, tx=None, *, work=(), checkpoint=None: (  # type: ignore[method-assign]
            self._journal.store.append(appends, work=work)
        )


def stop_before_dbos_records() -> None:
    """Stop a run `all-@n` before DBOS records its step n: what the step did in the datasource is committed then."""
    from dbos._sys_db import SystemDatabase

    record = SystemDatabase.record_operation_result

    def stop(database: Any, result: Any, **options: Any) -> None:
        if STOP and result["workflow_uuid"] == f"all-@{result['function_id']}":
            stand_still()
        record(database, result, **options)

    SystemDatabase.record_operation_result = stop  # type: ignore[method-assign]


def begin(wanted: Sequence[str]) -> None:
    """Run each workflow in a thread; say when all have stopped or ended."""
    skies = {sky.run: sky for sky in JournalSky.where().all()}

    def run(name: str) -> None:
        with Eventic.run_id(name):
            if name.startswith("all"):
                everything(skies[name], name)
            elif name.startswith("async"):
                asyncio.run(gathered(skies[name], name))  # type: ignore[arg-type]
            else:
                changing(name)

    threads = [threading.Thread(target=run, args=(name,), name=name, daemon=True) for name in wanted]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 100
    while any(thread.is_alive() and thread.name not in stopped for thread in threads):
        assert time.monotonic() < deadline, f"not all have stopped: {stopped}"
        time.sleep(0.02)
    tell("stopped")
    threading.Event().wait()


def finish(wanted: Sequence[str]) -> None:
    """Launched again, wait for the ends of the runs."""
    results = {}
    for name in wanted:
        try:
            Eventic.handle(name).result(timeout_seconds=100)
        except Exception as error:  # noqa: BLE001 - printed
            results[name] = [type(error).__name__, str(error)]
        else:
            results[name] = ["SUCCESS", ""]
    tell(json.dumps(results))


def tell(line: str) -> None:
    """Say something to the parent."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def show(wanted: Sequence[str]) -> None:
    """Run a workflow to its end and print what it gives."""
    kind, *arguments = wanted
    if kind == "refused":
        tell(json.dumps(refused()))
    elif kind == "queued":
        tell(json.dumps([queued("direct"), queue.enqueue(queued, "queued").result(timeout_seconds=100)]))
    else:
        tell(json.dumps(cuts(*arguments, at_commit=kind == "cuts at commit")))


def intrude(wanted: Sequence[str]) -> None:
    """Run workflows that lose their owner; they wait for the other's outcome."""
    url, *operations = wanted

    def run(what: str) -> None:
        with Eventic.run_id(what):
            robbed(what, url)

    for what in operations:
        threading.Thread(target=run, args=(what,), daemon=True).start()
    deadline = time.monotonic() + 100
    while sum(file.stat().st_size > 0 for file in LOGS.iterdir()) < len(operations) and time.monotonic() < deadline:
        time.sleep(0.02)
    os._exit(0)


def main(url: str, role: str, *wanted: str) -> None:
    Eventic.init(name="journal", database_url=url)
    if bug := os.environ.get("JOURNAL_BUG"):
        planted(bug)
    stop_before_dbos_records()
    Eventic.launch()
    if "again" in wanted:
        Eventic.shutdown()
        Eventic.init(name="journal", database_url=url)
        Eventic.launch()
    {"begin": begin, "finish": finish, "show": show, "intrude": intrude}[role](wanted)
    os._exit(0)  # there is nothing to wait for


# -- the parent

Ended = dict[str, list[str]]
"""For each run SUCCESS, or the class of its error and its text."""


class Children:
    """The processes of a test, which share a database, a way of keeping checkpoints and a folder for what they saw."""

    def __init__(self, url: str, way: str, folder: Path, **environment: str) -> None:
        self.url = url
        self.way = way
        self.folder = folder
        folder.mkdir()
        self._environment = {**os.environ, "EVENTIC_CHECKPOINTS": way, **environment}

    def start(self, role: str, wanted: Sequence[str], **environment: str) -> subprocess.Popen[str]:
        logs = self.folder / role
        logs.mkdir()
        command = [sys.executable, __file__, self.url, role, *wanted]
        more = {"JOURNAL_LOGS": str(logs), **environment}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env={**self._environment, **more}, **pipes)

    def begin(self, wanted: Sequence[str], **environment: str) -> subprocess.Popen[str]:
        """Run workflows until each stands where it is to stop."""
        process = self.start("begin", wanted, JOURNAL_STOP="yes", **environment)
        assert process.stdout is not None
        if process.stdout.readline() != "stopped\n":
            pytest.fail(process.communicate()[1][-5000:])
        return process

    def run(self, role: str, *wanted: str, **environment: str) -> str:
        """Run a child to its end; gives what it prints."""
        process = self.start(role, wanted, **environment)
        output, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors[-5000:]
        return output

    def finish(self, wanted: Sequence[str], **environment: str) -> Ended:
        """Let a second process end the runs; gives how they ended."""
        found: Ended = json.loads(self.run("finish", *wanted, **environment))
        return found

    def show(self, *wanted: str) -> Any:
        return json.loads(self.run("show", *wanted))

    def seen(self, role: str, run: str) -> list[list[Any]]:
        return [json.loads(line) for line in (self.folder / role / run).read_text().splitlines()]


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def anonymous(value: Any) -> Any:
    """Drop ids, which differ from run to run, and moments."""
    text = re.sub(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", "ID", json.dumps(value, default=str))
    return json.loads(re.sub(r"(all|async)-[a-z0-9@ ]+", "RUN", text))


def written(run: str) -> list[Any]:
    """What a run wrote, and in which step; without names, whose number depends on the sky and on others' names."""
    found = [
        anonymous([version.stamp.step_id, version.class_type, version.version, version.stamp.reason, version.document])
        for version in current_store().written_by(run)
        if version.class_type != "JournalName"
    ]
    return sorted(found, key=json.dumps)  # of calls that are gathered any may be the first to write


def steps(run: str) -> list[Any]:
    return [
        anonymous([step.number, step.name, sum(version.class_type != "JournalName" for version in step.versions)])
        for step in runs.steps(run)
    ]


def names(run: str) -> int:
    return len([version for version in current_store().written_by(run) if version.class_type == "JournalName"])


def enqueued(run: str) -> list[str]:
    return sorted(found.id for found in runs.list_runs(prefix=f"{run}-", limit=100) if re.search(r"-\d{6}$", found.id))


def differences(run: str, control: str, what: Callable[[str], list[Any]]) -> list[tuple[Any, Any]]:
    pairs = zip_longest(what(run), what(control))
    return [(mine, theirs) for mine, theirs in pairs if mine != theirs]


def problems(children: Children, kind: str, points: Sequence[str], ended: Ended) -> list[str]:
    """Say which of the repeated runs did not do what one that nobody interrupted does."""
    control = f"{kind}-nowhere"
    wanted = [f"{kind}-{point}" for point in points]
    found = [f"{run}: ended with {ended[run]}" for run in wanted if ended[run][0] != "SUCCESS"]
    for run in wanted:
        before, after = children.seen("begin", run), children.seen("finish", run)
        if after[: len(before)] != before:
            found.append(f"{run}: saw {after[: len(before)]} where it had seen {before}")
        if len(after) <= len(before) and before[-1][0] not in ("end", "result"):
            found.append(f"{run}: did not go on")
        if before[-1][0] == "start":
            continue  # what comes next is another story: it had not looked at the sky yet
        for what in (written, steps):
            found += [
                f"{run} {what.__name__}: {mine} instead of {theirs}" for mine, theirs in differences(run, control, what)
            ]
        if len(enqueued(run)) != len(enqueued(control)):
            found.append(f"{run}: enqueued {enqueued(run)}")
    return found


def change_the_world() -> None:
    """Do what makes every read, query and refused write of the runs come out differently if it is done again."""
    for sky in JournalSky.where().all():
        sky.state = "rain"
        JournalSky(run=sky.run)
    for name in JournalName.where().all():
        name.delete()


def crash(children: Children, *kinds: tuple[str, Sequence[str]], more: Sequence[str] = (), bug: str = "") -> Ended:
    """Kill runs of each kind at each of its points, and finish them in a second process; gives how they ended."""
    wanted = [f"{kind}-{point}" for kind, points in kinds for point in points]
    controls = [f"{kind}-nowhere" for kind, _ in kinds]
    for run in (*wanted, *controls):
        JournalSky(run=run)
        JournalName(name=run)
    first = children.begin([*wanted, *controls, *more], JOURNAL_BUG=bug)
    change_the_world()
    kill(first)
    ended = children.finish([*wanted, *more], JOURNAL_BUG=bug)
    for kind, points in kinds:
        control = f"{kind}-nowhere"
        steps_done = {f"@{step.number}" for step in runs.steps(control)}
        assert set(points) <= {point for point, _ in children.seen("begin", control)} | steps_done
    return ended


@pytest.fixture(params=WAYS)
def children(request: pytest.FixtureRequest, eventic: str, tmp_path: Path) -> Children:
    return Children(eventic, request.param, tmp_path / "logs")


@pytest.fixture(scope="module", params=WAYS)
def crashed(
    request: pytest.FixtureRequest, server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Children, Ended]]:
    """A database in which runs were killed at all points at once, and finished."""
    from conftest import new_database  # only for tests: this file is also the program that they kill

    with new_database(server_url, template) as url:
        children = Children(url, request.param, tmp_path_factory.mktemp("journal") / "logs")
        Eventic.init(name="tests", database_url=url)
        changes = [f"change-{change}" for change in CHANGES]
        try:
            ended = crash(children, ("all", POINTS), ("async", ASYNC_POINTS), more=changes)
        finally:
            Eventic.shutdown()
        yield children, ended


@pytest.fixture
def finished(crashed: tuple[Children, Ended]) -> Iterator[tuple[Children, Ended]]:
    """The same, connected."""
    Eventic.init(name="tests", database_url=crashed[0].url)
    yield crashed
    Eventic.shutdown()


def test_a_run_repeated_from_any_point_sees_and_writes_what_it_had(finished: tuple[Children, Ended]) -> None:
    children, ended = finished
    assert problems(children, "all", POINTS, ended) == []
    for point in POINTS:
        run = f"all-{point}"
        branch = dict(map(tuple, children.seen("finish", run)))
        assert branch["sky"] == ("rain" if point == "start" else "sun")
        unique = POINTS.index(point) < POINTS.index("duplicate")
        accepted = POINTS.index(point) < POINTS.index("rejected")
        assert ("no duplicate" in branch, "accepted" in branch, names(run)) == (unique, accepted, unique + accepted)
        for done in enqueued(run):
            assert len(current_store().written_by(done)) == 1
        last = runs.get_run(run).result
        assert isinstance(last, JournalStory)
        assert [str(last.id), last.version] == branch["end"][:2]


def test_each_step_of_a_repeated_run_shows_the_versions_it_wrote(finished: tuple[Children, Ended]) -> None:
    for point in POINTS:
        found = runs.steps(f"all-{point}")
        assert [step.number for step in found] == list(range(1, 38))
        assert {step.name for step in found if "write" in step.name and not (step.versions or step.error)} == set()
        assert sum(len(step.versions) for step in found) == len(current_store().written_by(f"all-{point}"))


def test_gathered_calls_are_repeated_in_their_order(finished: tuple[Children, Ended]) -> None:
    children, ended = finished
    assert problems(children, "async", ASYNC_POINTS, ended) == []


def test_a_run_whose_code_has_changed_is_stopped(finished: tuple[Children, Ended]) -> None:
    _children, ended = finished
    for change in CHANGES:
        run = f"change-{change}"
        kind, message = ended[run]
        assert (change, kind) == (change, "Nondeterminism")
        assert f"Run {run} is repeated, and its step 1" in message
        found = runs.get_run(run)
        assert (found.status, type(found.error)) == ("ERROR", Nondeterminism)
        assert [step.number for step in runs.steps(run)] == [1]
        by_first = {"create": 1, "transaction": 1}.get(change.partition("-")[0], 0)
        assert len(current_store().written_by(run)) == by_first
    assert JournalStory.where(title="must not be written").count() == 0


@pytest.mark.parametrize(
    ("children", "bug"),
    [("statement", "reads"), ("datasource", "reads"), ("statement", "writes"), ("datasource", "ids")],
    indirect=["children"],
)
def test_the_oracle_sees_what_is_not_on_record(children: Children, bug: str) -> None:
    """The other side: a journal that does not record is found, after the very calls it does not record."""
    points = ("sky", "create", "draft", "count")
    found = problems(children, "all", points, crash(children, ("all", points), bug=bug))
    expected = {
        "reads": {"all-sky: saw", "all-create: saw", "all-draft: saw", "all-count: saw"},
        "writes": {"all-create: ended", "all-draft: ended", "all-count: ended"},
        "ids": {"all-draft: saw"},
    }[bug]
    assert {" ".join(problem.split()[:2]) for problem in found} >= expected


@pytest.mark.parametrize("children", ["datasource"], indirect=True)
def test_a_transaction_of_which_dbos_has_not_heard_yet_is_not_done_again(children: Children) -> None:
    points = [f"@{number}" for number in (2, 3, 6, 7, 10, 19, 27, 29, 32, 33, 34, 37)]
    assert problems(children, "all", points, crash(children, ("all", points))) == []


def test_what_a_body_and_a_step_may_not_do_is_refused(children: Children) -> None:
    JournalStory(title="found by a step")
    JournalMany.create_many({"number": number} for number in range(10_001))
    found = children.show("refused")
    assert {what: kind for what, (kind, _) in found.items()} == {
        "a query in an edit": ScopeError.__name__,
        "SQL in a body": ScopeError.__name__,
        "create_many in a body": ScopeError.__name__,
        "create in a step": WriteInStep.__name__,
        "assign in a step": WriteInStep.__name__,
        "enqueue in a step": WriteInStep.__name__,
        "too many versions": Invalid.__name__,
        "a result that JSON cannot hold": NotSerialisable.__name__,
    }
    for what in ("a query in an edit", "SQL in a body", "create_many in a body", "create in a step"):
        assert "@Eventic.transaction()" in found[what][1]
    assert "10,001 versions at once" in found["too many versions"][1]
    assert "journal.unkept" in found["a result that JSON cannot hold"][1]
    assert sorted(story.title for story in JournalStory.where().all()) == ["before", "found by a step"]
    assert runs.list_runs(status="ENQUEUED") == []


def test_a_transaction_whose_connection_is_lost_is_done_once(children: Children) -> None:
    at_commit = children.way == "datasource"
    found = children.show("cuts at commit" if at_commit else "cuts", children.url)
    assert found.pop("middle") == ["middle+", "middle+", 1, 2]
    if at_commit:
        assert found.pop("kept=False") == ["kept=False+", "kept=False+", 1, 2]
        result, *_ = found.pop("kept=True")  # recorded; the body's record is as it was, as after a crash
        assert result == "kept=True+"
    assert found == {}
    stories = JournalStory.where().all()
    assert {story.title for story in stories} <= {"middle+", "kept=False+", "kept=True+"}
    assert {(story.version, len(story.history())) for story in stories} == {(1, 2)}


def test_what_only_recovery_needs_is_gone_when_a_run_has_ended(children: Children) -> None:
    """Also in a process that was launched before."""
    assert children.show("queued", "again") == ["said in direct", "said in queued"]
    with psycopg.connect(children.url) as connection:
        [(table,)] = connection.execute("select to_regclass('dbos.datasource_outputs')").fetchall()
        assert (table is not None) == (children.way == "datasource")
        if table is not None:
            assert connection.execute("select workflow_id from dbos.datasource_outputs").fetchall() == []


def test_a_run_that_somebody_else_has_taken_over_does_nothing_more(children: Children) -> None:
    operations = sorted(OPERATIONS)
    children.run("intrude", children.url, *operations)
    for what in operations:
        assert children.seen("intrude", what) == [["refused", "DBOSWorkflowConflictIDError"]]
        assert runs.get_run(what).status == "PENDING"
        assert len(runs.steps(what)) == 1
    assert {story.title for story in JournalStory.where().all()} == {f"{what}: mine" for what in operations}
    assert [found.id for found in runs.list_runs() if found.id not in operations] == []


if __name__ == "__main__":
    main(*sys.argv[1:])
