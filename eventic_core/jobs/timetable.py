"""When schedules are due: a cron in a time zone or an interval, what to make up for, and what to do when runs overlap.

Pure: moments come in as arguments and due times go out, always in UTC. Starts nothing and knows no job.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

from eventic_core.errors import Invalid, InvalidBackfill, InvalidSchedule
from eventic_core.runtime.cron import EPOCH, LONGEST_TEXT, TICK, Cron, in_utc

if TYPE_CHECKING:
    from collections.abc import Iterator

GRACE = timedelta(minutes=1)
"""How late a scheduler may come to a due time without having missed it."""
MISSED_COUNTED = 1000
"""Missed due times are counted up to here, as to count all the seconds of a year takes minutes."""
_LONGEST = timedelta(days=3660)
_SECOND = timedelta(seconds=1)
_UNITS = {"week": 604800, "day": 86400, "hour": 3600, "minute": 60, "second": 1}
_SECONDS = {name: size for unit, size in _UNITS.items() for name in (unit, f"{unit}s", unit[0])}
_SECONDS |= {"min": 60, "mins": 60, "sec": 1, "secs": 1}
_PIECE = r"([0-9]+(?:\.[0-9]+)?) ?([a-z]+) ?"


@dataclass(frozen=True, slots=True)
class Interval:
    """Due at an anchor and each period before and after it, which is in whole seconds; whatever clocks do."""

    period: timedelta
    anchor: datetime = EPOCH

    def __post_init__(self) -> None:
        if not _SECOND <= self.period <= _LONGEST or self.period % _SECOND:
            seconds = self.period / _SECOND
            message = f"An interval of {seconds:.15g} seconds: give whole ones, from 1 to {_LONGEST // _SECOND}."
            raise InvalidSchedule(message)
        object.__setattr__(self, "anchor", in_utc(self.anchor))

    @property
    def text(self) -> str:
        """The interval in the largest unit that fits: `every 15 minutes`."""
        seconds = self.period // _SECOND
        unit, size = next((unit, size) for unit, size in _UNITS.items() if seconds % size == 0)
        return f"every {unit}" if seconds == size else f"every {seconds // size} {unit}s"

    def next_after(self, moment: datetime) -> datetime:
        """Give the first due time after a moment."""
        return self.anchor + ((moment - self.anchor) // self.period + 1) * self.period


@dataclass(frozen=True, slots=True)
class Timetable:
    """When a schedule is due; make one with `of`. A value: two of the same text, zone and anchor are equal."""

    rule: Cron | Interval

    @classmethod
    def of(
        cls, schedule: str | timedelta | float, *, zone: str | None = None, anchor: datetime | None = None
    ) -> Timetable:
        """Make a timetable.

        Args:
            schedule: A cron (`Cron` says of which forms), or an interval: `every 15 minutes`, `15m`, `1h 30m`, a
                timedelta or a number of seconds.
            zone: Whose clocks a cron goes by, an IANA name; UTC without one. `Cron` says what changes of them do.
            anchor: One of an interval's due times; a cron has none. Without, it counts from the start of 1970: 15
                minutes are due at each quarter of an hour, a week on Thursdays.

        Raises:
            InvalidSchedule: It is neither, or never comes; the zone is unknown, or for an interval.
            Invalid: The anchor has no time zone, or is not of the years 1970 to 9000.
        """
        period = _period(schedule)
        if (anchor if period is None else zone) is not None:
            message = f"Schedule {schedule!r}: a cron has a zone, an interval has an anchor. Leave the other one out."
            raise InvalidSchedule(message)
        if period is None:
            return cls(Cron.parse(str(schedule), "UTC" if zone is None else zone))
        return cls(Interval(period, anchor or EPOCH))

    @property
    def text(self) -> str:
        """What to store: with the zone and the anchor, `of` makes an equal timetable of it."""
        return self.rule.text

    @property
    def zone(self) -> str | None:
        """The name of a cron's zone; `None` for an interval."""
        return self.rule.zone.key if isinstance(self.rule, Cron) else None

    @property
    def anchor(self) -> datetime | None:
        """An interval's anchor, in UTC; `None` for a cron."""
        return self.rule.anchor if isinstance(self.rule, Interval) else None

    def next_after(self, moment: datetime) -> datetime:
        """Give the first due time after a moment, which is never the moment itself.

        Raises:
            Invalid: The moment has no time zone, or is not of the years 1970 to 9000.
        """
        return self.rule.next_after(in_utc(moment))

    def previous(self, moment: datetime) -> datetime | None:
        """Give the last due time before a moment, `None` if there is none since 1970; raises as `next_after`."""
        return next(self.due_before(moment, EPOCH - TICK), None)

    def due_between(self, after: datetime, until: datetime, *, limit: int) -> list[datetime]:
        """List the due times after one moment up to and with another, oldest first, as many as the limit at most.

        Windows that touch share none and leave none out; an empty or reversed one has none. Raises as `next_after`, and
        `Invalid` for a limit that is not positive.
        """
        _check_limit(limit)
        until = in_utc(until)
        due: list[datetime] = []
        while len(due) < limit and (following := self.next_after(due[-1] if due else after)) <= until:
            due.append(following)
        return due

    def due_before(self, moment: datetime, after: datetime) -> Iterator[datetime]:
        """Give the due times before one moment and after another, latest first, each worked out when it is asked for.

        A last one is found as what is next after some earlier moment, so that there is one truth about due times.
        """
        before, after, step = in_utc(moment), in_utc(after), GRACE
        while True:
            start = before - step if step < before - after else after
            found = self.rule.next_after(start)
            if found < before:
                found = self._last(found, before)
                yield found
                before, step = found, before - found + TICK  # likely the next one is as far
            elif start == after:
                return
            else:
                step *= 2

    def _last(self, found: datetime, before: datetime) -> datetime:
        """Give the last due time before a moment, given an earlier one: halves the time that may hold it."""
        end = before
        while (later := self.rule.next_after(found)) < before:
            middle = later + (end - later) // 2
            found = self.rule.next_after(middle)
            if found >= before:
                found, end = later, middle
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Firings:
    """The due times up to now to run for, oldest first, and how many were missed, counted up to `MISSED_COUNTED`."""

    due: tuple[datetime, ...]
    missed: int


