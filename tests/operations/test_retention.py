"""Retention: what is old and over goes, and nothing that something unfinished needs."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ageing import DAY, age, caught_up, rows, rule, settle_workflows
from conftest import until

from eventic_core import Eventic, Record, Retry, on
from eventic_core.automation import Run, automation
from eventic_core.errors import Conflict, InvalidRecord, NotFound, RecordNotFound
from eventic_core.jobs import dag, job
from eventic_core.operations import OperatorAct
from eventic_core.operations.retention import apply, drop_rule, parse_age, plan, rules, set_rule

if TYPE_CHECKING:
    from collections.abc import Iterator

OPEN, LATER = Eventic.queue("retention.open", concurrency=50), Eventic.queue("retention.later", concurrency=50)


class Leaf(Record, class_type="RetentionLeaf"):
    text: str = ""


@Eventic.workflow(name="retention.node")
def node(plan: dict[str, Any]) -> int:
    """Start what the plan says, and give how many runs that were, with their own."""
    started = [
        (LATER if child["later"] else OPEN).enqueue(node, child, run_id=child["name"]) for child in plan["children"]
    ]
    if plan["waits"]:
        return 1 + sum(handle.result() for handle in started)
    return 1


@pytest.fixture
def launched(eventic: str) -> str:
    """A database of the test's own, with workers, that have read what their handlers could have missed."""
    Eventic.launch()
    caught_up(eventic)
    return eventic


@pytest.fixture
def own(migrated_url: str) -> Iterator[str]:
    """A database of the test's own, with a worker that leaves the queue `retention.later` alone."""
    Eventic.init(name="tests", database_url=migrated_url, drain_seconds=0.2)
    Eventic.launch(queues=["retention.open"])
    yield migrated_url
    Eventic.shutdown()


def runs_of(url: str) -> set[str]:
    return {run_id for (run_id,) in rows(url, "select workflow_uuid from dbos.workflow_status")}


def drawn(random: random.Random, depth: int, *, ends: bool) -> dict[str, Any]:
    """Draw what a run starts; where `ends` is false something below it waits in a queue that nobody serves."""
    width = random.randrange(3) if depth else 0
    children = [drawn(random, depth - 1, ends=True) for _ in range(width)]
    if not ends:
        children.append({"later": True, "waits": False, "children": [], "name": None})
    name = f"named {random.getrandbits(64)}" if random.random() < 0.3 else None
    return {"later": False, "waits": random.random() < 0.6, "children": children, "name": name}


def size(plan: dict[str, Any]) -> int:
    return 1 + sum(map(size, plan["children"]))


def settled(url: str, runs: tuple[int, int]) -> None:
    """Wait until all that can end has, and the others wait."""
    deadline = time.monotonic() + 100
    sql = (
        "select count(*), count(*) filter (where status in ('ENQUEUED', 'PENDING') and queue_name <> %s) "
        "from dbos.workflow_status"
    )
    while True:
        ((total, open_runs),) = rows(url, sql, "retention.later")
        if total == runs[0] and open_runs == runs[1]:
            return
        assert time.monotonic() < deadline, (total, open_runs, runs)
        time.sleep(0.05)


@pytest.mark.parametrize("seed", range(3))
def test_unfinished_runs_end_as_they_would_have_and_all_else_goes(own: str, seed: int) -> None:
    draw = random.Random(seed)
    plans = [drawn(draw, 3, ends=draw.random() < 0.5) for _ in range(8)]
    handles = [OPEN.enqueue(node, plan) for plan in plans]
    unfinished = [any(child["later"] for child in plan["children"]) for plan in plans]
    waiting = [has and plan["waits"] for has, plan in zip(unfinished, plans, strict=True)]
    settled(own, (sum(map(size, plans)), sum(waiting)))
    needed = {run for handle, has in zip(handles, unfinished, strict=True) if has for run in family(own, handle.id)}
    needed |= {
        run
        for waits, made in zip(waiting, plans, strict=True)
        if waits
        for name in names(made)
        for run in family(own, name)
    }
    before = runs_of(own)
    age(own)
    one = rule("workflows")
    planned = plan([one])[0].count
    done = apply(one, batch_rows=draw.choice([1, 3, 1000]))
    after = runs_of(own)
    assert after == needed
    assert planned == done.count == len(before) - len(after)
    for table in ("workflow_input", "workflow_output", "operation_outputs"):
        assert {run for (run,) in rows(own, f"select workflow_uuid from dbos.{table}")} <= after
    Eventic.shutdown()
    Eventic.init(name="tests", database_url=own)
    Eventic.launch()
    for handle, made, has in zip(handles, plans, unfinished, strict=True):
        if has:
            assert handle.result(timeout_seconds=100) == expected(made)


