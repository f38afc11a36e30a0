"""DAGs in code: what depends on what, and what is refused before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from eventic_core import CycleFound, Invalid, InvalidDag, UnknownJob, UnknownRule
from eventic_core.jobs import dag, job
from eventic_core.jobs.fitting import fits


@job
def numbers(count: int = 3) -> list[int]:
    return list(range(count))


@job
def total(numbers: list[int]) -> int:
    return sum(numbers)


def test_a_parameter_called_like_a_job_takes_its_result() -> None:
    made = dag("definition: by name", numbers, total)
    assert made.plan.dag.upstream("total") == ("numbers",)
    assert made.arguments["total"] == {"numbers": "numbers"}


def test_inputs_name_a_job_of_another_name_and_depends_on_takes_no_result() -> None:
    @job(inputs={"values": numbers}, depends_on=[total])
    def largest(values: list[int]) -> int:
        return max(values)

    made = dag("definition: inputs", numbers, total, largest)
    assert made.plan.dag.upstream("largest") == ("numbers", "total")
    assert made.arguments["largest"] == {"values": "numbers"}


def test_a_job_is_still_the_function_it_was() -> None:
    assert total([1, 2]) == 3


def test_a_cycle_is_refused_with_its_path() -> None:
    @job(depends_on=["third"])
    def first() -> None: ...

    @job(depends_on=["first"])
    def second() -> None: ...

    @job(depends_on=["second"])
    def third() -> None: ...

    with pytest.raises(CycleFound, match="first -> second -> third -> first"):
        dag("definition: cycle", first, second, third)


def test_unknown_jobs_are_refused_with_a_near_name() -> None:
    @job(depends_on=["numberz"])
    def lost() -> None: ...

    with pytest.raises(UnknownJob, match="Did you mean 'numbers'"):
        dag("definition: unknown", numbers, lost)


def test_two_jobs_of_one_name_and_an_input_without_parameter_are_refused() -> None:
    with pytest.raises(InvalidDag, match="two jobs are called 'numbers'"):
        dag("definition: twice", numbers, numbers)

    @job(inputs={"nothing": numbers})
    def takes_none() -> None: ...

    with pytest.raises(InvalidDag, match="has no parameter 'nothing'"):
        dag("definition: no parameter", numbers, takes_none)


def test_a_result_that_does_not_fit_its_parameter_is_refused_with_the_edge() -> None:
    @job
    def joined(numbers: list[str]) -> str:
        return "".join(numbers)

    with pytest.raises(InvalidDag, match=r"numbers -> joined: numbers gives list\[int\], .* list\[str\]"):
        dag("definition: types", numbers, joined)


@pytest.mark.parametrize(
    ("given", "taken", "expected"),
    [
        (int, int, True),
        (int, float, True),
        (float, int, False),
        (int, Any, True),
        (int, int | None, True),
        (int | None, int, False),
        (list[int], list[float], True),
        (list[int], dict[str, int], False),
        (dict[str, int], dict[str, str], False),
        (list[int], list, True),
        (None, int, False),
        (bool, int, True),
    ],
)
def test_types_fit_as_far_as_they_tell(given: Any, taken: Any, expected: bool) -> None:
    assert fits(given, taken) is expected


@pytest.mark.parametrize(
    ("options", "error", "problem"),
    [
        ({"priority": -1}, Invalid, "say 0 or more"),
        ({"timeout_seconds": 0}, Invalid, "Say more than 0"),
        ({"rule": "mostly"}, UnknownRule, "all_success"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], error: type[Exception], problem: str) -> None:
    with pytest.raises(error, match=problem):
        job(**options)(lambda: None)
