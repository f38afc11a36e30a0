"""Findings: what a check found, how bad it is and what to do about it, and the limits between well and not.

Knows no check and reads nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from eventic_core.store.health import Unread

_GRANT: Final = "grant the role what it lacks to see this: pg_monitor, or usage of the schema and select on its tables."


class Status(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check found.

    Attributes:
        check: Its name, one of those in docs/operations.md; several findings may be of one check.
        found: In a line.
        remedy: What to do; `None` where nothing needs to be done.
    """

    check: str
    status: Status
    found: str
    remedy: str | None = None


class Limits(NamedTuple):
    """From where on a number is a warning, or a problem."""

    latency_seconds: float = 0.05
    clock_seconds: float = 1.0
    clock_problem_seconds: float = 60.0
    connections_share: float = 0.8
    connections_problem_share: float = 0.95
    transaction_seconds: float = 60.0
    transaction_problem_seconds: float = 600.0
    dead_rows: int = 10_000
    dead_share: float = 0.2
    dead_problem_rows: int = 100_000
    dead_problem_share: float = 0.5
    transaction_age: int = 1_000_000_000
    transaction_problem_age: int = 1_600_000_000
    ready_seconds: float = 60.0
    seen_seconds: float = 30.0
    given_back_times: int = 3


LIMITS: Final = Limits()


def ok(check: str, found: str) -> Finding:
    """Make a finding that all is well."""
    return Finding(check=check, status=Status.OK, found=found)


def warning(check: str, found: str, remedy: str) -> Finding:
    """Make a finding of what will be a problem, or is none for everybody."""
    return Finding(check=check, status=Status.WARNING, found=found, remedy=remedy)


def problem(check: str, found: str, remedy: str) -> Finding:
    """Make a finding of what is wrong."""
    return Finding(check=check, status=Status.PROBLEM, found=found, remedy=remedy)


def unread(check: str, why: Unread) -> Finding:
    """Make the finding of a check that could not look: tables that are not there are another check's."""
    remedy = None if why.is_absent else _GRANT
    return Finding(check=check, status=Status.OK, found=f"not looked at: {why.why}", remedy=remedy)


# -- numbers in words


def duration(seconds: float) -> str:
    """Write a duration in its two largest units."""
    whole = max(round(seconds), 0)
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {name}" if rest else "")
    return f"{whole} s" if seconds >= 1 else f"{max(seconds, 0):.1f} s"


def number(count: int, *, is_more: bool, of: str = "run") -> str:
    """Write how many there are, which may be more than were counted."""
    plural = of if count == 1 and not is_more else f"{of}s"
    return f"{count:,} or more {plural}" if is_more else f"{count:,} {plural}"