def firings(
    timetable: Timetable,
    *,
    last_due: datetime | None,
    now: datetime,
    catch_up: timedelta | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    limit: int = 100,
) -> Firings:
    """Tell which due times a scheduler that may have been away should still run for.

    What is due since `GRACE` or less is run for; what is older was missed, unless it is to be caught up with. All that
    is due up to now is decided: the next call's `last_due` is this one's `now`. A clock set back decides nothing again.

    Args:
        timetable: Of the schedule.
        last_due: Up to where it is decided; at first, when the schedule was made. `None`: from its start on, or from
            where the window begins.
        now: The moment, by the database's clock.
        catch_up: How old a due time may be, and still be run for. Zero: not older than the grace. `None`: likewise, but
            if there is none of these, the latest: a nightly schedule is made up for once, not for each night.
        start: The first moment of the schedule.
        end: The first moment after the schedule.
        limit: How many to run for at most: of more the latest, and the others count as missed.

    Raises:
        Invalid: A moment has no time zone, the window is negative, or the limit is not positive.
    """
    _check_limit(limit)
    now = in_utc(now)
    if catch_up is not None and catch_up < timedelta(0):
        message = f"catch_up={catch_up}: give a time that is not negative, or None for the latest due time alone."
        raise Invalid(message)
    window = GRACE if catch_up is None else min(max(catch_up, GRACE), now - EPOCH)
    bounds = [in_utc(last_due)] if last_due else []
    bounds += [in_utc(start) - TICK] if start else []
    after = max(bounds, default=now - window - TICK)
    before = min(now + TICK, in_utc(end)) if end else now + TICK
    due: list[datetime] = []
    missed = 0
    for moment in timetable.due_before(before, after):
        if len(due) < limit and (now - moment <= window or (catch_up is None and not due)):
            due.append(moment)
        else:
            missed += 1
            if missed == MISSED_COUNTED:
                break
    return Firings(due=tuple(reversed(due)), missed=missed)


def backfill(timetable: Timetable, start: datetime, end: datetime, *, limit: int = 10_000) -> Iterator[datetime]:
    """Give the due times from a start on and before an end, oldest first; there need not have been a schedule then.

    Raises:
        InvalidBackfill: The range is empty or reversed, or has more due times than the limit; none was given.
        Invalid: A moment has no time zone, or the limit is not positive.
    """
    _check_limit(limit)
    start, end = in_utc(start), in_utc(end)
    if start >= end:
        message = f"A backfill from {start} to {end} has no time in it. Give an end that is later than the start."
        raise InvalidBackfill(message)
    due = timetable.due_between(start - TICK, end - TICK, limit=limit + 1)
    if len(due) > limit:
        message = (
            f"A backfill of {timetable.text!r} from {start} to {end} has more than {limit} due times. "
            f"Take a part at a time, the first one up to {due[-1]}, or give a higher limit=."
        )
        raise InvalidBackfill(message)
    return iter(due)


class Overlap(StrEnum):
    """What is done about a due time while an earlier one's run is not finished."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE = "queue"
    CANCEL_RUNNING = "cancel_running"


class Decision(StrEnum):
    """About a due time: start its run, let it wait, skip it, or cancel what is unfinished and start it instead."""

    START = "start"
    WAIT = "wait"
    SKIP = "skip"
    REPLACE = "replace"


def decide(overlap: Overlap, *, running: bool, waiting: bool) -> Decision:
    """Tell what to do about a due time while an earlier one's run is under way, or waits for such a one to end.

    At most one waits by QUEUE; a run that has not begun for another reason counts as running.
    """
    if not (running or waiting):
        return Decision.START
    match overlap:
        case Overlap.ALLOW:
            return Decision.START
        case Overlap.SKIP:
            return Decision.SKIP
        case Overlap.QUEUE:
            return Decision.SKIP if waiting else Decision.WAIT
        case Overlap.CANCEL_RUNNING:
            return Decision.REPLACE
    assert_never(overlap)


def _period(schedule: str | timedelta | float) -> timedelta | None:
    """Read an interval; gives `None` for a text that is a cron if it is anything."""
    if isinstance(schedule, timedelta):
        return schedule
    try:
        if not isinstance(schedule, str):
            return timedelta(seconds=schedule)
        text = " ".join(schedule.lower().split()) if len(schedule) <= LONGEST_TEXT else ""
        pieces = re.sub("^every (?=[a-z])", "every 1 ", text).removeprefix("every ")
        is_interval = re.fullmatch(rf"(?:{_PIECE})+", pieces)
        if not is_interval and not text.startswith("every"):
            return None
        found = re.findall(_PIECE, pieces) if is_interval else [("", pieces)]  # which is no unit
        return timedelta(seconds=sum(_SECONDS[unit] * float(count) for count, unit in found))
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        message = f"Schedule {schedule!r} is no interval. Give 'every 15 minutes', '1h 30m', a timedelta or seconds."
        raise InvalidSchedule(message) from error


def _check_limit(limit: int) -> None:
    if limit < 1:
        message = f"limit={limit}: say how many due times there may be, 1 or more."
        raise Invalid(message)
