"""Connecting: init is idempotent, other databases are refused, tables are migrated or asked for, nothing is leaked."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest

from eventic_core import (
    ConfigurationError,
    Eventic,
    InvalidRecord,
    MigrationRequired,
    NotInitialised,
    Record,
    StoreUnavailable,
)


class Lamp(Record, class_type="LifecycleLamp", indexes=["place", "watts"]):
    place: str
    watts: int = 40


@pytest.fixture(autouse=True)
def _disconnected() -> object:
    yield
    Eventic.shutdown()


@pytest.mark.parametrize("name", ["My App", "caf\u00e9\u2010bar", "UPPER", "x"])
def test_names_that_dbos_refuses_are_slugged(migrated_url: str, name: str) -> None:
    Eventic.init(name=name, database_url=migrated_url)
    assert Eventic.settings().name.isascii()
    assert Eventic.settings().name == Eventic.settings().name.lower()
    assert Lamp(place="hall").version == 0


def test_init_again_is_harmless_for_the_same_database_and_refused_for_another(
    migrated_url: str, database_url: str
) -> None:
    Eventic.init(name="a", database_url=migrated_url)
    lamp = Lamp(place="hall")
    Eventic.init(name="a", database_url=migrated_url)
    with pytest.raises(ConfigurationError, match="another database"):
        Eventic.init(name="a", database_url=database_url)
    assert Lamp.hydrate(lamp.id) == lamp


def test_shutdown_disconnects_and_may_be_repeated(migrated_url: str) -> None:
    Eventic.init(name="a", database_url=migrated_url)
    Lamp(place="hall")
    Eventic.shutdown()
    Eventic.shutdown()
    with pytest.raises(NotInitialised):
        Lamp(place="attic")
    with pytest.raises(NotInitialised):
        Eventic.settings()
    with psycopg.connect(migrated_url) as connection:
        others = connection.execute(
            "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
            " and application_name = 'a-app'"
        ).fetchone()
    assert others == (0,)


def test_init_migrates_or_says_what_to_run(database_url: str) -> None:
    with pytest.raises(MigrationRequired, match="eventic migrate") as caught:
        Eventic.init(name="a", database_url=database_url, auto_migrate=False)
    assert caught.value.found is None
    with pytest.raises(NotInitialised):
        Lamp(place="hall")
    Eventic.init(name="a", database_url=database_url)
    Eventic.shutdown()
    Eventic.init(name="a", database_url=database_url, auto_migrate=False)
    assert Lamp(place="hall").version == 0


def test_password_is_in_no_error(migrated_url: str) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        Eventic.init(name="a", database_url="postgresql://me:hunter2@127.0.0.1:1/nowhere", reconnect_seconds=0.1)
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


def test_settings_of_init_are_honoured(migrated_url: str) -> None:
    Eventic.init(name="a", database_url=migrated_url, max_record_bytes=100)
    with pytest.raises(InvalidRecord, match="the limit is 100"):
        Lamp(place="x" * 200)
    with pytest.raises(ConfigurationError, match="pool_sise"):
        Eventic.init(name="a", database_url=migrated_url, pool_sise=3)


def test_exhausted_pool_waits_and_then_says_so(migrated_url: str) -> None:
    Eventic.init(name="a", database_url=migrated_url, pool_size=1)
    done: list[int] = []

    def work() -> None:
        for _ in range(10):
            with Eventic.unit_of_work():
                Lamp(place="x")
                Lamp.where().count()
            done.append(1)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 60
    assert Lamp.where().count() == 60


def test_forked_children_have_connections_of_their_own(migrated_url: str) -> None:
    program = (
        "import os, sys\n"
        "from eventic_core import Eventic, Record\n"
        "class Note(Record):\n    n: int\n"
        f"Eventic.init(name='forking', database_url={migrated_url!r}, reconnect_seconds=1)\n"
        "Note(n=0)\n"
        "children = []\n"
        "for child in range(4):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        os._exit(0 if all(Note(n=n).version == 0 for n in range(50)) else 1)\n"
        "    children.append(pid)\n"
        "for n in range(50): Note(n=n)\n"
        "assert not any(os.waitpid(pid, 0)[1] for pid in children)\n"
        "assert Note.where().count() == 251\n"
    )
    subprocess.run([sys.executable, "-c", program], timeout=100, check=True)


def test_restored_dump_that_holds_the_feed_back_is_warned_of_and_can_be_mended(
    migrated_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    Eventic.init(name="a", database_url=migrated_url)
    lamp = Lamp(place="hall")
    Eventic.shutdown()
    mend = "alter table eventic.records {} trigger user"
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        for xid, warned in (("4611686018427387904", True), ("1", False)):
            for statement in (
                mend.format("disable"),
                f"update eventic.records set xid = '{xid}'",
                mend.format("enable"),
            ):
                connection.execute(statement)
            caplog.clear()
            Eventic.init(name="a", database_url=migrated_url)
            assert ("stands still" in caplog.text) is warned
            assert len(list(Lamp.changes())) == (0 if warned else 1)
            Eventic.shutdown()
    Eventic.init(name="a", database_url=migrated_url)
    Lamp.hydrate(lamp.id).watts = 60
    assert [version.watts for version in Lamp.changes()] == [40, 60]


def test_init_without_a_database_uses_the_embedded_one_and_says_where(open_folder: Path) -> None:
    program = (
        "from eventic_core import Eventic, Record\n"
        "class Note(Record):\n    text: str\n"
        "Eventic.init(name='script')\n"
        "note = Note(text='a')\nnote.text = 'b'\n"
        "print(note.version, Note.where().count(), Eventic.location())\n"
    )
    runs = [
        subprocess.run([sys.executable, "-c", program], cwd=open_folder, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    assert [run.stdout.split()[:2] for run in runs] == [["1", "1"], ["1", "2"]]
    assert f"embedded Postgres, data in {open_folder.resolve()}" in runs[0].stdout


def test_migrate_builds_the_indexes_an_app_declares(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "my_app.py").write_text(
        "from eventic_core import Record\n"
        "class Lamp(Record, indexes=['place', 'watts']):\n    place: str\n    watts: int = 0\n"
    )
    command = [sys.executable, "-m", "eventic_core", "migrate", "--database-url", database_url, "--app", "my_app"]
    for _ in range(2):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    with psycopg.connect(database_url) as connection:
        found = connection.execute("select indexname from pg_indexes where indexname like 'records_ix_%' order by 1")
        assert [name for (name,) in found] == ["records_ix_Lamp_place", "records_ix_Lamp_watts"]
