"""`eventic batch` and the commands of `eventic run` about automations: what they print where, do, and how they end.

A worker process of the module's own does the items, as in production: the command only enqueues.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from cli_shop import Customer, Price, Priced
from click.testing import CliRunner, Result
from conftest import new_database, until
from working import working

from eventic_core import Eventic, ResultTimeout
from eventic_core.automation.definitions import Automation, Batch, Item
from eventic_core.automation.run import Run
from eventic_core.cli import main
from eventic_core.cli.application import connected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HERE = Path(__file__).parent
APP = ("--app", "cli_shop")
pytestmark = pytest.mark.usefixtures("bare_environment")


@pytest.fixture(scope="module")
def url(server_url: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database with a worker of `cli_shop`."""
    with new_database(server_url, template) as found, working("cli_shop", found, tmp_path_factory.mktemp("worker")):
        yield found


@pytest.fixture
def eventic_run(url: str) -> Callable[..., Result]:
    """Calls the command line on that database."""

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(main, [*map(str, arguments), "--database-url", url], prog_name="eventic")

    return call


@pytest.fixture
def started(eventic_run: Callable[..., Result]) -> Callable[..., str]:
    """Starts a run over rows, and gives its id."""

    def start(automation: str, rows: Sequence[Any], *options: object) -> str:
        batch = load(eventic_run, automation, rows)
        result = eventic_run("run", "start", automation, batch, *APP, *options)
        assert result.exit_code in (0, 1), result.stderr
        return str(result.stdout.split()[0])

    return start


def load(call: Callable[..., Result], automation: str, rows: Sequence[Any]) -> str:
    file = Path("rows.jsonl")
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    result = call("batch", "load", automation, uuid4().hex, file, *APP)
    assert result.exit_code == 0, result.stderr
    return str(result.stdout.strip())


def customers(*ages: int) -> list[dict[str, Any]]:
    return [{"name": f"customer {number}", "age": age} for number, age in enumerate(ages, 1)]


