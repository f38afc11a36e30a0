"""`eventic dag`: what its commands print and do, and how they end. A worker of the module's own does the jobs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result
from conftest import new_database
from working import working

from eventic_core.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
APP = ("--app", "cli_plant")
pytestmark = pytest.mark.usefixtures("bare_environment")


@pytest.fixture(scope="module")
def url(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database with a worker of `cli_plant`."""
    with new_database(server_url, template) as found, working("cli_plant", found, tmp_path_factory.mktemp("worker")):
        yield found


@pytest.fixture
def eventic_dag(url: str) -> Callable[..., Result]:
    """Calls `eventic dag` on that database."""

    def call(*arguments: object) -> Result:
        words = ["dag", *map(str, arguments), "--database-url", url]
        return CliRunner().invoke(main, words, prog_name="eventic")

    return call


def test_a_run_is_started_and_watched_to_its_end(eventic_dag: Callable[..., Result], tmp_path: Path) -> None:
    result = eventic_dag("run", "cli-plant", "count=4", f"flag={tmp_path / 'dry'}", "--watch", *APP)
    assert result.exit_code == 0, result.output
    run_id, *jobs, last = result.output.splitlines()
    assert jobs == ["seed  COMPLETED", "grow  COMPLETED", "reap  COMPLETED"]
    assert last == f"{run_id}  COMPLETED"
    assert eventic_dag("watch", run_id).output.splitlines() == [*jobs, last]


def test_a_failed_run_says_why_and_is_run_again(eventic_dag: Callable[..., Result], tmp_path: Path) -> None:
    dry = tmp_path / "dry"
    dry.touch()
    result = eventic_dag("run", "cli-plant", "count=4", "place=there", f"flag={dry}", "--watch", *APP)
    assert result.exit_code == 1
    run_id, *_jobs, last = result.output.splitlines()
    assert last == f"{run_id}  FAILED  1 of 3 jobs failed: grow."
    shown = [json.loads(line) for line in eventic_dag("show", run_id, "--json").output.splitlines()]
    assert [(row["job"], row["state"], row["attempts"], row["why"]) for row in shown] == [
        ("seed", "COMPLETED", 1, ""),
        ("grow", "FAILED", 1, "too dry"),
        ("reap", "UPSTREAM_FAILED", 0, "skipped: grow failed"),
    ]
    assert eventic_dag("show", run_id).output.splitlines()[0].split() == ["JOB", "STATE", "ATTEMPTS", "SECONDS", "WHY"]
    dry.unlink()
    again = eventic_dag("rerun", run_id, "--watch", *APP)
    assert again.exit_code == 0, again.output
    assert again.output.splitlines()[:2] == ["grow", "reap"]
    assert again.output.splitlines()[-1] == f"{run_id}  COMPLETED"


def test_a_failed_job_is_marked_by_hand_with_a_reason(eventic_dag: Callable[..., Result], tmp_path: Path) -> None:
    dry = tmp_path / "dry"
    dry.touch()
    run_id = eventic_dag("run", "cli-plant", "count=4", f"flag={dry}", "--watch", *APP).output.splitlines()[0]
    for words, problem in (
        ((), "Missing option '--reason'"),
        (("--reason", " "), "needs a reason"),
        (("--reason", "weighed", "--result", '"many"'), "does not fit int"),
        (("--reason", "weighed", "--result", "many"), "'many' is no JSON"),
        (("--reason", "weighed", "--status", "DONE"), "'DONE' is not one of"),
    ):
        refused = eventic_dag("mark", run_id, "grow", *words, *APP)
        assert refused.exit_code != 0
        assert problem in refused.output
    marking = ("--reason", "weighed by hand", "--result", "12", "--actor", "ada", "--watch")
    marked = eventic_dag("mark", run_id, "grow", *marking, *APP)
    assert marked.exit_code == 0, marked.output
    ready, *jobs, last = marked.output.splitlines()
    assert ready == "reap"
    assert sorted(jobs) == ["grow  COMPLETED  weighed by hand", "reap  COMPLETED", "seed  COMPLETED"]
    assert last == f"{run_id}  COMPLETED"
    shown = [json.loads(line) for line in eventic_dag("show", run_id, "--json").output.splitlines()]
    assert [(row["job"], row["why"]) for row in shown] == [("seed", ""), ("grow", "weighed by hand"), ("reap", "")]
    refused = eventic_dag("mark", run_id, "grow", "--reason", "again", "--result", "12", *APP)
    assert (refused.exit_code, "is COMPLETED" in refused.output) == (1, True)