def names(plan: dict[str, Any]) -> list[str]:
    """The run ids that were chosen, in what a run started."""
    return [name for child in plan["children"] for name in [child["name"], *names(child)] if name]


def expected(plan: dict[str, Any]) -> int:
    return 1 + sum(map(expected, plan["children"])) if plan["waits"] else 1


def family(url: str, root: str) -> set[str]:
    """A run with all below it, by the names of the steps that started them."""
    return {run for run in runs_of(url) if run == root or run.startswith(f"{root}-")}


def test_past_versions_go_but_the_current_one_and_what_is_too_young(launched: str) -> None:
    leaf, young = Leaf(text="a"), Leaf(text="young")
    leaf.text = "b"
    leaf.text = "c"
    first = leaf.history()[-1].stamp.recorded_at
    age(launched)
    young.text = "younger"
    moment = datetime.now(UTC) - timedelta(days=100)
    one = rule("history", of="RetentionLeaf")
    assert plan([one])[0].count == 2
    assert apply(one, batch_rows=1).count == 2
    assert [past.text for past in leaf.history()] == ["c"]
    assert [past.text for past in young.history()] == ["younger", "young"]
    assert Leaf.hydrate(leaf.id).text == "c"
    with pytest.raises(RecordNotFound):
        Leaf.hydrate(leaf.id, version=0)
    with pytest.raises(RecordNotFound):
        Leaf.as_of(first - timedelta(days=100)).hydrate(leaf.id)
    floor = rows(launched, "select since from eventic.history_floors where class_type = 'RetentionLeaf'")
    assert first - timedelta(days=101) < floor[0][0] <= moment
    leaf.text = "d"
    assert leaf.version == 3
    assert apply(one).count == 0


def test_versions_an_unfinished_run_may_ask_for_stay(launched: str) -> None:
    leaf = Leaf(text="a")
    age(launched)
    waiting = OPEN.enqueue(node, {"waits": False, "children": []})
    waiting.result()
    rows(launched, "update dbos.workflow_status set status = 'DELAYED' where workflow_uuid = %s", waiting.id)
    leaf.text = "b"
    age(launched)
    one = rule("history", of="RetentionLeaf")
    assert plan([one])[0].held_by == waiting.id
    assert apply(one).count == 0
    rows(launched, "update dbos.workflow_status set status = 'SUCCESS' where workflow_uuid = %s", waiting.id)
    assert apply(one).count == 1


@automation("retention: items")
def items(item: dict[str, int]) -> int:
    return item["number"]


@job
def begin() -> Run:
    return items.start(items.batch(str(time.monotonic_ns()), [{"number": number} for number in range(5)]))


@job
def after(begin: Run) -> int:
    return len(list(begin.results()))


BOTH = dag("retention: both", begin, after)


def test_a_run_goes_with_its_items_jobs_and_children(launched: str) -> None:
    run = BOTH.start().wait(timeout_seconds=100)
    child = Run.where().first()
    assert child is not None
    settle_workflows(launched)
    age(launched)
    assert apply(rule("runs", of="retention: items")).count == 0
    one = rule("runs", of="retention: both")
    assert plan([one])[0].count == 2
    assert apply(one, batch_rows=2).count == 2
    left = rows(
        launched,
        "select distinct class_type from eventic.records "
        "where class_type in ('Run', 'DagRun', 'JobRun', 'ItemExecution', 'BatchExecution')",
    )
    assert left == []
    for table in ("run_counters", "run_failures", "dag_runs", "waits"):
        assert rows(launched, f"select 1 from eventic.{table}") == []
    for found in (run, child):
        assert not [one for one in runs_of(launched) if one.startswith(str(found.id))]
    again = BOTH.start().wait(timeout_seconds=100)
    assert again.result("after") == 5


def test_a_finished_child_of_an_unfinished_run_stays(launched: str) -> None:
    run = BOTH.start().wait(timeout_seconds=100)
    settle_workflows(launched)
    age(launched)
    rows(launched, "update eventic.dag_runs set state = 'paused' where run_id = %s", run.id)
    for of in ("retention: both", "retention: items", None):
        assert apply(rule("runs", of=of)).count == 0
    rows(launched, "update eventic.dag_runs set state = 'ended' where run_id = %s", run.id)
    assert apply(rule("runs")).count == 2


