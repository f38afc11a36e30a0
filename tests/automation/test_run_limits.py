"""What holds a run back: concurrency, rate, and how many failures are tolerated, in all and of each class."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
from conftest import until
from runs import counted, ended, executions, moves, started, statuses

from eventic_core import Invalid
from eventic_core.automation import BatchExecution, ExecutionStatus, ItemContext, Retry, automation
from eventic_core.errors import InvalidRecord

pytestmark = pytest.mark.usefixtures("workers")
S = ExecutionStatus
GATE = threading.Event()
AT_ONCE: Counter[str] = Counter()
MOST: Counter[str] = Counter()
LOCK = threading.Lock()
BEGUN: list[UUID] = []
NEVER = datetime.max.replace(tzinfo=UTC)


@pytest.fixture(autouse=True)
def open_gate() -> Iterator[None]:
    GATE.set()
    yield
    GATE.set()


# -- concurrency and rate


@automation("limits: three at a time", concurrency=3, group_size=2)
def three_at_a_time(item: dict[str, int], context: ItemContext) -> None:
    with LOCK:
        AT_ONCE["now"] += 1
        MOST["ever"] = max(MOST["ever"], AT_ONCE["now"])
    threading.Event().wait(0.02)
    with LOCK:
        AT_ONCE["now"] -= 1


def test_a_worker_does_so_many_items_at_a_time_and_no_more() -> None:
    assert statuses(ended(three_at_a_time, 30)) == ["COMPLETED"] * 30
    assert 2 <= MOST["ever"] <= 3


@automation("limits: twenty a second", rate=(20, 1.0), concurrency=4, group_size=5)
def twenty_a_second(item: dict[str, int], context: ItemContext) -> None:
    """Do nothing."""


def test_a_rate_holds_for_all_groups_together() -> None:
    run = ended(twenty_a_second, 41)
    begun = sorted(execution.started_at or NEVER for execution in executions(run))
    # What is granted at once is a tenth of a second's worth; so 40 items after the first ones take at least this long.
    assert (begun[-1] - begun[0]).total_seconds() >= 1.7


@pytest.mark.parametrize("limits", [{"concurrency": 0}, {"rate": (0, 1.0)}, {"rate": (5, 0.0)}, {"group_size": 0}])
def test_limits_that_let_nothing_through_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(Invalid, match="no item would ever be done"):
        automation("limits: nothing through", **limits)  # type: ignore[arg-type]


# -- tolerated failures


@automation("limits: fails", concurrency=1, group_size=4, retry=Retry(max_attempts=1))
def fails(item: dict[str, str], context: ItemContext) -> None:
    BEGUN.append(context.run_id)
    assert GATE.wait(100)
    if item["error"]:
        raise {"value": ValueError, "key": KeyError, "type": TypeError}[item["error"]]("as it was told")


def rows(*errors: str) -> list[dict[str, str]]:
    return [{"error": error} for error in errors]


GOOD = ("",) * 6


def test_without_a_limit_every_item_is_done_and_one_failure_fails_the_run() -> None:
    run = ended(fails, rows("value", *GOOD, "value"))
    assert (run.status, counted(run.progress())) == (S.FAILED, {"COMPLETED": 6, "FAILED": 2})
    assert run.error_summary == "2 of 8 items failed: 2 ValueError."
    (part,) = BatchExecution.where(run_id=run.id).all()
    assert part.status == S.FAILED


@pytest.mark.parametrize("tolerated", [2, "2", "25%", "30 %"])
def test_as_many_failures_as_are_tolerated_leave_a_run_good(tolerated: int | str) -> None:
    run = ended(fails, rows("value", *GOOD, "value"), tolerated_failures=tolerated)
    assert (run.status, counted(run.progress())) == (S.COMPLETED, {"COMPLETED": 6, "FAILED": 2})
    assert run.tolerated_failures == tolerated


def test_one_failure_more_than_is_tolerated_stops_the_run() -> None:
    run = ended(fails, rows("value", "value", *GOOD * 4), tolerated_failures=1)
    seen = counted(run.progress())
    assert run.status == S.FAILED
    assert seen["FAILED"] == 2
    assert seen["PENDING"] > 0
    assert run.error_summary is not None
    assert "1 are tolerated: 2 ValueError; " in run.error_summary
    assert run.error_summary.endswith("were not begun.")
    left = seen["PENDING"]
    assert statuses(run).count("PENDING") == left
    with pytest.raises(Invalid, match="2 failed items would be left, which is more than is tolerated"):
        run.redrive(failed=False)
    assert run.status == S.FAILED
    run.tolerate(2)
    assert run.redrive(failed=False) == 0
    run.wait(timeout_seconds=100)
    assert counted(run.progress()) == {"COMPLETED": seen.get("COMPLETED", 0) + left, "FAILED": 2}


@automation("limits: by class", concurrency=1, group_size=2, tolerated_by_class={"KeyError": 0, "TypeError": "50%"})
def by_class(item: dict[str, str], context: ItemContext) -> None:
    fails.function(item, context)


def test_classes_of_errors_have_limits_of_their_own() -> None:
    run = ended(by_class, rows("type", "type", "", ""), tolerated_failures=3)
    assert (run.status, run.progress().failures) == (S.COMPLETED, {"TypeError": 2})
    run = ended(by_class, rows("key", "", *GOOD * 4), tolerated_failures=3)
    assert run.status == S.FAILED
    assert run.progress().failures == {"KeyError": 1}
    assert run.progress().pending > 0


def test_an_item_that_waits_for_its_retry_fails_when_the_run_is_stopped() -> None:
    run = ended(retried, rows("key", *GOOD, "value"), tolerated_failures=0)
    assert run.status == S.FAILED
    waiting = executions(run)[0]
    assert moves(waiting) == ["PENDING", "PROCESSING", "RETRYING", "FAILED"]
    assert waiting.error_type == "KeyError"


@automation("limits: retried", concurrency=1, retry={KeyError: Retry(max_attempts=3, delay_seconds=3600)})
def retried(item: dict[str, str], context: ItemContext) -> None:
    fails.function(item, context)


def test_what_is_tolerated_may_be_changed_while_the_run_goes_on() -> None:
    GATE.clear()
    strict = started(fails, rows("value", "value", "value", *GOOD), tolerated_failures=0)
    until(lambda: strict.id in BEGUN)
    strict.tolerate("100%")
    GATE.set()
    strict.wait(timeout_seconds=100)
    assert (strict.status, strict.progress().failed, strict.tolerated_failures) == (S.COMPLETED, 3, "100%")
    assert [version.tolerated_failures for version in strict.history() if version.stamp.reason == "tolerate"] == [
        "100%"
    ]


def test_fewer_than_have_failed_already_stops_the_run() -> None:
    run = ended(fails, rows("value", *GOOD), tolerated_failures=1)
    run.redrive()
    GATE.clear()
    until(lambda: BEGUN.count(run.id) > len(GOOD) + 1)
    run.tolerate(None, {"ValueError": 0})
    GATE.set()
    run.wait(timeout_seconds=100)
    assert run.status == S.FAILED
    assert run.progress().failures == {"ValueError": 1}


@pytest.mark.parametrize("tolerated", [-1, "5 of them", "101%", True])
def test_what_is_neither_a_count_nor_a_percentage_is_refused(tolerated: int | str) -> None:
    with pytest.raises(Invalid, match="as a count"):
        automation("limits: nonsense", tolerated_failures=tolerated)
    with pytest.raises(Invalid, match="as a count"):
        started(fails, rows(""), tolerated_failures=tolerated)
    GATE.clear()
    run = started(fails, rows(""))
    until(lambda: run.id in BEGUN)
    with pytest.raises(Invalid, match="as a count"):
        run.tolerate(tolerated)
    GATE.set()
    assert run.wait(timeout_seconds=100).tolerated_failures is None


def test_a_fraction_of_an_item_is_refused() -> None:
    with pytest.raises(InvalidRecord, match="tolerated_failures"):
        started(fails, rows(""), tolerated_failures=1.5)
