"""A mixed load for two minutes: memory, objects, threads, files and connections stay, and nothing is left."""

from __future__ import annotations

from pathlib import Path

import pytest
from soak import OBJECT_GROWTH, WORKERS, Look, complaints, grown, soak

MEGABYTE = 1 << 20


@pytest.mark.timeout(600)
def test_two_workers_under_a_mixed_load_hold_on_to_nothing_and_leave_nothing_over(
    migrated_url: str, tmp_path: Path
) -> None:
    told: list[str] = []
    found = soak(migrated_url, tmp_path, seconds=120, look_seconds=4, told=told.append)
    assert found == [], "\n".join(told)


def looks(**values: list[int]) -> list[Look]:
    """Make looks at workers of which one value changes, each the same in both."""
    ((name, each),) = values.items()
    steady = {"bytes": 100 * MEGABYTE, "objects": 10_000, "threads": 40, "files": 20}
    return [
        Look(
            second=number,
            **{what: [value if what == name else usual] * WORKERS for what, usual in steady.items()},
            connections=20,
            backlog=0,
            done=0,
            server_bytes=0,
        )
        for number, value in enumerate(each)
    ]


def test_growth_is_seen_after_the_first_third_only() -> None:
    assert list(grown(looks(bytes=[50 * MEGABYTE] * 10 + [100 * MEGABYTE] * 20))) == []
    assert len(list(grown(looks(bytes=[(100 + number) * MEGABYTE for number in range(30)])))) == WORKERS
    objects = int(10_000 * (1 + OBJECT_GROWTH)) + 100
    assert len(list(grown(looks(objects=[10_000] * 20 + [objects] * 10)))) == WORKERS
    assert list(grown(looks(objects=[10_000, 14_000] * 15))) == []
    assert len(list(grown(looks(threads=[40] * 20 + [60] * 10)))) == WORKERS


def test_a_line_of_a_log_that_says_something_went_wrong_is_a_complaint() -> None:
    assert complaints("launched as worker-0\nWARNING took 3 runs over\nTRACE [('Error', 3)]\n") == [
        "WARNING took 3 runs over"
    ]
