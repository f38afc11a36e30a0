"""What the doctor makes of facts, one by one; and of systems in which each trouble was made for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from conftest import execute, until

from eventic_core import Eventic
from eventic_core.runtime.doctor import LIMITS, diagnose, examine
from eventic_core.runtime.findings import Finding, Status, duration, number
from eventic_core.runtime.queues import Queue
from eventic_core.store import health
from eventic_core.store.health import (
    Connections,
    Ended,
    Health,
    Horizon,
    Letters,
    OpenTransaction,
    Pause,
    QueueFacts,
    Revisions,
    Running,
    Server,
    Size,
    TableFacts,
    Unread,
    Waiting,
    WorkerSession,
)

if TYPE_CHECKING:
    pass

OK, WARNING, PROBLEM = Status

SERVER = Server(150004, "15.4", False, False, [], "UTF8", 1000, "shop", "ada", 0.001, 0.0)
WORKER = WorkerSession("worker-0", 3600.0, "10.0.0.7", 0.3)
READY = Waiting("mail", "2", keyless=True, waiting_for=None, times=0, run_count=5, is_more=False, oldest_seconds=300.0)
RUNNING = Running("worker-0", "2", "mail", 3, 0, is_more=False)
OPEN = OpenTransaction(71, "psql", "ada", "shop", "10.0.0.9", "idle in transaction", 90.0, True, True)
WELL = Health(
    server=SERVER,
    connections=Connections(20, 12, 97, None),
    revisions=Revisions("0004", "0004", 125, 125),
    workers=[WORKER],
    paused=[],
    newest_version="2",
    queues=[QueueFacts("mail", False, False), QueueFacts("lanes", True, False), QueueFacts("rare", False, True)],
    ready=[],
    delayed=[],
    running=[],
    ended=[Ended("worker-0", "2", "mail", 5.0)],
    letters=[],
    transactions=[],
    horizon=Horizon(3, 0),
    is_feed_ahead=False,
    tables=[TableFacts("eventic.records", 1000, 10, 60.0, False)],
    sizes=[Size("", 10_000_000), Size("eventic.records", 8_000_000)],
)
CHECKS = [
    *("database", "settings", "migrations", "dbos_migrations", "connections", "clock", "workers", "paused", "parked"),
    *(
        "stranded",
        "backlog",
        "dead_workers",
        "crashing",
        "dead_letters",
        "transactions",
        "feed",
        "vacuum",
        "transaction_ids",
    ),
    "sizes",
]


def of(check: str, **facts: Any) -> Finding:
    """The first finding of a check, of facts that are well but for these."""
    return next(finding for finding in diagnose(WELL._replace(**facts)) if finding.check == check)


def server(**facts: Any) -> dict[str, Server]:
    return {"server": SERVER._replace(**facts)}


# -- facts


def test_a_system_that_is_well_gives_one_ok_for_each_check() -> None:
    found = list(diagnose(WELL))
    assert [finding.check for finding in found] == CHECKS
    assert {(finding.status, finding.remedy) for finding in found} == {(OK, None)}


def test_the_operators_guide_says_what_each_check_means() -> None:
    guide = (Path(__file__).parents[2] / "docs/operations.md").read_text("utf-8")
    assert [check for check in CHECKS if f"| `{check}` |" not in guide] == []


CASES: list[tuple[str, Status, str, dict[str, Any]]] = [
    ("database", PROBLEM, "Postgres 13", server(version_number=130009, version="13.9")),
    ("database", PROBLEM, "is a replica", server(is_replica=True)),
    ("database", PROBLEM, "read-only", server(is_read_only=True)),
    ("database", WARNING, "takes 80.0 ms", server(latency_seconds=0.08)),
    ("settings", PROBLEM, "LATIN1", server(encoding="LATIN1")),
    ("settings", PROBLEM, "fsync off", server(off=["fsync"])),
    ("settings", PROBLEM, "autovacuum off", server(off=["autovacuum"])),
    ("migrations", PROBLEM, "not there", {"revisions": Revisions(None, "0004", None)}),
    ("migrations", PROBLEM, "at revision 0003, this version needs 0004", {"revisions": Revisions("0003", "0004", 125)}),
    ("migrations", PROBLEM, "at revision 0005, this version knows", {"revisions": Revisions("0005", "0004", 125)}),
    ("dbos_migrations", WARNING, "no worker was ever", {"revisions": Revisions("0004", "0004", None)}),
    ("dbos_migrations", PROBLEM, "at revision 9", {"revisions": Revisions("0004", "0004", 9)}),
    ("dbos_migrations", OK, "at revision 999", {"revisions": Revisions("0004", "0004", 999)}),
    ("connections", WARNING, "80 of 97 in use", {"connections": Connections(80, 12, 97, None)}),
    ("connections", PROBLEM, "95 of 97 in use", {"connections": Connections(95, 12, 97, None)}),
    ("connections", PROBLEM, "which may have 12", {"connections": Connections(20, 12, 97, 12)}),
    ("clock", WARNING, "2.000 s ahead of", server(ahead_seconds=2.0)),
    ("clock", PROBLEM, "99.000 s behind", server(ahead_seconds=-99.0)),
    ("workers", WARNING, "none is alive; what is enqueued will wait", {"workers": []}),
    ("workers", PROBLEM, "none is alive, and there is work", {"workers": [], "ready": [READY]}),
    ("workers", PROBLEM, "none is alive, and there is work", {"workers": [], "running": [RUNNING]}),
    ("workers", PROBLEM, "none is alive, and there is work", {"workers": [], "delayed": [READY]}),
    ("workers", WARNING, "what is enqueued will wait", {"workers": [], "delayed": [READY._replace(oldest_seconds=-9)]}),
    ("workers", OK, "nothing for them to do", {"workers": [], "revisions": Revisions("0004", "0004", None)}),
    ("workers", PROBLEM, "last seen 40 s ago", {"workers": [WORKER._replace(seen_seconds=40.0)]}),
    ("workers", OK, "up 1 h, last seen 0.3 s ago, version 2, 3 runs in hand", {"running": [RUNNING]}),
    ("workers", OK, "version not known yet", {"ended": []}),
    ("workers", OK, "more is not visible", {"workers": [WorkerSession("worker-0", None, None, None)]}),
    ("workers", OK, "version 3, 0 runs in hand, takes no more work",
     {"workers": [WORKER._replace(version="3", is_draining=True)]}),
    ("paused", WARNING, "mail for 1 min 30 s, by ada: its work waits", {"paused": [Pause("mail", 90.0, "ada")]}),
    ("dead_workers", PROBLEM, "3 runs of version 2 in the hands of worker-0, which is dead, as all are",
     {"workers": [], "running": [RUNNING]}),
    ("dead_workers", PROBLEM, "nobody runs that version; live workers run 2",
     {"running": [RUNNING._replace(executor="worker-7", version="1")]}),
    ("dead_workers", WARNING, "a live worker is to take them over",
     {"running": [RUNNING._replace(executor="worker-7")]}),
    ("dead_workers", WARNING, "no worker of eventic's", {"running": [RUNNING._replace(executor="local")]}),
    ("crashing", WARNING, "begun 4 times", {"running": [RUNNING._replace(begun=4)]}),
    ("dead_letters", WARNING, "1,000 or more open dead letters of handler notify, the first from 2 d ago",
     {"letters": [Letters("notify", 1000, 172_800.0, is_more=True)]}),
    ("transactions", WARNING, "psql (process 71, ada from 10.0.0.9) has had a transaction open for 1 min 30 s, idle in",
     {"transactions": [OPEN]}),
    ("transactions", WARNING, "in shop: it holds back the change feed and vacuum", {"transactions": [OPEN]}),
    ("transactions", PROBLEM, "holds back vacuum", {"transactions": [OPEN._replace(seconds=900.0, holds_feed=False)]}),
    ("transactions", OK, "9 s old; 4 sessions of other roles",
     {"transactions": [OPEN._replace(seconds=9.0)], "horizon": Horizon(3, 4)}),
    ("feed", PROBLEM, "stands still", {"is_feed_ahead": True}),
    ("vacuum", WARNING, "20,000 of 40,000 rows are dead (50%), never vacuumed",
     {"tables": [TableFacts("eventic.records", 20_000, 20_000, None, False)]}),
    ("vacuum", PROBLEM, "200,000 of 300,000", {"tables": [TableFacts("t", 100_000, 200_000, 9.0, False)]}),
    ("vacuum", OK, "500 of 501", {"tables": [TableFacts("t", 1, 500, 9.0, False)]}),
    ("vacuum", PROBLEM, "autovacuum is switched off for it", {"tables": [TableFacts("t", 1, 0, 9.0, True)]}),
    ("transaction_ids", WARNING, "1,200,000,000", server(transaction_age=1_200_000_000)),
    ("transaction_ids", PROBLEM, "1,700,000,000", server(transaction_age=1_700_000_000)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "status", "text", "facts"), CASES, ids=[f"{case[0]}-{case[2]:.30}" for case in CASES]
)
def test_a_fact_gives_its_finding(check: str, status: Status, text: str, facts: dict[str, Any]) -> None:
    found = of(check, **facts)
    assert (found.status, text in found.found) == (status, True), found
    assert (found.remedy is None) == (status is OK)


def test_prepared_transactions_are_ended_by_name() -> None:
    prepared = OPEN._replace(pid=None, program="prepared transaction move-1", state="prepared")
    assert "`rollback prepared 'move-1'`" in str(of("transactions", transactions=[prepared]).remedy)


# -- why work is stranded


CAUSES: list[tuple[str, str, dict[str, Any]]] = [
    ("no worker is alive", "`eventic worker TARGET`", {"workers": []}),
    ("it is not registered", "Eventic.queue('typo')", {"ready": [READY._replace(queue="typo")]}),
    ("nobody runs application version 1; live workers run 2", "EVENTIC_APP_VERSION=1",
     {"ready": [READY._replace(version="1")]}),
    ("nobody runs application version 1; the newest is 2", "EVENTIC_APP_VERSION=1",
     {"ready": [READY._replace(version="1")], "ended": []}),
    ("nobody runs application version 3", "EVENTIC_APP_VERSION=3",
     {"ready": [READY._replace(version=None)], "newest_version": "3"}),
    ("none serves the queue", "--queue mail", {"ended": [Ended("worker-0", "2", "other", 5.0)]}),
    ("none serves the queue", "--queue mail", {"ended": []}),
    ("none serves the queue", "--queue mail",
     {"ended": [], "workers": [WORKER._replace(version="2", queues=["other"])]}),
    ("nobody runs application version 2; live workers run 3", "EVENTIC_APP_VERSION=2",
     {"ended": [], "workers": [WORKER._replace(version="3", queues=["mail"])]}),
    ("none serves the queue", "--queue mail", {"ended": [Ended("worker-0", "2", "mail", 500.0)]}),
    ("none serves the queue", "--queue mail", {"ended": [Ended("worker-9", "2", "mail", 5.0)]}),
    ("the queue has lanes, and this has no key", "key=",
     {"ready": [READY._replace(queue="lanes", oldest_seconds=1.0)]}),
]  # fmt: skip


@pytest.mark.parametrize(("cause", "remedy", "facts"), CAUSES)
def test_stranded_work_is_found_with_its_cause(cause: str, remedy: str, facts: dict[str, Any]) -> None:
    found = of("stranded", **{"ready": [READY], **facts})
    assert (found.status, cause in found.found, remedy in str(found.remedy)) == (PROBLEM, True, True), found
    late = [group._replace(oldest_seconds=300.0) for group in facts.get("ready", [READY])]
    overdue = of("stranded", **{**facts, "delayed": late, "ready": []})
    assert cause in overdue.found


TURNS: list[dict[str, Any]] = [
    {"ready": [READY._replace(oldest_seconds=59.0)]},
    {"ready": [READY]},  # of which one was ended 5 seconds ago
    {"ready": [READY._replace(version=None)]},  # which the newest version does
    {"ready": [READY], "ended": [], "running": [RUNNING]},
    {"ready": [READY._replace(queue="rare")]},
    {"ready": [READY], "ended": [], "workers": [WORKER._replace(version="2", queues=["mail"])]},
    {"ready": [READY._replace(queue="mail.lanes")], "paused": [Pause("mail", 90.0, "ada")]},
    {"ready": [READY._replace(queue="lanes", keyless=False)], "running": [RUNNING._replace(queue="lanes")]},
    {"delayed": [READY._replace(queue="typo", oldest_seconds=-5.0)]},
    {"ready": [READY._replace(queue="lanes", waiting_for="class Gone")]},
]


@pytest.mark.parametrize("facts", TURNS)
def test_work_whose_turn_will_come_is_not_stranded(facts: dict[str, Any]) -> None:
    assert of("stranded", **facts).status is OK


def test_old_work_that_is_being_done_is_a_backlog() -> None:
    found = of("backlog", ready=[READY, READY._replace(queue="rare", oldest_seconds=90.0)])
    assert (found.status, "5 runs of version 2 on mail, the first ready for 5 min" in found.found) == (WARNING, True)
    limited = of("backlog", ready=[READY._replace(queue="rare")])
    assert "the queue is limited" in limited.found
    assert of("backlog", ready=[READY._replace(oldest_seconds=5.0)]).status is OK
    assert of("backlog", ready=[READY._replace(queue="typo")]).status is OK  # that is stranded


def test_work_given_back_again_and_again_names_what_is_missing() -> None:
    parked = READY._replace(waiting_for="class Gone", times=1)
    assert of("parked", delayed=[parked]).status is WARNING
    found = of("parked", delayed=[parked], ready=[parked._replace(times=7)])
    assert (found.status, found.found) == (
        PROBLEM,
        "10 runs on mail given back up to 7 times; a worker that took it did not have: class Gone",
    )


def test_of_many_workers_the_first_are_listed_and_the_others_counted() -> None:
    many = [WORKER._replace(slot=f"worker-{number}") for number in range(25)]
    found = [finding.found for finding in diagnose(WELL._replace(workers=many)) if finding.check == "workers"]
    assert (len(found), found[-1]) == (21, "and 5 more")


def test_a_worker_in_the_slot_of_a_dead_one_does_not_inherit_its_version() -> None:
    assert "version not known yet" in of("workers", workers=[WORKER._replace(up_seconds=2.0)]).found


@pytest.mark.parametrize("absent", [True, False])
def test_what_could_not_be_read_is_said_and_is_no_problem(absent: bool) -> None:
    why = Unread("not visible to this role (permission denied)", is_absent=absent)
    unread = WELL._replace(
        **{name: why for name in Health._fields if name not in ("server", "revisions")},
        revisions=Revisions(why, "0004", why),
    )
    for found in (unread, unread._replace(workers=[WORKER])):
        findings = list(diagnose(found))
        assert {finding.check for finding in findings} == set(CHECKS)
        assert {finding.status for finding in findings} == {OK}
        assert any("not visible to this role" in finding.found for finding in findings)
        assert any("pg_monitor" in str(finding.remedy) for finding in findings) != absent


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0.0 s"), (0.25, "0.2 s"), (59, "59 s"), (60, "1 min"), (3700, "1 h 1 min"), (90_000, "1 d 1 h")],
)
def test_durations_are_in_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_numbers_say_whether_there_are_more() -> None:
    found = [number(1, is_more=False), number(2, is_more=False), number(1000, is_more=True)]
    assert found == ["1 run", "2 runs", "1,000 or more runs"]


# -- real trouble

HANDS = """
import sys, time
from eventic_core import Eventic
held = Eventic.queue("held")
@Eventic.step()
def hold() -> None:
    print("begun", flush=True)
    time.sleep(600)
