"""`eventic demo`: the facts it prints, and that kill -9 at any moment loses nothing and does nothing twice."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import airportsdata
import psycopg
import pytest
from conftest import rows, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS = len(airportsdata.load("IATA"))
CORRECTIONS = 1623  # of airportsdata 20260905, which the facts below are of too
VERSIONS = ROWS + CORRECTIONS
NEIGHBOURS, ALONE, AT_ONE_PLACE = 7849, 31, 4
COUNTRIES = 233
HANG_SECONDS = 250
FACTS = (
    "BFF Western Nebraska Regional Airport, Scottsbluff, Nebraska, US",
    "3967.3 -> 3967.0",
    "Scottsbluff/Western Nebraska Regional/Wm B Heilig Field -> Western Nebraska Regional Airport",
    "properties.field (absent) -> Wm B Heilig Field",
    "demo city and field taken out of the name name, properties.field",
    "demo rename name",
    "demo elevation in whole feet elevation",
    "demo import everything",
    "version 2 name demo.note:",
    "version 3 name, properties.field demo.note:",
    "run demo-airports that wrote each version",
    "name Scottsbluff/Western Nebraska Regional/Wm B Heilig Field",
    "name Western Nebraska Regional Airport version 3 city and field taken out of the name",
    f"What came of the run over {ROWS:,} items",
    f"{NEIGHBOURS:,} COMPLETED {AT_ONE_PLACE} FAILED {ALONE} SKIPPED",
    f"{AT_ONE_PLACE} x ValueError: it is where 'BSL' is",
    "BFF TOR 50.7 km demo-neighbours",
    "What came of the nightly DAG: demo-nightly, COMPLETED",
    "hold SKIPPED skipped: gate did not choose it",
    "CN 256 airports highest DCY demo-nightly.load",
    f"published: {COUNTRIES} countries; most airports: US, 1,952",
    "14,472 ft DCY Daocheng Yading Airport Sichuan",
    "14,022 ft NGQ Ngari Gunsa Airport Tibet",
    f"{ROWS:,} airports in {VERSIONS:,} versions, from airportsdata 20260905",
)


pytestmark = pytest.mark.usefixtures("bare_environment")


def command(url: str) -> list[str]:
    return [sys.executable, "-m", "eventic_core", "demo", "--database-url", url]


def run(url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(url), capture_output=True, text=True, check=True, timeout=HANG_SECONDS)


def counts(url: str) -> dict[str, tuple[int, int, int]]:
    """Rows, records and current rows of each class."""
    sql = """select class_type, count(*), count(distinct id), count(*) filter (where superseded_at is null)
             from eventic.records group by 1"""
    return {name: (versions, records, current) for name, versions, records, current in rows(url, sql)}


def demo_counts(url: str) -> dict[str, tuple[int, int, int]]:
    return {name: found for name, found in counts(url).items() if name.startswith("Demo")}


def content(url: str) -> list[tuple[Any, ...]]:
    """Everything the demo decides itself: not ids and moments."""
    return rows(
        url,
        "select class_type, version, data, actor, reason, correlation_id from eventic.records "
        "where class_type like 'Demo%' order by 1, 3, 2",
    )


def items(url: str) -> list[tuple[Any, ...]]:
    """What came of each item of the run; one that completed may have seen workers die before, and say so."""
    return rows(
        url,
        "select data->'number', data->>'status', data->'result_payload', "
        "case when data->>'status' <> 'COMPLETED' then data->>'error_message' end "
        "from eventic.records where class_type = 'ItemExecution' and superseded_at is null and data->>'run_id' = "
        "(select id::text from eventic.records where class_type = 'Run' and version = 0 "
        "and correlation_id = 'demo-neighbours') order by 1",
    )


def problems(url: str) -> dict[str, list[tuple[Any, ...]]]:
    checks = {
        "gaps": """select id from eventic.records group by id
                   having min(version) <> 0 or max(version) <> count(*) - 1
                   or count(*) filter (where superseded_at is null) <> 1""",
        "twice": """select data->>'iata' from eventic.records where class_type = 'DemoAirport' and version = 0
                    group by 1 having count(*) > 1""",
        "keys": """select data->>'iata' from eventic.records r where class_type = 'DemoAirport'
                   and superseded_at is null and not exists (select from eventic.record_keys k
                   where k.record_id = r.id and k.value::jsonb = r.data->'iata')""",
        "noted twice": """select data->>'iata', data->>'number' from eventic.records where class_type = 'DemoNote'
                    group by 1, 2 having count(*) > 1""",
        "noted wrongly": """select data->>'iata' from eventic.records n where class_type = 'DemoNote' and not exists
                    (select from eventic.records a where a.class_type = 'DemoAirport' and a.version > 0
                     and a.version = (n.data->>'number')::int and a.data->>'iata' = n.data->>'iata')""",
        "measured twice": """select data->>'iata' from eventic.records where class_type = 'DemoNeighbour'
                    group by 1 having count(*) > 1""",
        "keys without a record": """select value from eventic.record_keys k where not exists
                   (select from eventic.records r where r.id = k.record_id)""",
    }
    return {name: found for name, sql in checks.items() if (found := rows(url, sql))}


def facts_in(text: str) -> set[str]:
    single = " ".join(text.split())
    return {fact for fact in FACTS if fact in single}


def done(url: str) -> tuple[int, int, int]:
    """Airports stored, corrections made and neighbours found, as the table has them; zeros before there is a table."""
    try:
        found = rows(
            url,
            "select count(*) filter (where version = 0 and class_type = 'DemoAirport'), "
            "count(*) filter (where version > 0 and class_type = 'DemoAirport'), "
            "count(*) filter (where class_type = 'DemoNeighbour') "
            "from eventic.records where class_type in ('DemoAirport', 'DemoNeighbour')",
        )
    except psycopg.errors.UndefinedTable:
        return 0, 0, 0
    return found[0][0], found[0][1], found[0][2]


def wait_until_alone(url: str) -> None:
    """Wait until the server has noticed that the killed ones are gone."""
    others = """select 1 from pg_stat_activity where datname = current_database()
                and pid <> pg_backend_pid() and backend_type = 'client backend'"""
    until(lambda: not rows(url, others), "the killed ones are gone")


def kill_when(url: str, reached: Callable[[int, int, int], bool]) -> bool:
    """Start the demo and kill it with -9 a random moment after it got so far; false if it ended before."""
    process = subprocess.Popen(command(url), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and not reached(*done(url)):
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.1))
        return process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_first_run_prints_the_facts_and_the_second_changes_nothing(database_url: str) -> None:
    first = run(database_url)
    assert facts_in(first.stdout) == set(FACTS)
    assert f"airports loaded: {ROWS:,} of {ROWS:,}" in first.stderr
    assert f"{ROWS:,} of {ROWS:,} ({AT_ONE_PLACE} failed" in first.stderr
    assert counts(database_url)["DemoAirport"] == (VERSIONS, ROWS, ROWS)
    assert counts(database_url)["DemoNote"] == (CORRECTIONS, CORRECTIONS, CORRECTIONS)
    assert problems(database_url) == {}
    before = content(database_url)
    second = run(database_url)
    assert second.stdout == first.stdout
    assert "Everything is there already." in second.stderr
    assert content(database_url) == before


@pytest.mark.timeout(600)  # eight demos, one after the other
def test_killed_at_any_moment_it_ends_as_if_never_killed(database_url: str, migrated_url: str) -> None:
    moments: list[Callable[[int, int, int], bool]] = [
        lambda stored, *_: stored > ROWS // 2,
        lambda _, corrected, __: corrected > 0,
        lambda _, corrected, __: corrected > 1100,
        lambda _, __, found: found > 0,
        lambda _, __, found: found > NEIGHBOURS // 2,
        lambda *_: counts(database_url).get("DemoCountry", (0,))[0] > COUNTRIES // 2,
    ]
    killed = [kill_when(database_url, reached) for reached in moments]
    assert sum(killed) >= 3, "the demo is so fast that it was hardly ever killed"
    wait_until_alone(database_url)
    assert problems(database_url) == {}
    assert facts_in(run(database_url).stdout) == set(FACTS)
    assert done(database_url) == (ROWS, CORRECTIONS, NEIGHBOURS)
    assert problems(database_url) == {}
    run(migrated_url)
    assert counts(database_url)["DemoNightly"] == (1, 1, 1)
    assert demo_counts(database_url) == demo_counts(migrated_url)
    assert items(database_url) == items(migrated_url)
    assert content(database_url) == content(migrated_url)


def test_two_at_once_share_the_work(database_url: str) -> None:
    both = [
        subprocess.Popen(command(database_url), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ended = [(*process.communicate(timeout=HANG_SECONDS), process.returncode) for process in both]
    assert [code for *_, code in ended] == [0, 0], [errors[-500:] for _, errors, _ in ended]
    assert counts(database_url)["DemoAirport"] == (VERSIONS, ROWS, ROWS)
    assert counts(database_url)["DemoNeighbour"] == (NEIGHBOURS, NEIGHBOURS, NEIGHBOURS)
    assert counts(database_url)["DemoCountry"] == (COUNTRIES, COUNTRIES, COUNTRIES)
    assert counts(database_url)["DemoNightly"] == (1, *counts(database_url)["DagRun"][1:]) == (1, 1, 1)
    assert counts(database_url)["Run"][1:] == (2, 2)  # over the batch, and of the nightly's load
    assert problems(database_url) == {}


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "airportsdata.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ended = subprocess.run(
        command("postgresql://nobody@127.0.0.1:1/none"), capture_output=True, text=True, check=False, timeout=100
    )
    assert (ended.returncode, ended.stdout) == (3, "")
    assert 'pip install "eventic-core[embedded]"' in ended.stderr
    assert "[configuration]" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_help_needs_no_database() -> None:
    help_text = subprocess.run([*command("")[:-2], "--help"], capture_output=True, text=True, check=True).stdout
    assert "--directory" in help_text
    assert "kill -9" in help_text