def objects(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


# -- loading


def test_a_csv_file_becomes_a_batch_with_what_the_model_makes_of_it(
    url: str, eventic_run: Callable[..., Result]
) -> None:
    Path("rows.csv").write_text("\ufeffname,age\nAda,36\nZoë,7\n", encoding="utf-8")
    result = eventic_run("batch", "load", "cli import", "from csv", "rows.csv", *APP, "--actor", "ada")
    assert result.exit_code == 0, result.stderr
    batch_id = UUID(result.stdout.strip())
    assert result.stderr.splitlines() == [
        "loading from csv: 2 of 2",
        "2 items loaded, 0 bad rows set aside.",
    ]
    with connected(url):
        items = Item.where(batch_id=batch_id).order_by(Item.fields.sequence_number).all()
        assert [(item.sequence_number, item.payload["name"], item.payload["age"]) for item in items] == [
            (1, "Ada", 36),
            (2, "Zoë", 7),
        ]
        assert Batch.hydrate(batch_id).created_by == "ada"


def test_a_bad_row_refuses_the_batch_and_names_its_number(url: str, eventic_run: Callable[..., Result]) -> None:
    Path("rows.csv").write_text("name,age\nAda,36\nBob,old\n", encoding="utf-8")
    result = eventic_run("batch", "load", "cli import", "refused", "rows.csv", *APP)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Row 2: payload.age: " in result.stderr
    with connected(url):
        assert Batch.where(name="refused").count() == 0


def test_bad_rows_that_are_set_aside_are_listed(eventic_run: Callable[..., Result]) -> None:
    Path("rows.csv").write_text("name,age\nAda,36\nBob,old\nCid\nDan,4\n", encoding="utf-8")
    result = eventic_run("batch", "load", "cli import", "set aside", "rows.csv", *APP, "--set-aside")
    assert result.exit_code == 0
    *_, counted, second, third = result.stderr.splitlines()
    assert counted == "2 items loaded, 2 bad rows set aside."
    assert second.startswith("row 2: age: Input should be a valid integer")
    assert third == "row 3: line 4 has 1 fields, the header has 2"


def test_an_automation_that_is_only_stored_has_its_schema_judge(url: str, eventic_run: Callable[..., Result]) -> None:
    with connected(url):
        Automation(name="cli by hand", item_schema={"type": "object", "required": ["a"]})
    Path("rows.jsonl").write_text('\ufeff{"a": 1}\n\n{"b": 2}\n{"a": NaN}\n{oops\n{"a": 3}', encoding="utf-8")
    result = eventic_run("batch", "load", "cli by hand", "lines", "rows.jsonl", "--set-aside")
    assert result.exit_code == 0, result.stderr
    listed = result.stderr.splitlines()[-4:]
    assert listed[0] == "2 items loaded, 3 bad rows set aside."
    assert [line.partition(": ")[0] for line in listed[1:]] == ["row 2", "row 3", "row 4"]
    assert [
        part in line for part, line in zip(('"a"', "line 4 is no JSON", "line 5 is no JSON"), listed[1:], strict=True)
    ]


@pytest.mark.parametrize(
    ("file", "content", "code", "message"),
    [
        ("rows.txt", b"", 2, "is no .csv or .jsonl"),
        ("rows.csv", "name,age\nZoë,1\n".encode("latin-1"), 1, "cannot be read as .csv in UTF-8"),
        ("rows.csv", b'name,age\n"open,1\n', 1, "cannot be read as .csv"),
        ("rows.csv", b"name,age\n", 1, "would be empty"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(
    eventic_run: Callable[..., Result], file: str, content: bytes, code: int, message: str
) -> None:
    Path(file).write_bytes(content)
    result = eventic_run("batch", "load", "cli import", "unreadable", file, *APP)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr
    assert "[unexpected]" not in result.stderr


# -- starting and watching


def test_a_run_is_started_by_the_name_of_a_batch_and_watched_to_its_end(
    url: str, eventic_run: Callable[..., Result]
) -> None:
    Path("rows.csv").write_text("name,age\nAda,36\nBob,7\n", encoding="utf-8")
    eventic_run("batch", "load", "cli import", "Q1", "rows.csv", *APP)
    options = (*APP, "--watch", "--actor", "ada", "--correlation-id", "ext-1", "--tolerated-failures", "5%")
    result = eventic_run("run", "start", "cli import", "Q1", *options)
    assert result.exit_code == 0, result.stderr
    run_id, last = result.stdout.splitlines()
    assert last.split(None, 2) == [run_id, "COMPLETED", "2 completed, 0 failed, 0 cancelled, 0 skipped"]
    assert result.stderr.splitlines()[-1].startswith(f"run {run_id}: 2 of 2")
    with connected(url):
        run = Run.hydrate(run_id)
        assert (run.correlation_id, run.tolerated_failures, run.created_by) == ("ext-1", "5%", "ada")
        assert {change.actor for change in run.changes()} == {"ada"}


def test_a_run_that_fails_ends_the_watching_with_1(
    eventic_run: Callable[..., Result], started: Callable[..., str]
) -> None:
    run_id = started("cli import", customers(1, -1, -1), "--tolerated-failures", 1)
    result = eventic_run("run", "watch", run_id)
    assert result.exit_code == 1
    assert result.stdout.split(None, 2) == [run_id, "FAILED", "1 completed, 2 failed, 0 cancelled, 0 skipped\n"]
    assert f"Run {run_id} is FAILED: " in result.stderr


def test_watching_as_json_gives_a_line_for_each_change(
    eventic_run: Callable[..., Result], started: Callable[..., str]
) -> None:
    run_id = started("cli import", customers(*range(30)), "--correlation-id", "watched as json")
    *_, last = objects(eventic_run("run", "watch", "watched as json", "--json"))
    assert {name: last[name] for name in ("run_id", "status", "state", "total", "done", "completed")} == {
        "run_id": run_id,
        "status": "COMPLETED",
        "state": "ended",
        "total": 30,
        "done": 30,
        "completed": 30,
    }


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_watching_is_a_bar_on_a_terminal(
    eventic_run: Callable[..., Result], started: Callable[..., str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Path("gate").resolve()
    run_id = started("cli wait", [{"path": str(gate)}] * 2)
    eventic_run("run", "pause", run_id)
    terminal = Terminal()
    with connected(url), monkeypatch.context() as patched:
        patched.setenv("COLUMNS", "120")
        patched.setenv("TERM", "xterm")
        patched.setattr(sys, "stderr", terminal)
        with pytest.raises(ResultTimeout, match="0 of 2 items are done"):
            Run.hydrate(run_id).wait(timeout_seconds=0.5, progress=True)
    shown = terminal.getvalue()
    assert f"run {run_id[:8]}…{run_id[-11:]}" in shown
    assert "0 of 2" in shown
    assert "paused" in shown
    eventic_run("run", "cancel", run_id, "--reason", "seen")
    gate.touch()


def test_what_was_never_stored_has_no_batch_and_is_not_stored_by_asking(
    url: str, eventic_run: Callable[..., Result]
) -> None:
    result = eventic_run("run", "start", "cli never started", "x", *APP)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Automation 'cli never started' has no batch 'x'. Its newest are: none." in result.stderr
    with connected(url):
        assert Automation.where(name="cli never started").count() == 0


def test_starting_names_what_is_missing(eventic_run: Callable[..., Result], url: str) -> None:
    load(eventic_run, "cli import", customers(1))
    for arguments, message in (
        (("cli import", "no batch"), "Automation 'cli import' has no batch 'no batch'. Its newest are: '"),
        (("cli impor", "x"), "There is no automation 'cli impor'. There are: "),
        (("cli import",), "Missing argument 'BATCH...'"),
    ):
        result = eventic_run("run", "start", *arguments, *APP)
        assert (result.exit_code, result.stdout) == (2 if len(arguments) == 1 else 1, "")
        assert message in result.stderr
    command = [sys.executable, "-m", "eventic_core", "run", "start", "cli import", "x", "--database-url", url]
    alone = subprocess.run(command, capture_output=True, text=True, check=False)
    assert alone.returncode == 1
    assert "is stored, but not declared in this process" in alone.stderr
    assert alone.stderr.endswith("--app MODULE or EVENTIC_APP. [not_registered]\n")


def test_the_app_may_connect_by_itself_and_the_command_line_wins(url: str, eventic_run: Callable[..., Result]) -> None:
    batch = load(eventic_run, "cli import", customers(3))
    app = f"from cli_shop import *\nfrom eventic_core import Eventic\nEventic.init(name='own', database_url={url!r})\n"
    Path("own_app.py").write_text(app, encoding="utf-8")
    command = [sys.executable, "-m", "eventic_core", "run", "start", "cli import", batch, "--app", "own_app", "--watch"]
    nowhere = ["--database-url", "postgresql://me@127.0.0.1:1/db"]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (found.returncode, "COMPLETED" in found.stdout) == (0, True), found.stderr
    refused = subprocess.run([*command, *nowhere], env=environment, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (3, ""), refused.stderr


@pytest.mark.parametrize("command", ["watch", "report", "results", "changes", "pause", "redrive", "undo", "replay"])
def test_an_unknown_run_of_an_automation_ends_with_1(eventic_run: Callable[..., Result], command: str) -> None:
    for name in ("none", uuid4()):
        result = eventic_run("run", command, name)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.endswith("[run_not_found]\n")


def test_a_correlation_id_names_a_run_only_if_no_other_has_it(
    eventic_run: Callable[..., Result], started: Callable[..., str]
) -> None:
    ids = [started("cli import", customers(1), "--watch", "--correlation-id", "twice") for _ in range(2)]
    result = eventic_run("run", "report", "twice")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"Several runs have the correlation id 'twice': {ids[1]}, {ids[0]}." in result.stderr


# -- what came of it


def test_a_report_counts_items_and_groups_errors(
    eventic_run: Callable[..., Result], started: Callable[..., str]
) -> None:
    run_id = started("cli import", customers(1, -1, 2, -2), "--tolerated-failures", 10, "--watch")
    result = eventic_run("run", "report", run_id)
    assert result.exit_code == 0
    summary, errors = (part.splitlines() for part in result.stdout.split("\n\n"))
    rows = {name: value.strip() for name, _, value in (line.strip().partition("  ") for line in summary)}
    assert (rows["status"], rows["items"], rows["COMPLETED"], rows["FAILED"]) == ("COMPLETED", "4", "2", "2")
    assert rows["attempts"] == "4 took 1"
    assert [line.split(None, 3) for line in errors] == [
        ["count", "error_type", "sample_numbers", "message"],
        ["2", "ValueError", "2,4", "customer 2 is not born yet"],
    ]
    (as_json,) = objects(eventic_run("run", "report", run_id, "--json"))
    assert (as_json["status"], as_json["statuses"]["FAILED"], as_json["errors"][0]["count"]) == ("COMPLETED", 2, 2)


def test_results_are_lines_of_json_or_csv(eventic_run: Callable[..., Result], started: Callable[..., str]) -> None:
    run_id = started("cli import", customers(1, -1, 2), "--tolerated-failures", 10, "--watch")
    results = objects(eventic_run("run", "results", run_id))
    assert [(row["number"], row["result"]) for row in results] == [(1, {"age": 1}), (3, {"age": 2})]
    table = eventic_run("run", "results", run_id, "--format", "csv", "--status", "failed", "--status", "completed")
    rows = list(csv.DictReader(io.StringIO(table.stdout)))
    assert [(row["number"], row["status"], row["error"]) for row in rows] == [
        ("1", "COMPLETED", ""),
        ("2", "FAILED", "customer 2 is not born yet"),
        ("3", "COMPLETED", ""),
    ]
    assert eventic_run("run", "results", run_id, "--status", "gone").exit_code == 2


def test_changes_are_the_versions_a_run_wrote(eventic_run: Callable[..., Result], started: Callable[..., str]) -> None:
    run_id = started("cli import", customers(1, 2), "--watch")
    header, *rows = (line.split() for line in eventic_run("run", "changes", run_id).stdout.splitlines())
    assert header == ["item", "attempt", "kind", "class", "id", "version", "recorded_at", "actor", "fields"]
    assert sorted((row[0], row[2], row[3], row[5]) for row in rows) == [
        ("1", "create", "CliRunCustomer", "0"),
        ("2", "create", "CliRunCustomer", "0"),
    ]
    second = objects(eventic_run("run", "changes", run_id, "--item", 2, "--class", "CliRunCustomer", "--json"))
    assert [(change["item"], change["fields"]["name"]) for change in second] == [(2, "customer 2")]
    kept = {change["class"] for change in objects(eventic_run("run", "changes", run_id, "--bookkeeping", "--json"))}
    assert {"Run", "BatchExecution", "ItemExecution"} <= kept
    unknown = eventic_run("run", "changes", run_id, "--class", "Nonsense")
    assert (unknown.exit_code, "[not_registered]" in unknown.stderr) == (1, True)


def test_two_runs_are_compared_item_by_item(eventic_run: Callable[..., Result], started: Callable[..., str]) -> None:
    one = started("cli import", customers(1, 2), "--watch")
    other = started("cli import", customers(1, 3, 4), "--watch")
    *_, line, new, counts = (
        line for line in eventic_run("run", "diff", one, other).stdout.splitlines() if line[0] in "~+" or "same" in line
    )
    assert line.startswith("~ item 2")
    assert new.startswith("+ item 3")
    assert counts == "1 same, 1 different, 0 only in a, 1 only in b"
    changed, added = objects(eventic_run("run", "diff", one, other, "--key", "name", "--json"))
    assert (changed["kind"], changed["key"], changed["fields"]["result"]) == (
        "different",
        "customer 2",
        [{"age": 2}, {"age": 3}],
    )
    assert changed["records"][0]["fields"] == {"age": [2, 3]}
    assert (added["kind"], added["numbers"]) == ("only in b", [None, 3])


# -- steering


def test_a_run_is_paused_resumed_and_cancelled(
    url: str, eventic_run: Callable[..., Result], started: Callable[..., str]
) -> None:
    gates = [Path("first").resolve(), Path("second").resolve()]
    run_id = started("cli wait", [{"path": str(gate)} for gate in (*gates, gates[1])])
    assert eventic_run("run", "pause", run_id).stdout == f"{run_id}  PAUSED\n"
    again = eventic_run("run", "pause", run_id)
    assert (again.exit_code, again.stderr.endswith("[invalid_state]\n")) == (1, True)
    assert eventic_run("run", "resume", run_id).stdout.split()[0] == run_id
    assert eventic_run("run", "resume", run_id).stderr.endswith("[invalid_state]\n")
    gates[0].touch()
    with connected(url):
        until(lambda: Run.hydrate(run_id).progress().completed == 1)
    refused = eventic_run("run", "cancel", run_id)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "--reason" in refused.stderr
    cancelled = eventic_run("run", "cancel", run_id, "--reason", "enough", "--actor", "ada")
    assert (cancelled.exit_code, cancelled.stdout) == (0, f"{run_id}  CANCELLED\n")
    gates[1].touch()
    with connected(url):
        run = Run.hydrate(run_id)
        assert (run.cancellation_reason, run.updated_by) == ("enough", "ada")
    watched = eventic_run("run", "watch", run_id)
    assert watched.exit_code == 1
    assert watched.stdout.split(None, 2)[1:] == ["CANCELLED", "1 completed, 0 failed, 2 cancelled, 0 skipped\n"]
    assert watched.stderr.endswith(f"Run {run_id} is CANCELLED: enough\n")


def test_what_is_no_run_of_an_automation_is_steered_as_a_workflow(eventic_run: Callable[..., Result]) -> None:
    for command in (["cancel"], ["cancel", "--reason", "x"], ["resume"]):
        result = eventic_run("run", *command, "none")
        assert (result.exit_code, result.stderr.endswith("[run_not_found]\n")) == (1, True)


def test_failed_items_are_redriven_by_filter(eventic_run: Callable[..., Result], started: Callable[..., str]) -> None:
    gates = [Path(name).resolve() for name in ("disk", "net", "net too")]
    for gate in gates:
        gate.touch()
    run_id = started("cli repair", [{"path": str(gate)} for gate in gates], "--watch")
    for gate in gates:
        gate.unlink()
    result = eventic_run("run", "redrive", run_id, *APP, "--message", "disk", "--error-type", "ConnectionError")
    assert (result.exit_code, result.stdout) == (0, f"{run_id}  RETRYING\n")
    assert result.stderr == "1 failed item will be done again.\n"
    assert eventic_run("run", "watch", run_id).exit_code == 1
    result = eventic_run("run", "redrive", run_id, *APP, "--numbers", "2-3,7", "--watch")
    assert (result.exit_code, result.stdout.splitlines()[-1].split()[1:4]) == (0, ["COMPLETED", "3", "completed,"])
    assert "2 failed items will be done again.\n" in result.stderr
    nothing = eventic_run("run", "redrive", run_id, *APP)
    assert (nothing.exit_code, "nothing to redrive" in nothing.stderr) == (1, True)


@pytest.mark.parametrize("options", [["--numbers", "a"], ["--numbers", "1-"], ["--not-begun", "--numbers", "1"]])
def test_a_filter_that_makes_no_sense_is_wrong_usage(eventic_run: Callable[..., Result], options: list[str]) -> None:
    assert eventic_run("run", "redrive", uuid4(), *options).exit_code == 2


def test_a_run_of_an_automation_is_not_forked(eventic_run: Callable[..., Result], started: Callable[..., str]) -> None:
    result = eventic_run("run", "fork", started("cli import", customers(1), "--watch"))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "`eventic run redrive`" in result.stderr


# -- taking back


def test_a_run_is_undone_and_the_undo_too(
    url: str, eventic_run: Callable[..., Result], started: Callable[..., str]
) -> None:
    run_id = started("cli import", customers(71, 72), "--watch")
    with connected(url):
        touched = Customer.where(age=72).first()
        assert touched is not None
        with Eventic.acting(actor="bob"):
            touched.name = "touched"
    dry = eventic_run("run", "undo", run_id, *APP, "--dry-run")
    assert dry.exit_code == 0
    first, conflict = dry.stdout.splitlines()
    assert first.startswith(f"{run_id}:undo-1 (dry run): ")
    assert conflict == f"! CliRunCustomer {touched.id}: version 1 by bob"
    done = eventic_run("run", "undo", run_id, *APP, "--actor", "ada", "--reason", "mistake")
    assert done.exit_code == 1
    with connected(url):
        assert [found.age for found in Customer.where(Customer.fields.age > 70)] == [72]
    (forced,) = objects(eventic_run("run", "undo", run_id, *APP, "--force", "--json"))
    assert (forced["tombstoned"], forced["unchanged"], forced["conflict_count"]) == (1, 1, 0)
    again = eventic_run("run", "undo", f"{run_id}:undo-1", *APP)
    assert again.exit_code == 0, again.stderr
    with connected(url):
        assert sorted(found.age for found in Customer.where(Customer.fields.age > 70)) == [71, 72]
    changes = objects(eventic_run("run", "changes", f"{run_id}:undo-1", "--json"))
    assert [change["kind"] for change in changes] == ["delete", "delete"]
    assert changes[0]["actor"] == "ada"


# -- doing it again


def test_a_replay_shows_what_would_come_of_it_and_is_published(
    url: str, eventic_run: Callable[..., Result], started: Callable[..., str]
) -> None:
    with connected(url):
        prices = [Price(of="a", amount=1), Price(of="b", amount=2)]
    run_id = started("cli price", [str(price.id) for price in prices], "--watch")
    with connected(url):
        prices[1].amount = 3
        later = prices[1].stamp.recorded_at
    same = eventic_run("run", "replay", run_id, *APP)
    assert (same.exit_code, same.stdout) == (0, "2 items replayed: 2 same, 0 different\n"), same.stderr
    first = eventic_run("run", "replay", run_id, *APP, "--as-of", later.isoformat(), "--numbers", 1)
    assert first.stdout == "1 item replayed: 1 same, 0 different\n"
    different, counts = objects(eventic_run("run", "replay", run_id, *APP, "--as-of", later.isoformat(), "--json"))
    assert (different["numbers"], different["fields"]["result"]) == ([2, 2], [2, 3])
    assert (counts["kind"], counts["same"], counts["different"], counts["published"]) == ("replay", 1, 1, None)
    with connected(url):
        assert sorted(found.amount for found in Priced.stream()) == [1, 2]
    options = ("--as-of", later.isoformat(), "--publish", "--actor", "ada", "--reason", "new prices")
    published = eventic_run("run", "replay", run_id, *APP, *options)
    assert published.exit_code == 0, published.stderr
    counted, written = published.stdout.splitlines()[-2:]
    assert counted == "2 items replayed: 1 same, 1 different"
    assert written.startswith(f"{run_id}:replay-1: 0 created, 1 changed")
    with connected(url):
        found = Priced.where(amount=3).first()
        assert found is not None
        assert (found.stamp.actor, found.stamp.reason) == ("ada", "new prices")


@pytest.mark.parametrize("options", [["--as-of", "now"], ["--as-of", "2026-01-01"], ["--force"], ["--reason", "x"]])
def test_a_replay_that_makes_no_sense_is_wrong_usage(eventic_run: Callable[..., Result], options: list[str]) -> None:
    assert eventic_run("run", "replay", uuid4(), *options).exit_code == 2
