"""`eventic schedule`: what its commands print and do, and how they end. No worker runs: nothing is due by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import cli_plant
import pytest
from click.testing import CliRunner, Result
from conftest import new_database

from eventic_core import Eventic
from eventic_core.cli import main
from eventic_core.jobs import Backfill, DagRun, Job, Schedule, stored_dag

APP = ("--app", "cli_plant")
PARAMETERS = {"count": 3, "flag": "nowhere"}
pytestmark = pytest.mark.usefixtures("bare_environment")


@pytest.fixture(scope="module")
def url(server_url: str, template: str) -> Iterator[str]:
    """A database with three schedules, of two tenants."""
    with new_database(server_url, template) as found:
        Eventic.init(name="schedules", database_url=found)
        cli_plant.PLANT.schedule("30 2 * * *", name="nightly", zone="Europe/Berlin", parameters=PARAMETERS)
        ends = datetime(2026, 1, 1, tzinfo=UTC)
        cli_plant.PLANT.schedule("every hour", name="over", ends_at=ends, parameters=PARAMETERS)
        cli_plant.PLANT.schedule("every 15 minutes", name="acme's", client_id="acme", parameters=PARAMETERS)
        Eventic.shutdown()
        yield found


@pytest.fixture
def eventic_schedule(url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Calls `eventic schedule` on that database."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))

    def call(*arguments: object) -> Result:
        words = ["schedule", *map(str, arguments), "--database-url", url]
        return CliRunner().invoke(main, words, prog_name="eventic")

    return call


def stored(url: str, kind: type[Schedule | DagRun | Backfill], record_id: str) -> Schedule | DagRun | Backfill:
    Eventic.init(name="look", database_url=url)
    try:
        return kind.hydrate(UUID(record_id))
    finally:
        Eventic.shutdown()


def test_schedules_are_listed_for_one_tenant_unless_all_are_asked_for(eventic_schedule: Callable[..., Result]) -> None:
    result = eventic_schedule("list")
    assert result.exit_code == 0, result.output
    header, nightly, over = result.output.splitlines()
    assert header.split()[:6] == ["NAME", "DAG", "CLIENT", "SCHEDULE", "ZONE", "STATE"]
    assert nightly.split()[:2] == ["nightly", "cli-plant"]
    assert "Europe/Berlin" in nightly
    assert "T02:30:00+0" in nightly
    assert over.split()[-6:] == ["-", "ended", "-", "0", "0", "-"]
    for words, names in {("--client", "acme"): ["acme's"], ("--all-tenants",): ["acme's", "nightly", "over"]}.items():
        rows = [json.loads(line) for line in eventic_schedule("list", *words, "--json").output.splitlines()]
        assert [row["name"] for row in rows] == names
    assert eventic_schedule("list", "--client", "acme", "--all-tenants").exit_code == 2


def test_a_schedule_is_shown_with_its_runs_and_backfills(eventic_schedule: Callable[..., Result]) -> None:
    run_id = eventic_schedule("run", "acme's", *APP).output.strip()
    backfill_id = eventic_schedule("backfill", "acme's", "--from", "2026-01-01", "--to", "2026-01-02").output.strip()
    shown = eventic_schedule("show", "acme's")
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert ["schedule", "every", "15", "minutes"] in [line.split() for line in lines]
    assert ["overlap", "skip"] in [line.split() for line in lines]
    assert [line.split()[:3] for line in lines if line.startswith(run_id)] == [[run_id, "-", "PENDING"]]
    (found,) = (json.loads(line) for line in eventic_schedule("show", "acme's", "--json").output.splitlines())
    assert (found["parameters"], found["runs"][0]["run"]) == (PARAMETERS, run_id)
    assert found["backfills"][0]["backfill"] == backfill_id
    assert (found["backfills"][0]["due"], found["backfills"][0]["started"]) == (96, 0)


def test_the_next_due_times_are_printed_as_the_schedules_own_clocks_show_them(
    eventic_schedule: Callable[..., Result],
) -> None:
    lines = eventic_schedule("next", "nightly", "--count", 400).output.splitlines()
    assert len(lines) == 400
    assert {line[10:] for line in lines} == {"T02:30:00+01:00", "T02:30:00+02:00", "T03:00:00+02:00"}
    assert eventic_schedule("next", "over").output == ""


def test_a_schedule_is_paused_and_resumed(eventic_schedule: Callable[..., Result]) -> None:
    assert eventic_schedule("pause", "nightly", "--actor", "ada").output == "nightly  paused\n"
    (row,) = (json.loads(line) for line in eventic_schedule("show", "nightly", "--json").output.splitlines())
    assert (row["state"], row["next"]) == ("paused", None)
    assert eventic_schedule("resume", "nightly", "--catch-up").output == "nightly  active\n"
    (row,) = (json.loads(line) for line in eventic_schedule("show", "nightly", "--json").output.splitlines())
    assert row["state"] == "active"


def test_a_run_is_started_by_hand_in_somebodys_name(eventic_schedule: Callable[..., Result], url: str) -> None:
    result = eventic_schedule("run", "nightly", "--correlation-id", "ext-1", "--actor", "ada", *APP)
    run = stored(url, DagRun, result.output.strip())
    assert isinstance(run, DagRun)
    assert (run.correlation_id, run.due_at, run.parameters, run.stamp.actor) == ("ext-1", None, PARAMETERS, "ada")


def test_a_backfill_is_shown_before_it_is_started(eventic_schedule: Callable[..., Result], url: str) -> None:
    words = ("backfill", "nightly", "--from", "2026-03-28", "--to", "2026-03-31T00:00+02:00")
    dry = eventic_schedule(*words, "--dry-run")
    assert dry.output.splitlines() == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]
    assert json.loads(eventic_schedule("show", "nightly", "--json").output)["backfills"] == []
    backfill = stored(url, Backfill, eventic_schedule(*words, "--at-a-time", 2).output.strip())
    assert isinstance(backfill, Backfill)
    assert (backfill.due_count, backfill.at_a_time) == (3, 2)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("show", "nonsense"), "There is no schedule 'nonsense'. There are: acme's, nightly, over."),
        (("pause", "nonsense"), "There is no schedule 'nonsense'"),
        (("backfill", "nightly", "--from", "soon", "--to", "2026-01-02"), "'soon' is no moment"),
        (("backfill", "nightly", "--from", "2026-01-02", "--to", "2026-01-01"), "has no time in it"),
        (("backfill", "nightly", "--from", "2026-01-02", "--to", "2999-01-01", "--dry-run"), "is still to come"),
        (("backfill", "nightly", "--from", "2026-01-01", "--to", "2026-01-09", "--at-a-time", 0), "at-a-time"),
        (("next", "nightly", "--count", 0), "count"),
    ],
)
def test_bad_input_is_refused_in_a_line(
    eventic_schedule: Callable[..., Result], words: tuple[object, ...], problem: str
) -> None:
    result = eventic_schedule(*words)
    assert result.exit_code != 0
    assert problem in result.output


def test_schedules_of_what_is_stored_are_commanded_like_others(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    Eventic.init(name="schedules", database_url=migrated_url)
    Job(name="seed", dag="sown", client_id="acme", parameters={"count": 2})
    stored_dag("sown", "acme").schedule("every hour")
    one = Job(name="seed", client_id="acme", schedule="30 2 * * *", zone="Europe/Berlin", parameters={"count": 1})
    Job(name="seed", client_id="other", schedule="@daily")
    Eventic.shutdown()

    def call(*words: object) -> Result:
        arguments = ["schedule", *map(str, words), "--database-url", migrated_url]
        return CliRunner().invoke(main, arguments, prog_name="eventic")

    rows = [json.loads(line) for line in call("list", "--client", "acme", "--json").output.splitlines()]
    assert [(row["name"], row["dag"], row["client_id"]) for row in rows] == [
        ("seed", "seed", "acme"),
        ("sown", "sown", "acme"),
    ]
    assert "T02:30:00+0" in rows[0]["next"]
    ambiguous = call("show", "seed")
    assert ambiguous.exit_code == 1
    assert str(one.id) in ambiguous.output
    assert call("pause", one.id).output == "seed  paused\n"
    assert json.loads(call("show", one.id, "--json").output)["state"] == "paused"
    assert "is not made up for" in call("resume", one.id, "--catch-up").output
    assert call("resume", one.id).output == "seed  active\n"
    for name, dag in (("sown", "sown"), (one.id, "seed")):
        started = call("run", name, *APP)
        assert started.exit_code == 0, started.output
        run = stored(migrated_url, DagRun, started.output.strip())
        assert isinstance(run, DagRun)
        assert (run.dag, run.client_id, run.parameters) == (dag, "acme", {})
        made = call("backfill", name, "--from", "2026-01-01", "--to", "2026-01-03")
        backfill = stored(migrated_url, Backfill, made.output.strip())
        assert isinstance(backfill, Backfill)
        assert (backfill.stored, backfill.job_id) == ((True, None) if dag == "sown" else (False, one.id))
