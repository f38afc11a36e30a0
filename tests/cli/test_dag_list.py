"""`eventic dag list`: which runs it lists, in which order, and what it says of each. No worker runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import NamedTuple

import cli_plant
import pytest
from click.testing import CliRunner, Result
from conftest import new_database

from eventic_core import Eventic
from eventic_core.cli import main
from eventic_core.jobs import dag, job

pytestmark = pytest.mark.usefixtures("bare_environment")


@job
def idle() -> None:
    pass


IDLE = dag("cli-idle", idle)


class Planted(NamedTuple):
    url: str
    runs: list[str]  # the first one first; the last one is a tenant's


@pytest.fixture(scope="module")
def planted(server_url: str, template: str) -> Iterator[Planted]:
    """A database with four runs: paused, cancelled, new, and one of a tenant."""
    with new_database(server_url, template) as url:
        Eventic.init(name="dag-list", database_url=url)
        paused = cli_plant.PLANT.start(count=1, flag="nowhere")
        paused.pause()
        cancelled = IDLE.start()
        cancelled.cancel("not needed")
        runs = [paused, cancelled, IDLE.start(), IDLE.start(client_id="acme")]
        Eventic.shutdown()
        yield Planted(url, [str(run.id) for run in runs])


@pytest.fixture
def eventic_list(planted: Planted) -> Callable[..., Result]:
    """Calls `eventic dag list` on that database."""

    def call(*words: str) -> Result:
        return CliRunner().invoke(main, ["dag", "list", *words, "--database-url", planted.url], prog_name="eventic")

    return call


def ids(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [json.loads(line)["id"] for line in result.stdout.splitlines()]


def test_the_runs_of_one_tenant_are_listed_the_latest_first(
    eventic_list: Callable[..., Result], planted: Planted
) -> None:
    first, second, third, fourth = planted.runs
    assert ids(eventic_list("--json")) == [third, second, first]
    assert ids(eventic_list("--json", "--client", "acme")) == [fourth]
    assert ids(eventic_list("--json", "--all-tenants")) == [fourth, third, second, first]
    assert ids(eventic_list("--json", "--client", "nobody")) == []
    assert eventic_list("--client", "acme", "--all-tenants").exit_code == 2


def test_runs_are_listed_of_one_dag_and_no_more_than_asked_for(
    eventic_list: Callable[..., Result], planted: Planted
) -> None:
    first, second, third, _ = planted.runs
    assert ids(eventic_list("cli-plant", "--json")) == [first]
    assert ids(eventic_list("cli-idle", "--json")) == [third, second]
    limited = eventic_list("cli-idle", "--limit", "1", "--json")
    assert ids(limited) == [third]
    assert "There are more" in limited.stderr
    assert "There are more" not in eventic_list("cli-idle", "--limit", "2", "--json").stderr
    nothing = eventic_list("nonsense")
    assert (nothing.exit_code, nothing.stdout, nothing.stderr) == (0, "", "No runs.\n")
    assert eventic_list("--limit", "0").exit_code == 2


def test_a_line_says_what_became_of_a_run_and_how_long_it_took(
    eventic_list: Callable[..., Result], planted: Planted
) -> None:
    header, *lines = eventic_list("--all-tenants").stdout.splitlines()
    assert header.split() == ["RUN", "DAG", "STATUS", "STARTED", "SECONDS", "CLIENT"]
    assert [line.split()[0] for line in lines] == planted.runs[::-1]
    assert [line.split()[1:3] for line in lines] == [
        ["cli-idle", "PENDING"],
        ["cli-idle", "PENDING"],
        ["cli-idle", "CANCELLED"],
        ["cli-plant", "PAUSED"],
    ]
    assert [line.split()[-1] for line in lines] == ["acme", "-", "-", "-"]
    rows = [json.loads(line) for line in eventic_list("--all-tenants", "--json").stdout.splitlines()]
    assert {tuple(row) for row in rows} == {("id", "dag", "status", "started_at", "seconds", "client_id")}
    for row in rows:
        assert (row["started_at"] is None) == (row["seconds"] is None)
        if row["started_at"] is not None:
            assert datetime.fromisoformat(row["started_at"]).utcoffset() is not None
            assert row["seconds"] >= 0