def test_a_run_is_forked_from_what_failed_and_from_jobs_that_are_named(
    eventic_dag: Callable[..., Result], tmp_path: Path
) -> None:
    dry = tmp_path / "dry"
    dry.touch()
    run_id = eventic_dag("run", "cli-plant", "count=4", f"flag={dry}", "--watch", *APP).output.splitlines()[0]
    wet = ("--parameter", f"flag={tmp_path / 'wet'}")
    forked = eventic_dag("fork", run_id, *wet, "--watch", *APP)
    assert forked.exit_code == 0, forked.output
    made, *jobs, last = forked.output.splitlines()
    assert made != run_id
    assert jobs == [f"seed  COMPLETED  taken over from run {run_id}", "grow  COMPLETED", "reap  COMPLETED"]
    assert last == f"{made}  COMPLETED"
    again = eventic_dag("fork", made, "--from", "seed", "--from", "reap", "--parameter", "count=9", "--watch", *APP)
    assert again.exit_code == 0, again.output
    assert again.output.splitlines()[1:-1] == ["seed  COMPLETED", "grow  COMPLETED", "reap  COMPLETED"]
    for words, problem in (
        ((), "no job has failed"),
        (("--from", "sow"), "'sow'"),
        (("--from", "grow", "--parameter", "count=9"), "'count' would change nothing"),
        (("--from", "grow", "--parameter", "flag"), "write NAME=VALUE"),
    ):
        refused = eventic_dag("fork", made, *words, *APP)
        assert refused.exit_code != 0
        assert problem in refused.output


def test_a_dag_and_a_run_are_drawn(eventic_dag: Callable[..., Result], tmp_path: Path) -> None:
    assert eventic_dag("draw", "cli-plant", *APP).output.startswith("flowchart")
    run_id = eventic_dag("run", "cli-plant", "count=1", f"flag={tmp_path / 'dry'}", *APP).output.strip()
    assert eventic_dag("draw", run_id, "--format", "svg").output.startswith("<svg")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("run", "nonsense", *APP), "No DAG 'nonsense' is declared"),
        (("run", "cli-plant", "count", *APP), "write NAME=VALUE"),
        (("run", "cli-plant", "count=many", "flag=x", *APP), "argument 'count' does not fit int"),
        (("run", "cli-plant", "count=1", *APP), "parameter 'flag' of job 'grow' has no value"),
        (("show", "nonsense"), "There is no run 'nonsense'"),
        (("pause", str(uuid4())), "There is no run"),
    ],
)
def test_bad_input_is_refused_in_a_line(
    eventic_dag: Callable[..., Result], words: tuple[str, ...], problem: str
) -> None:
    result = eventic_dag(*words)
    assert result.exit_code != 0
    assert problem in result.output


def test_an_ended_run_is_neither_paused_resumed_nor_cancelled(
    eventic_dag: Callable[..., Result], tmp_path: Path
) -> None:
    result = eventic_dag("run", "cli-plant", "count=1", f"flag={tmp_path / 'dry'}", "--watch", *APP)
    run_id = result.output.splitlines()[0]
    for act in ("pause", "resume", "cancel"):
        refused = eventic_dag(act, run_id)
        assert refused.exit_code != 0
        assert "DagRun" in refused.output


def work(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Call `eventic dag` as a process that does the jobs."""
    command = [sys.executable, "-m", "eventic_core", "dag", *words, "--work", "--database-url", url]
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False, timeout=100)


def test_a_process_that_works_does_a_run_to_its_end_and_exits_with_what_became_of_it(
    migrated_url: str, tmp_path: Path
) -> None:
    dry = tmp_path / "dry"
    dry.touch()
    failed = work(migrated_url, "run", "cli-plant", "count=4", f"flag={dry}", *APP)
    assert failed.returncode == 1
    run_id, *jobs, last = failed.stdout.splitlines()
    assert jobs == ["seed  COMPLETED", "grow  FAILED  too dry", "reap  UPSTREAM_FAILED  skipped: grow failed"]
    assert last == f"{run_id}  FAILED  1 of 3 jobs failed: grow."
    assert "Stopped after" in failed.stderr
    over = work(migrated_url, "watch", run_id, *APP)
    assert (over.returncode, over.stdout.splitlines(), over.stderr) == (1, [*jobs, last], "")
    dry.unlink()
    words = ["dag", "rerun", run_id, *APP, "--database-url", migrated_url]
    assert CliRunner().invoke(main, words, prog_name="eventic").output.splitlines() == ["grow", "reap"]
    again = work(migrated_url, "watch", run_id, *APP)
    assert (again.returncode, again.stdout.splitlines()[-1]) == (0, f"{run_id}  COMPLETED")


def test_a_run_whose_dag_is_not_declared_is_not_waited_for_by_a_process_that_works(
    migrated_url: str, tmp_path: Path
) -> None:
    words = ["dag", "run", "cli-plant", "count=4", f"flag={tmp_path / 'dry'}", *APP, "--database-url", migrated_url]
    run_id = CliRunner().invoke(main, words, prog_name="eventic").output.strip()
    for app in ((), ("--app", "json")):
        refused = work(migrated_url, "watch", run_id, *app)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "No DAG 'cli-plant' is declared" in refused.stderr
    words = ["dag", "show", run_id, "--json", "--database-url", migrated_url]
    shown = CliRunner().invoke(main, words, prog_name="eventic").output.splitlines()
    assert {json.loads(line)["state"] for line in shown} == {"READY", "WAITING"}