def test_deleted_records_go_with_their_keys_and_progress(launched: str) -> None:
    gone, alive, young = Leaf(text="x"), Leaf(text="y"), Leaf(text="z")
    gone.delete()
    age(launched)
    young.delete()
    one = rule("tombstones", of="RetentionLeaf")
    assert apply(one).count == 1
    with pytest.raises(RecordNotFound):
        Leaf.hydrate(gone.id, version=0)
    assert Leaf.hydrate(alive.id).text == "y"
    assert Leaf.restore(young.id).text == "z"


def test_rules_are_records_and_each_act_is_one(eventic: str) -> None:
    with Eventic.acting(actor="ada"):
        made = set_rule("old", "history", older_than_seconds=parse_age("30d"), reason="law")
        assert set_rule("old", "history", older_than_seconds=30 * DAY).version == 0
        set_rule("old", "history", older_than_seconds=60 * DAY)
    assert [one.older_than_seconds for one in rules()] == [60 * DAY]
    assert [past.stamp.actor for past in made.history()] == ["ada", "ada"]
    drop_rule("old")
    assert rules() == []
    with pytest.raises(NotFound):
        rules(["old"])
    with pytest.raises(InvalidRecord, match="no end"):
        set_rule("bad", "workflows", statuses=["COMPLETED"], older_than_seconds=1)
    assert [act.act for act in OperatorAct.where().all()] == ["retention.rule", "retention.rule", "retention.drop_rule"]


def test_a_request_key_applies_once(eventic: str) -> None:
    leaf = Leaf(text="a")
    leaf.text = "b"
    age(eventic)
    one, other = rule("history"), rule("tombstones")
    first = apply(one, request_key="k")
    leaf.text = "c"
    age(eventic)
    assert apply(one, request_key="k") == first
    with pytest.raises(Conflict):
        apply(other, request_key="k")
    (act,) = OperatorAct.where(act="retention.apply").all()
    assert (act.details["count"], act.details["finished"]) == (1, True)


class Handled(Record, class_type="RetentionHandled"):
    text: str


@on.create(Handled, retry=Retry(max_attempts=1))
def refuses(handled: Handled) -> None:
    message = handled.text
    raise ValueError(message)


def test_what_a_dead_letter_is_about_stays_until_it_is_settled(launched: str) -> None:
    handled, gone = Handled(text="a"), Handled(text="b")
    handled.text = "c"
    gone.delete()
    until(lambda: len(Eventic.dead_letters.list()) == 2)
    settle_workflows(launched)
    age(launched)
    chosen = [rule("history", of="RetentionHandled"), rule("tombstones", of="RetentionHandled")]
    assert [apply(one).count for one in chosen] == [0, 0]
    Eventic.dead_letters.discard([letter.id for letter in Eventic.dead_letters.list()])
    assert [apply(one).count for one in chosen] == [2, 1]
    assert [letter.record_id for letter in Eventic.dead_letters.list(state="all")] == [handled.id]


def test_a_process_killed_between_and_in_batches_leaves_what_the_next_one_finds(eventic: str) -> None:
    leaves = [Leaf(text="a") for _ in range(30)]
    for leaf in leaves:
        leaf.text = "b"
        leaf.text = "c"
    age(eventic)
    batches = 0
    for kill_after in (2, 3):
        command = [sys.executable, str(Path(__file__).with_name("retention_worker.py")), eventic, "history"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            for _ in range(kill_after):
                batches += worker.stdout.readline() == "batch\n"
            worker.kill()
    assert batches == 5
    removed = 60 - (rows(eventic, "select count(*) from eventic.records where class_type = 'RetentionLeaf'")[0][0] - 30)
    (act,) = OperatorAct.where(request_key="killed").all()
    assert (act.details["count"], act.details["finished"]) == (removed, False)
    assert 10 <= removed < 60
    done = [apply(rule("history", name="history"), batch_rows=5, request_key="killed") for _ in range(2)]
    assert [one.count for one in done] == [60, 60]
    assert [[past.text for past in leaf.history()] for leaf in leaves] == [["c"]] * 30


def test_two_processes_may_apply_at_once(eventic: str) -> None:
    leaves = [Leaf(text="a") for _ in range(40)]
    for leaf in leaves:
        leaf.text = "b"
    age(eventic)
    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(lambda _: apply(rule("history"), batch_rows=3).count, range(2)))
    assert sum(counts) == 40
    assert [len(leaf.history()) for leaf in leaves] == [1] * 40
