"""What came of a run: its items counted, its errors grouped, its results as lines of text.

Owns the values and the two formats. Reads the current versions of the items' executions, in one statement each.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

from pydantic_core import to_json

from eventic_core.automation.run import Run
from eventic_core.automation.status import ExecutionStatus
from eventic_core.errors import Invalid, RunNotFound
from eventic_core.records import query
from eventic_core.records.blocking import refuse_in_loop

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime
    from uuid import UUID

    from eventic_core.store.reports import ItemCount, Reports, ResultRow
    from eventic_core.store.transaction import PostgresTransaction

ResultFormat = Literal["jsonl", "csv"]

_FAILING: Final = (ExecutionStatus.FAILED, ExecutionStatus.RETRYING)
_MOST_ERROR_GROUPS: Final = 100
_HEADER: Final = ("number", "item_id", "status", "attempt_count", "result", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorGroup:
    """Errors of one class whose messages differ only in numbers, ids and what is quoted.

    Attributes:
        error_type: The name of the class.
        message: One of the messages, its first thousand characters.
        count: The items whose last attempt ended so.
        first_number: The first such item, by its number in the run; `None` if they have none.
        last_number: The last one.
        sample_numbers: The first five.
    """

    error_type: str | None
    message: str | None
    count: int
    first_number: int | None
    last_number: int | None
    sample_numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of a run, at the moment it was read.

    Attributes:
        statuses: The items in each status, zeros included.
        errors: Of items that failed or are to be tried again, the most frequent first; at most a hundred groups.
        error_groups: How many groups there are.
        attempts: How many items took no attempt so far, one, two and so on.
        started_at: When the first last attempt began; `None` while none has.
        finished_at: When the last item ended so far; `None` while none has.
        duration_seconds: From the one to the other.
        throughput: Items that ended for each second of that.
    """

    run_id: UUID
    total: int
    statuses: dict[str, int]
    errors: tuple[ErrorGroup, ...]
    error_groups: int
    attempts: dict[int, int]
    started_at: datetime | None
    finished_at: datetime | None
    duration_seconds: float | None
    throughput: float | None


def report(run_id: UUID) -> Report:
    """Read what came of a run so far; counts rows, which `progress` does not.

    Raises:
        RunNotFound: There is no such run, and no item of one.
    """
    refuse_in_loop("report()", "asyncio.to_thread(report, run_id)")
    reports, tx = _reports(), _transaction()
    counts = reports.counts(run_id, tx)
    if not counts and not Run.where(id=run_id).count():
        message = f"No run {run_id} is stored, nor any item of it. Check the id."
        raise RunNotFound(message)
    found = reports.errors(run_id, _FAILING, _MOST_ERROR_GROUPS, tx)
    errors = tuple(
        ErrorGroup(
            error_type=row.error_type,
            message=row.message,
            count=row.items,
            first_number=row.first_number,
            last_number=row.last_number,
            sample_numbers=tuple(row.sample_numbers or ()),
        )
        for row in found
    )
    return Report(run_id=run_id, errors=errors, error_groups=found[0].groups if found else 0, **_summary(counts))


def _summary(counts: Sequence[ItemCount]) -> dict[str, Any]:
    statuses, attempts = Counter({str(status): 0 for status in ExecutionStatus}), Counter[int]()
    for row in counts:
        statuses[row.status] += row.items
        attempts[row.attempt_count] += row.items
    started = min((row.started_at for row in counts if row.started_at is not None), default=None)
    finished = max((row.finished_at for row in counts if row.finished_at is not None), default=None)
    duration = None if started is None or finished is None else max(0.0, (finished - started).total_seconds())
    ended = sum(count for status, count in statuses.items() if ExecutionStatus(status).is_finished)
    return {
        "total": sum(statuses.values()),
        "statuses": dict(statuses),
        "attempts": dict(sorted(attempts.items())),
        "started_at": started,
        "finished_at": finished,
        "duration_seconds": duration,
        "throughput": ended / duration if duration else None,
    }


def results(
    run_id: UUID,
    *,
    statuses: Iterable[ExecutionStatus | str] = (ExecutionStatus.COMPLETED,),
    format: ResultFormat = "jsonl",
) -> Iterator[str]:
    r"""Stream a run's items as lines of text, each with its end, in the order of their numbers.

    Reads through a cursor while it is iterated over, in the open scope's transaction or one that lasts as long.

    Args:
        run_id: The run; one without such items gives no line of them.
        statuses: The items that are wanted.
        format: `"jsonl"`: `{"number": 1, "item_id": "...", "status": "COMPLETED", "attempt_count": 1, "result": ...,
            "error": null}`. `"csv"`: a header and the same columns, the result as JSON, lines ending in `\r\n`.

    Raises:
        Invalid: A status or the format is not known, or there is no status.
    """
    wanted = _known_statuses(statuses)
    if format not in get_args(ResultFormat):
        message = f'results(format={format!r}): say "jsonl" or "csv".'
        raise Invalid(message)
    return _lines(run_id, wanted, _csv if format == "csv" else _jsonl)


def _known_statuses(statuses: Iterable[ExecutionStatus | str]) -> tuple[str, ...]:
    given = [statuses] if isinstance(statuses, str) else list(statuses)
    known = [str(status) for status in ExecutionStatus]
    unknown = [status for status in given if status not in known]
    if unknown or not given:
        what = ", ".join(map(repr, unknown)) if unknown else "none"
        message = f"results(statuses=...): {what} given; the statuses are {', '.join(known)}."
        raise Invalid(message)
    return tuple(dict.fromkeys(map(str, given)))


def _lines(run_id: UUID, statuses: tuple[str, ...], form: Any) -> Iterator[str]:
    refuse_in_loop("iterating over results()", "a thread: asyncio.to_thread(...)")
    yield from form(_reports().results(run_id, statuses, _transaction()))


def _jsonl(rows: Iterable[ResultRow]) -> Iterator[str]:
    for row in rows:
        values = [to_json(value).decode() for value in row]
        values[_HEADER.index("result")] = row.result or "null"  # is JSON already
        yield "{" + ", ".join(f'"{name}": {value}' for name, value in zip(_HEADER, values, strict=True)) + "}\n"


def _csv(rows: Iterable[ResultRow]) -> Iterator[str]:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    for values in _with_header(rows):
        writer.writerow(values)
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _with_header(rows: Iterable[ResultRow]) -> Iterator[Iterable[Any]]:
    yield _HEADER
    yield from rows


def _reports() -> Reports:
    from eventic_core.runtime.process import process
    from eventic_core.store.reports import Reports

    return Reports(process().store.database)


def _transaction() -> PostgresTransaction | None:
    return cast("PostgresTransaction | None", query.transaction())
