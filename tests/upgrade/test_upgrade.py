"""Upgrading: this release on a database of the one before it, whose workers go on beside this one's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import upgrade_load as load
from conftest import rows, until
from histories import WRONG_HISTORIES

from eventic_core import Eventic, __version__
from eventic_core.errors import RecordDeleted
from eventic_core.runtime import presence, takeover
from eventic_core.store.migrate import current_revision, needed_revision, open_engine, sql_script, upgrade

WHEEL = next(Path(__file__).parent.glob("eventic_core-*.whl"))
"""The release before this one, as it was built; see its name."""
OLD_VERSION, OLD_REVISION = "0.1.0", "0004"
PROGRAM = Path(__file__).with_name("upgrade_worker.py")
pytestmark = pytest.mark.timeout(600)
COMMAND = [sys.executable, "-m", "eventic_core"]
OPEN = "status in ('ENQUEUED', 'PENDING', 'DELAYED') and name <> 'eventic.schedule'"
WRONG = {
    "work is left over": f"select workflow_uuid, name, status, executor_id from dbos.workflow_status where {OPEN}",
    "work failed": "select workflow_uuid, name from dbos.workflow_status where status = 'ERROR'",
    **WRONG_HISTORIES,
    "something was made twice": """
        select data ->> 'name', count(*) from eventic.records
        where class_type = 'UpgradeMade' group by 1 having count(*) > 1""",
    "a step wrote a record twice": """
        select workflow_id, step_id, id from eventic.records
        where class_type like 'Upgrade%' and workflow_id is not null group by 1, 2, 3 having count(*) > 1""",
    "a version was not handled": """
        select n.id, n.version from eventic.records n
        where n.class_type = 'UpgradeNote' and not n.tombstone and n.data ->> 'name' <> 'bad' and not exists (
            select from eventic.records s where s.class_type = 'UpgradeMade'
            and s.data ->> 'name' = 'seen ' || n.id || ' ' || n.version)""",
    "somebody waits for a run that has ended": "select run_id, work_id from eventic.waits",
    "counters are not what was done": """
        select run_id, completed, total from eventic.run_counters
        where completed <> total or pending + processing <> 0""",
    "a run of items or jobs has not completed": """
        select class_type, id, data ->> 'status' from eventic.records
        where class_type in ('Run', 'DagRun', 'BatchExecution', 'ItemExecution', 'JobRun') and superseded_at is null
          and data ->> 'status' <> 'COMPLETED'""",
}
"""What is wrong once nothing is under way any more, by what is said when the query gives a row."""
UNDER_WAY = ("work is left over", "a run of items or jobs has not completed")
TABLES = """
select n.nspname || '.' || c.relname, c.relfilenode
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname in ('eventic', 'dbos') and c.relkind in ('r', 'i') order by 1"""
HELD = """
select c.relname, max(l.mode) from pg_locks l join pg_class c on c.oid = l.relation
join pg_namespace n on n.oid = c.relnamespace
where l.pid = pg_backend_pid() and n.nspname in ('eventic', 'dbos') and c.relkind = 'r'
  and l.mode in ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