Eventic.init(name="hands", database_url=sys.argv[1])
Eventic.launch()
held.enqueue(hold, run_id="in-hand")
time.sleep(600)
"""
AGE = "created_at = created_at - 120000, updated_at = updated_at - 120000, delay_until_epoch_ms = null"


@Eventic.step(name="doctor.echo")
def echo(value: int = 1) -> int:
    return value


def seen(url: str, check: str, **limits: float) -> list[Finding]:
    found = diagnose(health.read(url), limits=LIMITS._replace(**limits))
    return [finding for finding in found if finding.check == check]


def ready(url: str, queue: str, **columns: str) -> None:
    """Enqueue a run as it is two minutes later, on a queue that is not asked for with Eventic.queue."""
    run = Queue(queue).enqueue(echo, delay_seconds=3600).id
    changes = "".join(f", {name} = '{value}'" for name, value in columns.items())
    execute(url, f"update dbos.workflow_status set status = 'ENQUEUED', {AGE}{changes} where workflow_uuid = '{run}'")


@pytest.fixture(scope="module")
def url(workers: str) -> str:
    """A database with a worker at work, that has done something."""
    Eventic.queue("doctor-served").enqueue(echo).result(timeout_seconds=100)
    return workers


@pytest.fixture(autouse=True)
def _swept(request: pytest.FixtureRequest) -> Any:
    yield
    if "url" in request.fixturenames:
        execute(
            request.getfixturevalue("url"), "delete from dbos.workflow_status where status in ('ENQUEUED', 'DELAYED')"
        )


def test_a_healthy_system_with_a_live_worker_is_ok(url: str) -> None:
    until(lambda: [finding for finding in seen(url, "workers") if "version 1" in finding.found])
    with psycopg.connect(url) as connection:
        durable = connection.execute("show fsync").fetchone() == ("on",)
    findings = {finding.check: finding for finding in examine(url).findings}
    assert (findings.pop("settings").status is OK) == durable  # of the test server
    assert {check: finding.status for check, finding in findings.items() if finding.status is not OK} == {}
    assert findings["workers"].found.startswith("worker-")


def test_real_work_on_a_queue_nobody_serves(url: str) -> None:
    ready(url, "doctor-mail")
    (found,) = seen(url, "stranded")
    assert found.found.startswith("1 run of version 1 on doctor-mail, the first ready for 2 min")
    assert found.found.endswith("no live worker takes it: none serves the queue")


def test_real_work_on_a_queue_that_is_not_registered(url: str) -> None:
    ready(url, "doctor-mail", queue_name="doctor-mial")
    (found,) = seen(url, "stranded")
    assert "on doctor-mial" in found.found
    assert "it is not registered" in found.found


def test_real_work_of_a_version_nobody_runs(url: str) -> None:
    ready(url, "doctor-served", application_version="0.9")
    (found,) = seen(url, "stranded")
    assert "nobody runs application version 0.9; live workers run 1" in found.found


def test_real_work_without_a_key_on_a_queue_with_lanes(url: str) -> None:
    Queue("queue_doctor_lane").enqueue(echo, key="a")  # by which the queue is registered
    ready(url, "doctor-mail", queue_name="queue_doctor_lane")
    assert any("has lanes, and this has no key" in finding.found for finding in seen(url, "stranded"))


def test_real_work_that_no_worker_knows(url: str) -> None:
    ready(url, "doctor-served", name="doctor.gone")
    (found,) = until(lambda: [finding for finding in seen(url, "parked") if finding.status is PROBLEM])
    assert found.found.endswith("did not have: workflow doctor.gone")


def test_a_real_dead_letter(url: str) -> None:
    execute(
        url,
        """insert into eventic.dead_letters (id, handler, class_type, record_id, version, attempts, error, failed_at)
           values (gen_random_uuid(), 'notify', 'Parcel', gen_random_uuid(), 3, 5, '{}', now() - interval '1 hour')""",
    )
    (found,) = seen(url, "dead_letters")
    execute(url, "delete from eventic.dead_letters")
    assert found.found == "1 open dead letter of handler notify, the first from 1 h ago"


def test_a_real_transaction_that_was_forgotten(url: str) -> None:
    with psycopg.connect(url, application_name="forgotten") as connection:
        connection.execute("select pg_current_xact_id()")
        (found,) = [one for one in seen(url, "transactions", transaction_seconds=0) if "forgotten" in one.found]
        assert "idle in transaction" in found.found
        assert "it holds back the change feed and vacuum" in found.found
        assert f"pg_terminate_backend({connection.info.backend_pid})" in str(found.remedy)


def test_a_real_table_with_dead_rows(migrated_url: str) -> None:
    note = """insert into eventic.records (version_id, id, version, class_type, data)
              select gen_random_uuid(), gen_random_uuid(), 0, 'Dead', '{}' from generate_series(1, 500)"""
    execute(migrated_url, "alter table eventic.records set (autovacuum_vacuum_threshold = 1000000)", note)
    with psycopg.connect(migrated_url) as connection:
        connection.execute(note.encode())
        connection.rollback()  # which leaves its rows behind
    limits = {"dead_rows": 500, "dead_share": 0.5}
    (found,) = until(lambda: [one for one in seen(migrated_url, "vacuum", **limits) if one.status is WARNING])
    assert found.found == "eventic.records: 500 of 1,000 rows are dead (50%), never vacuumed"


def test_a_real_worker_that_hangs_and_one_that_died_with_a_run_in_hand(migrated_url: str, tmp_path: Path) -> None:
    script = tmp_path / "hands.py"
    script.write_text(textwrap.dedent(HANDS))
    with subprocess.Popen([sys.executable, script, migrated_url], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        try:
            assert worker.stdout.readline() == "begun\n"
            (alive,) = seen(migrated_url, "workers")
            assert (alive.status, "version 1, 1 run in hand" in alive.found) == (OK, True)
            os.kill(worker.pid, signal.SIGSTOP)
            hangs = until(
                lambda: [one for one in seen(migrated_url, "workers", seen_seconds=1.5) if one.status is PROBLEM]
            )
            assert "it hangs, is stopped or cut off" in str(hangs[0].remedy)
        finally:
            worker.kill()
    gone = until(lambda: [one for one in seen(migrated_url, "workers") if "none is alive" in one.found])
    assert gone[0].status is PROBLEM
    (found,) = seen(migrated_url, "dead_workers")
    assert (found.status, found.found) == (
        PROBLEM,
        "1 run of version 1 in the hands of worker-0, which is dead, as all are",
    )
    assert examine(migrated_url).exit_code == 1
