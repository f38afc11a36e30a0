"""Cron as DBOS reads it, and when it is due in a time zone; the only module that asks DBOS's parser.

Owns the dialect, its errors and what a change of the clocks does. The parser is asked about clock times alone: in a
zone it would have a daily time that a day has twice be due twice. Knows no schedule and no job.
"""

from __future__ import annotations

import re
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from eventic_core.errors import Invalid, InvalidSchedule

ALIASES = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
EXAMPLE = "Example: '30 9 * * mon-fri' is half past nine on working days"
LONGEST_TEXT = 200
"""More than anybody means; what a list of numbers costs grows with it."""
TICK = timedelta(microseconds=1)
"""The least there is between two moments."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""What due times are not looked for before, and what intervals count from, so that all processes count alike."""
_LAST = datetime(9000, 12, 31, tzinfo=UTC)
"""The calendar ends with the year 9999; up to here it holds a due time after each moment."""
_DAY = timedelta(days=1)
_HOUR_FIELD = 1
"""Where the parser keeps the hours, with or without seconds in front."""
_EARLY = datetime(2000, 1, 1)  # noqa: DTZ001 - a clock time
"""Whether a cron ever comes is asked from here on, so that the answer does not depend on the day; 50 years hold all."""


class _Field(NamedTuple):
    name: str
    values: str
    size: int


_SECOND = _Field("second", "0-59", 60)
_FIELDS = (
    _Field("minute", "0-59", 60),
    _Field("hour", "0-23", 24),
    _Field("day of the month", "1-31, L for the last or 15W for the working day next to the 15th", 31),
    _Field("month", "1-12 or jan-dec", 12),
    _Field("weekday", "0-7 (0 and 7 are Sunday), sun-sat, mon#1 for the first Monday or L5 for the last Friday", 7),
)


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron text in a time zone; two are equal if both are.

    A cron whose hour field allows every hour follows the time that passes: it is due whenever a clock in the zone shows
    a time that fits, so that `*/15 * * * *` comes each quarter of an hour whatever the clocks do. All others follow the
    calendar, each time of a day once: one that a day does not have is due at the moment the clocks are put forward,
    together with all that are left out there, and one that a day has twice is due the first time.

    Attributes:
        text: The fields, one blank between two.
        zone: Whose clocks.
    """

    text: str
    zone: ZoneInfo
    _parsed: Any = field(repr=False, compare=False)
    _every_hour: bool = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str, zone: str = "UTC") -> Cron:
        """Read a cron text.

        Args:
            text: Five fields (minute, hour, day of the month, month, weekday), six with seconds in front, or one of
                `ALIASES`. If both the day of the month and the weekday are given, a day fits that either fits; with
                W or # in one of them, that both fit.
            zone: An IANA name.

        Raises:
            InvalidSchedule: It is no cron, or never comes, or the zone is unknown; names the field if one is wrong.
        """
        if len(text) > LONGEST_TEXT:
            message = f"Schedule {text[:20]!r}... has {len(text)} characters: give {LONGEST_TEXT} at most. {EXAMPLE}."
            raise InvalidSchedule(message)
        words = re.findall(r"\S+", text, re.ASCII)  # as the parser separates them
        text = " ".join(words)
        _check_words(text, words)
        parsed = _read(text)
        if parsed is None:
            message = f"Schedule {text!r}: these fields do not go together. Make one of them plainer. {EXAMPLE}."
            raise InvalidSchedule(message)
        cron = cls(text, read_zone(zone), parsed, "*" in parsed.expanded[_HOUR_FIELD])
        cron._clock_after(_EARLY)
        return cron

    def next_after(self, moment: datetime) -> datetime:
        """Give the first due time after a moment, in UTC.

        Between two changes of the zone's clocks the time they show is the moment plus one offset: so what fits next is
        looked for with the offset there is, and once more from the next change on if that comes first.

        Raises:
            Invalid: The moment has no time zone, or is not of the years 1970 to 9000.
        """
        moment = in_utc(moment)
        local = moment.astimezone(self.zone)
        clock, offset = local.replace(tzinfo=None), _offset(local)
        if local.fold and not self._every_hour:  # the clocks were put back: what they show now was due the first time
            before = _offset(local.replace(fold=0))
            turned = self._change(moment - (before - offset), moment)
            assert turned is not None
            clock = _clock(turned, before) - TICK
        while True:
            found = self._clock_after(clock)
            due = found.replace(tzinfo=UTC) - offset
            change = self._change(moment, due)
            if change is None:
                return due
            after = self._offset_at(change)
            if self._every_hour:
                clock = _clock(change, after) - TICK
            elif found < _clock(change, after):  # no clock ever shows it
                return change
            else:
                clock = _clock(change, max(offset, after)) - TICK
            moment, offset = change, after

    def _clock_after(self, clock: datetime) -> datetime:
        """Give the first clock time after one that fits; the parser has a cursor, so each asks a copy."""
        try:
            found: datetime = copy(self._parsed).get_next(datetime, start_time=clock.replace(microsecond=0))
        except ValueError as error:
            message = (
                f"Schedule {self.text!r} never comes: no day of any year fits. "
                "Look at its day of the month, month and weekday."
            )
            raise InvalidSchedule(message) from error
        return found

    def _change(self, start: datetime, end: datetime) -> datetime | None:
        """Give the first moment after a start, up to an end, at which the offset is not what it was at the start.

        Looks once a day: no zone has changed its clocks forth and back within one.
        """
        offset = self._offset_at(start)
        while start < end:
            stop = min(start + _DAY, end)
            if self._offset_at(stop) != offset:
                while stop - start > TICK:
                    middle = start + (stop - start) // 2
                    if self._offset_at(middle) == offset:
                        start = middle
                    else:
                        stop = middle
                return stop
            start = stop
        return None

    def _offset_at(self, moment: datetime) -> timedelta:
        return _offset(moment.astimezone(self.zone))


def read_zone(name: str) -> ZoneInfo:
    """Find a time zone by its IANA name.

    Raises:
        InvalidSchedule: There is none; proposes one of a similar name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # unknown, no name at all, a folder of zones
        similar = get_close_matches(name, sorted(available_timezones()), n=1)
        hint = f"Did you mean {similar[0]!r}?" if similar else "Give an IANA name, such as 'Europe/Berlin' or 'UTC'."
        message = f"Time zone {name[:LONGEST_TEXT]!r} is not known. {hint}"
        raise InvalidSchedule(message) from error