group by 1"""


class Release:
    """Processes of both releases on one database, and what holds their work up."""

    def __init__(self, url: str, old: Path, gate: Path) -> None:
        self.url = url
        self.old = old
        self.gate = gate
        self.log = gate.with_name("log")
        self.running: list[subprocess.Popen[str]] = []

    def environment(self, *, old: bool) -> dict[str, str]:
        return {**os.environ, "UPGRADE_GATE": str(self.gate)} | ({"PYTHONPATH": str(self.old)} if old else {})

    def start(self, *options: str, old: bool = False) -> subprocess.Popen[str]:
        """Begin to start a worker; `heard` gives what it says, of which release it is once it has launched."""
        with self.log.open("a") as log:
            child = subprocess.Popen(
                [sys.executable, PROGRAM, self.url, *options],
                env=self.environment(old=old),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.running.append(child)
        return child

    def hold(self, *about: str) -> list[Path]:
        """Have work about these take until their files are removed."""
        files = [Path(f"{self.gate}.{each}") for each in about]
        for file in files:
            file.touch()
        return files

    def begun(self, about: str) -> list[int]:
        """Who began this, in order."""
        noted = Path(f"{self.gate}.begun")
        lines = noted.read_text().splitlines() if noted.exists() else []
        return [int(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == about]

    def kill(self, child: subprocess.Popen[str]) -> None:
        self.running.remove(child)
        child.kill()
        child.communicate()

    def end(self) -> list[int]:
        """Let all drain; gives their exit codes."""
        for child in self.running:
            assert child.stdin is not None
            child.stdin.close()
        return [child.wait(100) for child in self.running]

    def close(self) -> None:
        for child in self.running:
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    stream.close()


def heard(child: subprocess.Popen[str]) -> Any:
    assert child.stdout is not None
    return json.loads(child.stdout.readline())


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(WHEEL) as wheel:
        wheel.extractall(folder)
    return folder


@pytest.fixture
def release(database_url: str, old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Release]:
    monkeypatch.setattr(presence, "TAKE_OVER_SECONDS", 0.5)
    monkeypatch.setattr(takeover, "STALLED_SECONDS", 2.0)
    monkeypatch.setattr(load, "GATE", tmp_path / "gate")
    found = Release(database_url, old, tmp_path / "gate")
    yield found
    Eventic.shutdown()
    found.close()


@pytest.fixture
def planted(release: Release) -> dict[str, Any]:
    """What a worker of the release before left when it was killed: data of all kinds, and work it was doing."""
    release.hold("planted", "planted half", "mapped")
    worker = release.start("plant", old=True)
    assert heard(worker) == OLD_VERSION
    found: dict[str, Any] = heard(worker)
    for about in ("planted", "planted half", "mapped"):
        until(lambda about=about: release.begun(about))
    until(lambda: rows(release.url, "select from eventic.dead_letters"))
    until(lambda: rows(release.url, "select from eventic.records where data ->> 'name' like 'tick%'"))
    release.hold("handler")
    until(lambda: rows(release.url, "select from eventic.run_counters where completed between 1 and total - 1"))
    release.kill(worker)
    for file in release.gate.parent.glob("gate.*"):
        if file.suffix != ".begun":
            file.unlink()
    return found


def quiet(url: str) -> bool:
    return not any(rows(url, WRONG[what]) for what in UNDER_WAY)


def check(url: str, expected: set[str]) -> None:
    """Check that all was done, once."""
    assert {what: found for what, sql in WRONG.items() if (found := rows(url, sql))} == {}
    made = {
        name for (name,) in rows(url, "select data ->> 'name' from eventic.records where class_type = 'UpgradeMade'")
    }
    assert expected - made == set()


def pause_ticks() -> None:
    from eventic_core.jobs import Schedule

    found = Schedule.where().all()
    for schedule in found:
        schedule.pause()


def test_a_database_of_the_release_before_is_read_and_its_work_finished_once(
    release: Release, planted: dict[str, Any]
) -> None:
    assert rows(release.url, "select version_num from eventic.eventic_version") == [(OLD_REVISION,)]
    Eventic.init(name="upgrade", database_url=release.url)
    with open_engine(release.url) as engine, engine.connect() as connection:
        assert current_revision(connection) == needed_revision()
    kept = load.UpgradeNote.hydrate(UUID(planted["kept"]))
    assert [(each.value, each.stamp.actor, each.stamp.reason) for each in kept.history()] == [
        (7, "ann", "the old days"),
        (0, "ann", "the old days"),
    ]
    with pytest.raises(RecordDeleted):
        load.UpgradeNote.hydrate(UUID(planted["gone"]))
    assert [key.version for key in load.UpgradeKey.where(code="k-1").all()] == [0]
    (letter,) = Eventic.dead_letters.list()
    assert (letter.handler, letter.state) == ("upgrade_seen", "open")
    Eventic.launch()
    pause_ticks()
    until(lambda: quiet(release.url))
    check(release.url, set(planted["expected"]))
    assert len(release.begun("planted")) == 2
    Eventic.dead_letters.discard(letter.id)


def test_workers_of_both_releases_work_beside_each_other_and_take_over_from_each_other(release: Release) -> None:
    with open_engine(release.url) as engine:
        upgrade(engine, OLD_REVISION)
    olds = [release.start("plant", old=True), release.start(old=True)]
    assert [heard(each) for each in olds] == [OLD_VERSION] * 2
    expected = set(heard(olds[0])["expected"])
    release.hold("slow")
    Eventic.init(name="upgrade", database_url=release.url)
    load.queue.enqueue(load.trip, "slow", run_id="slow")
    (by,) = until(lambda: release.begun("slow"))
    news = [release.start(), release.start()]
    assert [heard(each) for each in news] == [__version__] * 2
    expected |= load.start("one")
    release.kill(news[0])
    expected |= load.start("two")
    release.kill(next(each for each in olds if each.pid != by))
    expected |= load.start("three")
    # Longer than a worker of this release may be without a beat: one that never beats is judged by its lock alone.
    until(lambda: rows(release.url, "select from eventic.workers where beat_at > started_at + interval '4 seconds'"))
    assert release.begun("slow") == [by]
    for file in release.hold("slow"):
        file.unlink()
    assert Eventic.handle("slow").result(timeout_seconds=100) == by
    pause_ticks()
    until(lambda: quiet(release.url))
    assert release.end() == [0, 0]
    check(release.url, expected)


def test_a_process_of_the_release_before_refuses_the_new_tables_and_changes_nothing(release: Release) -> None:
    with open_engine(release.url) as engine:
        upgrade(engine, OLD_REVISION)
        upgrade(engine)
    before = rows(release.url, TABLES)
    for command in ([str(PROGRAM), release.url], ["-m", "eventic_core", "migrate", "--database-url", release.url]):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=release.old,
            env=release.environment(old=True),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode != 0
        assert f"are at revision {needed_revision()}, this version of eventic_core needs {OLD_REVISION}" in done.stderr
    assert rows(release.url, TABLES) == before
    assert rows(release.url, "select version_num from eventic.eventic_version") == [(needed_revision(),)]


def test_after_going_down_again_the_release_before_finishes_what_this_one_began(
    release: Release, planted: dict[str, Any]
) -> None:
    Eventic.init(name="upgrade", database_url=release.url)
    note = load.UpgradeNote(name="of the new release")
    expected = {*planted["expected"], f"seen {note.id} 0", *load.start("new")}
    pause_ticks()
    Eventic.shutdown()
    down = [*COMMAND, "migrate", "down", OLD_REVISION, "--yes", "--database-url", release.url]
    assert subprocess.run(down, capture_output=True, text=True, check=False).returncode == 0
    assert heard(release.start(old=True)) == OLD_VERSION
    until(lambda: quiet(release.url))
    assert release.end() == [0]
    check(release.url, expected)


def test_migrating_rewrites_and_reads_no_table_of_the_release_before(release: Release) -> None:
    with open_engine(release.url) as engine:
        upgrade(engine, OLD_REVISION)
    before = dict(rows(release.url, TABLES))
    scans = "select relname, seq_scan from pg_stat_xact_user_tables where schemaname = 'eventic'"
    script = sql_script(release.url, f"{OLD_REVISION}:head")
    assert script.rstrip().endswith("COMMIT;")
    with psycopg.connect(release.url) as connection:
        connection.execute(script.rstrip().removesuffix("COMMIT;").replace("BEGIN;", "", 1))  # type: ignore[call-overload]
        held = dict(connection.execute(HELD).fetchall())  # type: ignore[arg-type]
        read = dict(connection.execute(scans).fetchall())  # type: ignore[arg-type]
        connection.commit()
    after = dict(rows(release.url, TABLES))
    assert {name: after.get(name) for name in before} == before
    known = {name.partition(".")[2] for name in before}
    assert {name for name in held if name in known} <= {"records"}
    assert read.get("records", 0) == 0
