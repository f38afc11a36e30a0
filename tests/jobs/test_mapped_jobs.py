"""Jobs that are mapped: done for each element of a result, a generator or a query, each once, in order."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from eventic_core import DuplicateRegistration, EndlessMap, Invalid, InvalidDag, NotRegistered, Record
from eventic_core.automation import Batch, Run
from eventic_core.graph import NodeState
from eventic_core.jobs import DagRun, ExecutionStatus, JobContext, Retry, Skip, dag, job
from eventic_core.jobs.declared_dag import find

pytestmark = pytest.mark.usefixtures("workers")
S, N = ExecutionStatus, NodeState
READ: list[int] = []
CALLS: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def afresh() -> None:
    READ.clear()
    CALLS.clear()


class Leaf(Record, class_type="MappedLeaf"):
    name: str


class Word(BaseModel):
    text: str
    size: int


def ended(run: DagRun) -> DagRun:
    return run.wait(timeout_seconds=100)


@job
def words(count: int = 3) -> list[Word]:
    return [Word(text=f"w{number}", size=number) for number in range(count)]


@job(map="word", inputs={"word": "words"}, retry={ConnectionError: Retry(max_attempts=3, delay_seconds=0)})
def loud(word: Word, context: JobContext, mark: str = "!") -> str:
    assert isinstance(word, Word)
    assert (context.dag, context.job, context.number) == ("mapped: words", "loud", word.size + 1)
    Leaf(name=word.text)
    if word.size == 1 and context.attempt < 3:
        raise ConnectionError("not yet")
    return word.text.upper() + mark


@job(map="text", inputs={"text": "loud"})
async def twice(text: str) -> str:
    return text * 2


@job
def joined(twice: list[str]) -> str:
    return " ".join(twice)


WORDS = dag("mapped: words", words, loud, twice, joined)


def test_a_job_is_done_for_each_element_of_a_result_and_gives_the_list_of_its_results() -> None:
    run = ended(WORDS.start(mark="?"))
    assert run.result("loud") == ["W0?", "W1?", "W2?"]
    assert run.result("joined") == "W0?W0? W1?W1? W2?W2?"
    assert run.states() == dict.fromkeys(WORDS.jobs, N.COMPLETED)


def test_each_element_is_an_item_of_a_run_with_attempts_and_history_of_its_own() -> None:
    run = ended(WORDS.start(count=4))
    part = run.job_run("loud")
    assert part is not None
    child = Run.hydrate(part.child_run_id)
    report = child.report()
    assert (report.total, report.attempts) == (4, {1: 3, 3: 1})
    written = [leaf.name for leaf in Leaf.where().all() if leaf.stamp.workflow_id == str(child.id)]
    assert sorted(written) == ["w0", "w1", "w2", "w3"]
    assert part.attempt_count == 1


def test_over_nothing_there_is_nothing_to_do() -> None:
    run = ended(WORDS.start(count=0))
    assert (run.status, run.result("loud"), run.result("joined")) == (S.COMPLETED, [], "")


def test_rerunning_a_mapped_job_does_all_its_elements_again() -> None:
    run = ended(WORDS.start(count=2))
    run.rerun("loud")
    assert (ended(run).status, run.result("joined")) == (S.COMPLETED, "W0!W0! W1!W1!")
    part = run.job_run("loud")
    assert part is not None
    assert len({version.child_run_id for version in part.history()} - {None}) == 2


def squares_up_to(count: int) -> Iterator[int]:
    for number in range(count):
        READ.append(number)
        yield number * number


@job(map="square", over=squares_up_to)
def root(square: int) -> float:
    return square**0.5


def test_a_generator_gives_the_elements_and_takes_parameters_of_the_run() -> None:
    roots = dag("mapped: roots", root)
    with pytest.raises(Invalid, match="parameter 'count' of job 'root' has no value"):
        roots.start()
    run = ended(roots.start(count=1500))
    assert run.result("root") == [float(number) for number in range(1500)]
    assert list(range(1500)) == READ


@job(map="leaf", over=lambda: Leaf.where(Leaf.fields.name.in_(["oak", "oaken"])).order_by(Leaf.fields.name))
def count_letters(leaf: Leaf) -> tuple[str, int]:
    leaf.name += "."
    return leaf.name, len(leaf.name)


def test_a_query_gives_the_records_it_finds() -> None:
    for name in ("oak", "oaken", "elm"):
        Leaf(name=name)
    run = ended(dag("mapped: letters", count_letters).start())
    assert run.why("count_letters") == ""
    assert run.result("count_letters") == [("oak.", 4), ("oaken.", 6)]
    assert Leaf.where(name="oak.").count() == 1


@job(map="pair")
def added(pair: tuple[int, int]) -> int:
    return sum(pair)


def test_a_parameter_of_the_run_gives_the_elements() -> None:
    sums = dag("mapped: sums", added)
    assert ended(sums.start(pair=[(1, 2), (3, 4)])).result("added") == [3, 7]
    with pytest.raises(Invalid, match=r"'pair' does not fit list\[tuple\[int, int\]\]"):
        sums.start(pair=7)


@job
def numbers() -> list[int]:
    return [1, 2, 0, 4]


@job(map="number", inputs={"number": "numbers"}, tolerated_failures=1)
def inverse(number: int) -> Any:
    return Skip("as it is") if number == 1 else 1 / number


@job(map="number", inputs={"number": "numbers"}, retry=Retry(max_attempts=2, delay_seconds=0))
def strict(number: int) -> float:
    CALLS["strict"] += number == 0
    return 1 / number


@job(rule="all_done")
def summed(inverse: list[float], strict: list[float] | None) -> tuple[float, bool]:
    return sum(inverse), strict is None


def test_an_element_that_fails_fails_the_job_unless_that_is_tolerated() -> None:
    run = ended(dag("mapped: inverses", numbers, inverse, strict, summed).start())
    assert run.states() == {
        "numbers": N.COMPLETED,
        "inverse": N.COMPLETED,
        "strict": N.FAILED,
        "summed": N.COMPLETED,
    }
    assert run.result("inverse") == [0.5, 0.25]
    assert run.result("summed") == (0.75, True)
    assert "1 of 4 items failed: 1 ZeroDivisionError." in run.why("strict")
    assert CALLS["strict"] == 2


@job(map="number", over=itertools.count, limit=3000)
def counted(number: int) -> None: ...


def test_a_map_over_something_endless_is_refused_by_name_and_stores_nothing() -> None:
    batches = Batch.where().count()
    run = ended(dag("mapped: endless", counted).start())
    part = run.job_run("counted")
    assert part is not None
    assert (part.status, part.error_type) == (S.FAILED, EndlessMap.__name__)
    assert "'number' has more than 3,000 elements" in run.why("counted")
    assert Batch.where().count() == batches


def unreliable() -> Iterator[int]:
    CALLS["unreliable"] += 1
    yield 1
    if CALLS["unreliable"] == 1:
        raise ConnectionError("the line broke")
    yield 2


@job(map="number", over=unreliable, retry=Retry(max_attempts=2, delay_seconds=0))
def read(number: int) -> int:
    return number


def test_a_source_that_breaks_is_read_again_from_its_start() -> None:
    assert ended(dag("mapped: unreliable", read).start()).result("read") == [1, 2]


@job(map="number", inputs={"number": "anything"})
def each(number: int) -> int:
    return number


@job(name="anything")
def a_number() -> Any:
    return 7


def test_what_turns_out_to_be_no_list_fails_the_job() -> None:
    run = ended(dag("mapped: no list", a_number, each).start())
    assert "'number' does not fit list[int]" in run.why("each")


def test_maps_that_make_no_sense_are_refused_when_they_are_declared() -> None:
    def function(number: int) -> int:
        return number

    with pytest.raises(InvalidDag, match="'function' has no parameter 'letter'"):
        job(map="letter")(function)
    with pytest.raises(InvalidDag, match="over= gives elements to nothing"):
        job(over=squares_up_to)(function)
    with pytest.raises(Invalid, match="limit=0"):
        job(map="number", limit=0)(function)

    @job
    def one() -> int:
        return 1

    @job
    def texts() -> list[str]:
        return []

    for source, name in ((one, "int"), (texts, "str")):
        mapped = job(map="number", inputs={"number": source}, name="mapped")(function)
        with pytest.raises(InvalidDag, match=f"{source.name} -> mapped: .*{name}"):
            dag(f"mapped: wrong {name}", source, mapped)


def test_two_mapped_jobs_whose_elements_would_be_one_automation_are_refused() -> None:
    def function(number: int) -> int:
        return number

    dag("mapped: a", job(map="number", over=unreliable, name="b.c")(function))
    with pytest.raises(DuplicateRegistration, match=r"automation 'mapped: a.b.c', which is another"):
        dag("mapped: a.b", job(map="number", over=unreliable, name="c")(function))
    with pytest.raises(NotRegistered):
        find("mapped: a.b")