def in_utc(moment: datetime) -> datetime:
    """Give a moment in UTC.

    Raises:
        Invalid: It has no time zone, or is not of the years 1970 to 9000.
    """
    if moment.utcoffset() is None or not EPOCH - TICK <= moment <= _LAST:
        message = (
            f"{moment!r} is no moment to look from: give a datetime with a time zone, such as datetime.now(UTC), "
            f"of the years {EPOCH.year} to {_LAST.year}."
        )
        raise Invalid(message)
    return moment.astimezone(UTC)


def _offset(local: datetime) -> timedelta:
    found = local.utcoffset()
    assert found is not None
    return found


def _clock(moment: datetime, offset: timedelta) -> datetime:
    """Give what a clock with an offset shows."""
    return moment.replace(tzinfo=None) + offset


def _read(text: str) -> Any:
    """Let the parser read a text as DBOS does; gives `None` if it cannot."""
    from croniter import croniter  # type: ignore[import-untyped]

    try:
        return croniter(text, _EARLY, second_at_beginning=True)
    except ValueError:
        return None


def _check_words(text: str, words: list[str]) -> None:
    """Refuse what is wrong with the number of fields, an alias, or one field alone."""
    if text.startswith("@"):
        if text.lower() not in ALIASES:
            message = f"Schedule {text!r} is no known alias. Give one of {', '.join(ALIASES)}, or a cron. {EXAMPLE}."
            raise InvalidSchedule(message)
        return
    if len(words) not in (len(_FIELDS), len(_FIELDS) + 1):
        message = (
            f"Schedule {text!r} has {len(words)} field(s). A cron has 5 (minute, hour, day of the month, month, "
            f"weekday) or 6, with seconds in front; an interval reads 'every 15 minutes'. {EXAMPLE}."
        )
        raise InvalidSchedule(message)
    fields = _FIELDS if len(words) == len(_FIELDS) else (_SECOND, *_FIELDS)
    for number, (word, place) in enumerate(zip(words, fields, strict=True)):
        alone = ["*"] * len(words)
        alone[number] = word
        problem = _problem(word, place) or (
            "" if _read(" ".join(alone)) else f"give {place.values}; several as 1,3 or 1-5 or */2"
        )
        if problem:
            message = f"Schedule {text!r}: the {place.name} {word!r} is not valid: {problem}. {EXAMPLE}."
            raise InvalidSchedule(message)


def _problem(word: str, place: _Field) -> str | None:
    """Say what is wrong with a field that the parser would take for something nobody means."""
    if re.match(r"[hr]([(/]|$)", word, re.IGNORECASE):
        return "each process would choose another random time; name one"
    for part in word.split(","):
        both = re.fullmatch(r"(\w+)-(\w+)(?:/\d+)?", part)
        if both and both[1].lower() == both[2].lower():
            return f"{part!r} would stand for every {place.name}; write {both[1]!r}"
        step = re.fullmatch(r".*/(\d+)", part)
        if step and (len(step[1]) > 2 or int(step[1]) > place.size):  # noqa: PLR2004 - no field has more digits
            return f"a step of {step[1]} is longer than the field; an interval reads 'every 90 minutes'"
    return None
