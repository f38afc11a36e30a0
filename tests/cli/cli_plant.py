"""The application that `test_dag_commands` names with --app, and whose worker does its jobs."""

from __future__ import annotations

from pathlib import Path

from eventic_core.jobs import dag, job


@job
def seed(count: int, place: str = "here") -> list[int]:
    assert place
    return list(range(count))


@job
def grow(seed: list[int], flag: str) -> int:
    if Path(flag).exists():
        raise ValueError("too dry")
    return sum(seed)


@job
def reap(grow: int) -> str:
    return f"{grow} tons"


PLANT = dag("cli-plant", seed, grow, reap)
