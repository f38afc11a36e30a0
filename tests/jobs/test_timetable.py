"""When schedules are due: the forms of a schedule, changes of the clocks, what is made up for, overlaps, backfills."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import croniter
import dbos._scheduler
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventic_core.errors import Invalid, InvalidBackfill, InvalidSchedule
from eventic_core.jobs.timetable import (
    GRACE,
    MISSED_COUNTED,
    Decision,
    Firings,
    Overlap,
    Timetable,
    backfill,
    decide,
    firings,
)
from eventic_core.runtime.cron import ALIASES, EPOCH, TICK

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
at_any_speed = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])


def at(text: str) -> datetime:
    """Give a moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def shown(timetable: Timetable, after: str, count: int) -> list[str]:
    """Give what the zone's clocks show, with their offset, at the due times after a time in UTC."""
    assert timetable.zone is not None
    due = timetable.due_between(at(after), at("9000-01-01"), limit=count)
    return [moment.astimezone(ZoneInfo(timetable.zone)).strftime("%d %H:%M %z") for moment in due]


# -- forms


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("30 9 * * mon-fri", ["2026-06-02 09:30", "2026-06-03 09:30"]),
        ("*/20 * * * *", ["2026-06-01 12:20", "2026-06-01 12:40"]),
        ("15 30 9 * * *", ["2026-06-02 09:30:15", "2026-06-03 09:30:15"]),
        ("*/30 * * * * *", ["2026-06-01 12:00:30", "2026-06-01 12:01"]),
        ("0 0 29 2 *", ["2028-02-29", "2032-02-29"]),
        ("0 0 L * *", ["2026-06-30", "2026-07-31"]),
        ("0 0 1W * *", ["2026-07-01", "2026-08-03"]),
        ("0 0 * * mon#1", ["2026-07-06", "2026-08-03"]),
        ("0 0 * * L5", ["2026-06-26", "2026-07-31"]),
        ("0 0 15 * sun", ["2026-06-07", "2026-06-14"]),
        ("0 0 * * 0-7", ["2026-06-02", "2026-06-03"]),
        ("  0   0  1 Jan\t* ", ["2027-01-01", "2028-01-01"]),
        ("@hourly", ["2026-06-01 13:00", "2026-06-01 14:00"]),
        ("@Daily", ["2026-06-02", "2026-06-03"]),
        ("every 15 minutes", ["2026-06-01 12:15", "2026-06-01 12:30"]),
        ("every minute", ["2026-06-01 12:01", "2026-06-01 12:02"]),
        ("15m", ["2026-06-01 12:15", "2026-06-01 12:30"]),
        (" Every 2  hours ", ["2026-06-01 14:00", "2026-06-01 16:00"]),
        ("1h30m", ["2026-06-01 13:30", "2026-06-01 15:00"]),
        ("1.5 hours", ["2026-06-01 13:30", "2026-06-01 15:00"]),
        ("every 1 day 12 hours", ["2026-06-03 00:00", "2026-06-04 12:00"]),
        ("90s", ["2026-06-01 12:01:30", "2026-06-01 12:03"]),
        (timedelta(hours=6), ["2026-06-01 18:00", "2026-06-02 00:00"]),
        (900, ["2026-06-01 12:15", "2026-06-01 12:30"]),
        (900.0, ["2026-06-01 12:15", "2026-06-01 12:30"]),
    ],
)
def test_a_schedule_is_due_when_it_says(schedule: str | timedelta | float, expected: list[str]) -> None:
    assert Timetable.of(schedule).due_between(NOON, at("9000-01-01"), limit=2) == [at(text) for text in expected]


@pytest.mark.parametrize("alias", ALIASES)
def test_every_alias_is_known(alias: str) -> None:
    assert Timetable.of(alias).next_after(NOON) > NOON


def test_an_interval_counts_from_its_anchor_and_back() -> None:
    timetable = Timetable.of("every week", anchor=at("2030-01-07 08:00"))
    assert timetable.next_after(NOON) == at("2026-06-08 08:00")
    assert timetable.previous(NOON) == at("2026-06-01 08:00")
    assert timetable.next_after(at("2030-01-07 08:00")) == at("2030-01-14 08:00")


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        ("15m", "every 15 minutes"),
        (3600, "every hour"),
        ("36h", "every 36 hours"),
        ("2 days", "every 2 days"),
        (timedelta(days=7), "every week"),
        (61, "every 61 seconds"),
        (" 0  9 * * mon-fri", "0 9 * * mon-fri"),
        ("@daily", "@daily"),
    ],
)
def test_a_timetable_is_made_again_from_what_it_says_of_itself(schedule: str | timedelta | float, text: str) -> None:
    timetable = Timetable.of(schedule)
    assert timetable.text == text
    assert Timetable.of(timetable.text, zone=timetable.zone, anchor=timetable.anchor) == timetable
    for same in (copy.deepcopy(timetable), pickle.loads(pickle.dumps(timetable))):
        assert (same, hash(same), same.next_after(NOON)) == (timetable, hash(timetable), timetable.next_after(NOON))


def test_timetables_differ_by_zone_and_anchor() -> None:
    assert Timetable.of("0 9 * * *") == Timetable.of("0 9 * * *", zone="UTC")
    assert Timetable.of("0 9 * * *") != Timetable.of("0 9 * * *", zone="Europe/Berlin")
    assert Timetable.of("1h", anchor=at("2026-01-01")) != Timetable.of("1h", anchor=at("2026-01-01 00:10"))


@pytest.mark.parametrize(
    ("schedule", "says"),
    [
        ("61 * * * *", r"'61 \* \* \* \*': the minute '61' is not valid: give 0-59.* Example: "),
        ("0 24 * * *", "the hour '24' .* 0-23"),
        ("0 0 32 * *", "the day of the month '32' .* 1-31"),
        ("0 0 * 13 *", "the month '13' .* 1-12 or jan-dec"),
        ("0 0 * * funday", "the weekday 'funday' .* sun-sat"),
        ("60 0 0 * * *", "the second '60' .* 0-59"),
        ("*/0 * * * *", r"the minute '\*/0'"),
        ("-1 * * * *", "the minute '-1'"),
        ("R * * * *", "the minute 'R' .* random"),
        ("0 h(1-5) * * *", r"the hour 'h\(1-5\)' .* random"),
        ("0 9-9 * * *", "the hour '9-9' .* every hour; write '9'"),
        ("0 0 * Jan-jan *", "the month 'Jan-jan' .* write 'Jan'"),
        ("*/90 * * * *", "a step of 90 is longer than the field; an interval reads 'every 90 minutes'"),
        ("0 9 * *", "has 4 field.* 5 .minute, hour, day of the month, month, weekday. or 6"),
        ("", "has 0 field"),
        ("* * * * * * 2030", "has 7 field"),
        ("tomorrow", "'tomorrow' has 1 field"),
        ("@reboot", "'@reboot' is no known alias. Give one of @hourly"),
        ("1," * 200 + "1 * * * *", "has 409 characters"),
        ("0 0 31 2 *", r"'0 0 31 2 \*' never comes"),
        ("0 0 31 4,6,9,11 *", "never comes"),
        ("0 0 0 30 feb *", "never comes"),
        ("every 15 parsecs", "'every 15 parsecs' is no interval. Give 'every 15 minutes'"),
        ("every monday", "is no interval"),
        ("every", "is no interval"),
        ("every 15 minutes please", "is no interval"),
        ("15ms", "is no interval"),
        (float("nan"), "is no interval"),
        (float("inf"), "is no interval"),
        (0, "0 seconds: give whole ones, from 1"),
        (-5, "-5 seconds: "),
        (1.5, "1.5 seconds: "),
        ("0s", "0 seconds: "),
        (timedelta(milliseconds=999), "0.999 seconds: "),
        ("every 9999 weeks", "seconds: give whole ones, from 1 to 316224000"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_reason(schedule: str | timedelta | float, says: str) -> None:
    with pytest.raises(InvalidSchedule, match=says):
        Timetable.of(schedule)


@pytest.mark.parametrize(
    ("zone", "says"),
    [
        ("Europa/Berlin", "'Europa/Berlin' is not known. Did you mean 'Europe/Berlin'"),
        ("Europe", "'Europe' is not known"),
        ("", "'' is not known. Give an IANA name"),
        ("/etc/passwd", "is not known"),
        ("../UTC", "is not known"),
        ("UTC\0", "is not known"),
    ],
)
def test_an_unknown_zone_is_refused(zone: str, says: str) -> None:
    with pytest.raises(InvalidSchedule, match=says):
        Timetable.of("0 9 * * *", zone=zone)


def test_a_zone_is_for_a_cron_and_an_anchor_for_an_interval() -> None:
    with pytest.raises(InvalidSchedule, match="'15m': a cron has a zone, an interval has an anchor"):
        Timetable.of("15m", zone="UTC")
    with pytest.raises(InvalidSchedule, match="a cron has a zone"):
        Timetable.of("0 9 * * *", anchor=NOON)
    with pytest.raises(Invalid, match="time zone"):
        Timetable.of("15m", anchor=NOON.replace(tzinfo=None))


@pytest.mark.parametrize("schedule", ["0 9 * * *", "15m"])
@pytest.mark.parametrize(
    "moment", [NOON.replace(tzinfo=None), at("1969-12-31"), at("9001-01-01"), datetime.max.replace(tzinfo=UTC)]
)
def test_a_moment_without_a_zone_or_far_off_is_refused(schedule: str, moment: datetime) -> None:
    timetable = Timetable.of(schedule)
    for look in (timetable.next_after, timetable.previous):
        with pytest.raises(Invalid, match=r"give a datetime with a time zone, .* 1970 to 9000"):
            look(moment)


def test_there_is_a_next_due_time_up_to_the_last_year() -> None:
    last = at("9000-12-31")
    for schedule in ("0 0 29 2 mon#5", "3660 days"):
        assert Timetable.of(schedule).next_after(last) > last


def test_nothing_is_due_before_1970() -> None:
    timetable = Timetable.of("0 9 1 6 *")
    assert timetable.previous(at("1970-06-02")) == at("1970-06-01 09:00")
    assert timetable.previous(at("1970-06-01 09:00")) is None
    assert Timetable.of("1h").previous(at("1970-01-01 00:30")) == EPOCH
    assert Timetable.of("1h").previous(EPOCH) is None


@pytest.mark.parametrize("schedule", ["30 2 * * *", "*/15 * * * *", "0 0 13 * fri", "every 7 minutes"])
def test_threads_share_a_timetable(schedule: str) -> None:
    timetable = Timetable.of(schedule, zone="Europe/Berlin" if "*" in schedule else None)
    moments = [NOON + timedelta(hours=7.3 * number) for number in range(100)]
    alone = [timetable.next_after(moment) for moment in moments]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(timetable.next_after, moments)) == alone


@given(st.text(max_size=30) | st.lists(st.sampled_from("*?Ll@#/-,0159W montuehr"), max_size=24).map("".join))
@at_any_speed
def test_any_text_is_a_schedule_or_refused_by_name(text: str) -> None:
    try:
        timetable = Timetable.of(text)
    except InvalidSchedule:
        return
    assert timetable.next_after(NOON) > NOON


# -- changes of the clocks


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        # Put forward: 2:00 to 3:00 is left out.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28", ["28 02:30 +0100", "29 03:00 +0200", "30 02:30 +0200"]),
        ("30 2 * * *", "America/New_York", "2026-03-07 12:00", ["08 03:00 -0400", "09 02:30 -0400"]),
        ("*/10 2 * * *", "Europe/Berlin", "2026-03-29", ["29 03:00 +0200", "30 02:00 +0200"]),
        ("0 2,3 * * *", "Europe/Berlin", "2026-03-29", ["29 03:00 +0200", "30 02:00 +0200"]),
        ("0 */2 * * *", "Europe/Berlin", "2026-03-29", ["29 03:00 +0200", "29 04:00 +0200"]),
        ("30 2 29 3 *", "Europe/Berlin", "2026-01-01", ["29 03:00 +0200", "29 02:30 +0200"]),
        # Put back: 2:00 to 3:00 comes twice.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", ["25 02:30 +0200", "26 02:30 +0100"]),
        ("30 1 * * *", "America/New_York", "2026-11-01", ["01 01:30 -0400", "02 01:30 -0500"]),
        ("30 2,3 * * *", "Europe/Berlin", "2026-10-24 12:00", ["25 02:30 +0200", "25 03:30 +0100"]),
        ("*/30 2 * * *", "Europe/Berlin", "2026-10-24 12:00", ["25 02:00 +0200", "25 02:30 +0200", "26 02:00 +0100"]),
        # From within the hour that comes again.
        ("30 2 * * *", "Europe/Berlin", "2026-10-25 01:10", ["26 02:30 +0100"]),
        ("0 3 * * *", "Europe/Berlin", "2026-10-25 01:10", ["25 03:00 +0100"]),
        # By half an hour, at two o'clock.
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03 12:00", ["04 02:30 +1100", "05 02:15 +1100"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04 12:00", ["05 01:45 +1100", "06 01:45 +1030"]),
        # By a whole day that is left out, and at midnight.
        ("0 9 * * *", "Pacific/Apia", "2011-12-29", ["29 09:00 -1000", "31 00:00 +1400", "31 09:00 +1400"]),
        ("@daily", "America/Havana", "2026-03-07 12:00", ["08 01:00 -0400", "09 00:00 -0400"]),
    ],
)
def test_a_time_of_the_day_is_due_once_whatever_the_clocks_do(
    cron: str, zone: str, after: str, expected: list[str]
) -> None:
    assert shown(Timetable.of(cron, zone=zone), after, len(expected)) == expected


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        ("0 * * * *", "Europe/Berlin", "2026-03-29", ["29 03:00 +0200", "29 04:00 +0200"]),
        ("15,45 * * * *", "Europe/Berlin", "2026-03-29 00:30", ["29 01:45 +0100", "29 03:15 +0200", "29 03:45 +0200"]),
        ("0 * * * *", "Europe/Berlin", "2026-10-24 23:30", ["25 02:00 +0200", "25 02:00 +0100", "25 03:00 +0100"]),
        ("@hourly", "America/New_York", "2026-11-01 04:30", ["01 01:00 -0400", "01 01:00 -0500", "01 02:00 -0500"]),
        ("0 0-23 * * *", "Europe/Berlin", "2026-10-24 23:30", ["25 02:00 +0200", "25 02:00 +0100"]),
        ("*/30 * * * *", "Australia/Lord_Howe", "2026-10-03 15:00", ["04 02:30 +1100", "04 03:00 +1100"]),
        ("*/30 * * * *", "Australia/Lord_Howe", "2026-04-04 14:30", ["05 01:30 +1030", "05 02:00 +1030"]),
    ],
)
def test_a_cron_of_every_hour_goes_on_with_the_time_that_passes(
    cron: str, zone: str, after: str, expected: list[str]
) -> None:
    assert shown(Timetable.of(cron, zone=zone), after, len(expected)) == expected


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "UTC"])
@pytest.mark.parametrize(("cron", "minutes"), [("*/15 * * * *", 15), ("0 * * * *", 60), ("7 * * * *", 60)])
def test_an_hourly_cron_comes_each_real_hour_of_a_year(zone: str, cron: str, minutes: int) -> None:
    for start in ("2026-03-01", "2026-10-20"):
        due = Timetable.of(cron, zone=zone).due_between(at(start), at(start) + 20 * DAY, limit=10_000)
        assert {later - earlier for earlier, later in pairwise(due)} == {minutes * MINUTE}


def test_an_interval_does_not_look_at_clocks() -> None:
    due = Timetable.of("2h").due_between(at("2026-03-28"), at("2026-03-30"), limit=100)
    assert {later - earlier for earlier, later in pairwise(due)} == {timedelta(hours=2)}


# -- properties: against a clock that is watched minute by minute

CHANGES = [
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Australia/Lord_Howe", "2026-10-04"),
    ("America/St_Johns", "2010-11-07"),  # a minute after midnight
    ("Pacific/Apia", "2011-12-30"),
    ("UTC", "2026-01-01"),
]


@cache
def watched(zone: str, day: str) -> list[tuple[datetime, datetime]]:
    """Give the minutes of some days around one: the moment, and what the zone's clocks show."""
    minutes = [at(day) + (number - 3 * 1440) * MINUTE for number in range(5 * 1440)]
    return [(moment, moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)) for moment in minutes]


def by_the_clock(zone: str, day: str, minutes: set[int], hours: set[int] | None) -> list[datetime]:
    """Say when a cron is due: of every hour, when a clock shows its time; else when one first shows or passes it."""
    due = []
    latest = watched(zone, day)[0][1]
    for moment, clock in watched(zone, day)[1:]:
        passed = [latest + (number + 1) * MINUTE for number in range((clock - latest) // MINUTE)]
        if hours is None:
            fits = clock.minute in minutes
        else:
            fits = any(time.minute in minutes and time.hour in hours for time in passed)
        latest = max(latest, clock)
        if fits:
            due.append(moment)
    return due


minute_sets = st.sets(st.integers(0, 59), min_size=1, max_size=4)
hour_sets = st.none() | st.sets(st.sampled_from([23, 0, 1, 2, 3, 4, 12]), min_size=1, max_size=4)


def cron_of(minutes: set[int], hours: set[int] | None) -> str:
    return f"{','.join(map(str, minutes))} {'*' if hours is None else ','.join(map(str, hours))} * * *"


@given(st.sampled_from(CHANGES), minute_sets, hour_sets, st.lists(st.floats(0, 1), min_size=3, max_size=3))
@at_any_speed
def test_a_cron_is_due_when_the_clocks_say(
    change: tuple[str, str], minutes: set[int], hours: set[int] | None, parts: list[float]
) -> None:
    timetable = Timetable.of(cron_of(minutes, hours), zone=change[0])
    start, end = watched(*change)[0][0] + 1.5 * DAY, watched(*change)[-1][0]
    due = [moment for moment in by_the_clock(*change, minutes, hours) if start < moment <= end]
    assert timetable.due_between(start, end, limit=10_000) == due
    for part in parts:
        moment = start + part * (end - start)
        later = [found for found in due if found > moment]
        earlier = [found for found in due if found < moment]
        assert not later or timetable.next_after(moment) == later[0]
        assert not earlier or timetable.previous(moment) == earlier[-1]
    assert list(timetable.due_before(end + TICK, start)) == due[::-1]


zones = st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"])
crons = st.sampled_from(
    [
        "30 2 * * *",
        "*/7 * * * *",
        "0 */2 * * *",
        "0 0 L * *",
        "0 12 15W * *",
        "5 4 * * fri#2",
        "0 0 29 2 *",
        "15 2 * mar,oct sun",
        "*/10 * * * * *",
        "59 59 23 31 12 *",
        "20 */10 1-3 * * sun",
        "@weekly",
    ]
)
periods = st.sampled_from([1, 7, 60, 5400, 86_400, 100_003, 30 * 86_400])
moments = st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=zones.map(ZoneInfo))  # noqa: DTZ001
timetables = st.builds(lambda cron, zone: Timetable.of(cron, zone=zone), crons, zones) | st.builds(
    lambda seconds, anchor: Timetable.of(seconds, anchor=anchor), periods, moments
)


@given(timetables, moments, st.floats(0, 1, exclude_max=True))
@at_any_speed
def test_the_next_due_time_is_the_first_one_after_a_moment(timetable: Timetable, moment: datetime, part: float) -> None:
    due = timetable.next_after(moment)
    assert due > moment
    assert due.tzinfo is UTC
    between = moment.astimezone(UTC) + part * (due - moment)
    assert timetable.next_after(min(between, due - TICK)) == due
    assert timetable.previous(due + TICK) == due
    before = timetable.previous(due)
    assert before is None or (before <= moment and timetable.next_after(before) == due)


@given(timetables, moments, st.integers(0, 12), st.integers(0, 12))
@at_any_speed
def test_windows_that_touch_share_no_due_time_and_leave_none_out(
    timetable: Timetable, start: datetime, first: int, second: int
) -> None:
    due = [timetable.next_after(start)]
    while len(due) < 30:
        due.append(timetable.next_after(due[-1]))
    assert all(earlier < later for earlier, later in pairwise(due))
    for middle in (due[first], due[first] - TICK, due[first] + TICK):
        end = max(middle, due[first + second] + MINUTE)
        whole = timetable.due_between(start, end, limit=10_000)
        parts = [timetable.due_between(*window, limit=10_000) for window in ((start, middle), (middle, end))]
        assert parts[0] + parts[1] == whole
        assert whole[:30] == due[: len(whole)]
        assert list(timetable.due_before(end + TICK, start)) == whole[::-1]


# -- windows


def test_a_window_begins_after_its_first_moment_and_ends_with_its_last() -> None:
    hourly = Timetable.of("@hourly")
    assert hourly.due_between(NOON, NOON + timedelta(hours=2), limit=9) == [
        at("2026-06-01 13:00"),
        at("2026-06-01 14:00"),
    ]
    assert hourly.due_between(NOON, NOON, limit=9) == []
    assert hourly.due_between(NOON, NOON - DAY, limit=9) == []


def test_a_window_of_a_thousand_years_gives_no_more_than_the_limit() -> None:
    every_second = Timetable.of("* * * * * *")
    assert len(every_second.due_between(at("2000-01-01"), at("3000-01-01"), limit=5)) == 5
    backwards = every_second.due_before(at("3000-01-01"), at("2000-01-01"))
    assert list(islice(backwards, 2)) == [at("2999-12-31 23:59:59"), at("2999-12-31 23:59:58")]
    with pytest.raises(Invalid, match="limit=0"):
        every_second.due_between(at("2000-01-01"), at("3000-01-01"), limit=0)


# -- what a scheduler that was away makes up for

NIGHTLY = Timetable.of("0 2 * * *")


def nights(*days: int) -> tuple[datetime, ...]:
    return tuple(at(f"2026-06-{day:02} 02:00") for day in days)


@pytest.mark.parametrize(
    ("now", "catch_up", "due", "missed"),
    [
        ("2026-06-01 01:59:59", None, (), 0),
        ("2026-06-01 02:00:00", None, nights(1), 0),
        ("2026-06-01 02:00:30", None, nights(1), 0),
        # Away for four nights and some hours.
        ("2026-06-04 08:00", None, nights(4), 3),
        ("2026-06-04 08:00", timedelta(0), (), 4),
        ("2026-06-04 08:00", timedelta(hours=6), nights(4), 3),
        ("2026-06-04 08:00", timedelta(hours=5, minutes=59), (), 4),
        ("2026-06-04 08:00", timedelta(days=2), nights(3, 4), 2),
        ("2026-06-04 08:00", timedelta.max, nights(1, 2, 3, 4), 0),
        # Back just in time for the last one.
        ("2026-06-04 02:00:59", timedelta(0), nights(4), 3),
        ("2026-06-04 02:00:59", None, nights(4), 3),
    ],
)
def test_a_scheduler_makes_up_for_what_the_window_holds(
    now: str, catch_up: timedelta | None, due: tuple[datetime, ...], missed: int
) -> None:
    found = firings(NIGHTLY, last_due=at("2026-05-31 12:00"), now=at(now), catch_up=catch_up)
    assert found == Firings(due=due, missed=missed)


def test_a_due_time_is_decided_once_also_if_the_clock_goes_back() -> None:
    now = at("2026-06-01 02:00:05")
    assert firings(NIGHTLY, last_due=at("2026-05-31 12:00"), now=now).due == nights(1)
    for later in (now, now + 10 * MINUTE, now - 10 * MINUTE):
        assert firings(NIGHTLY, last_due=now, now=later) == Firings(due=(), missed=0)


@given(timetables, moments, st.lists(st.integers(0, 3000), min_size=1, max_size=6))
@at_any_speed
def test_polls_decide_every_due_time_exactly_once(timetable: Timetable, start: datetime, waits: list[int]) -> None:
    start = start.astimezone(UTC)
    now, decided, missed = start, [], 0
    for wait in waits:
        last, now = now, now + timedelta(seconds=wait)
        found = firings(timetable, last_due=last, now=now, catch_up=timedelta.max, limit=100_000)
        decided += found.due
        missed += found.missed
    assert decided == timetable.due_between(start, now, limit=100_000)
    assert missed == 0


def test_a_schedule_is_due_from_its_start_on_and_before_its_end() -> None:
    def due(**options: datetime) -> tuple[datetime, ...]:
        return firings(NIGHTLY, last_due=None, now=at("2026-06-04 08:00"), catch_up=10 * DAY, **options).due

    assert due(start=at("2026-06-02 02:00")) == nights(2, 3, 4)
    assert due(start=at("2026-06-02 02:00:01")) == nights(3, 4)
    assert due(start=at("2026-06-01"), end=at("2026-06-03 02:00")) == nights(1, 2)
    assert due(start=at("2026-06-01"), end=at("2026-06-03 02:00:01")) == nights(1, 2, 3)
    assert due(start=at("2026-06-05")) == ()
    assert due(start=at("2026-06-03"), end=at("2026-06-02")) == ()


def test_a_schedule_that_was_never_looked_at_begins_with_the_window() -> None:
    assert firings(NIGHTLY, last_due=None, now=nights(4)[0] + GRACE) == Firings(due=nights(4), missed=0)
    assert firings(NIGHTLY, last_due=None, now=nights(4)[0] + GRACE + TICK) == Firings(due=(), missed=0)
    assert firings(NIGHTLY, last_due=None, now=at("2026-06-04 08:00"), catch_up=2 * DAY).due == nights(3, 4)


def test_of_more_than_the_limit_the_latest_are_run_for() -> None:
    found = firings(NIGHTLY, last_due=at("2026-05-01"), now=at("2026-06-04 08:00"), catch_up=60 * DAY, limit=2)
    assert found == Firings(due=nights(3, 4), missed=33)


def test_missed_due_times_are_counted_up_to_a_bound() -> None:
    found = firings(Timetable.of("* * * * * *"), last_due=at("1980-01-01"), now=NOON, catch_up=None)
    assert len(found.due) == 61
    assert found.due[-1] == NOON
    assert found.missed == MISSED_COUNTED


def test_firings_refuse_bad_arguments() -> None:
    with pytest.raises(Invalid, match="catch_up=-1 day"):
        firings(NIGHTLY, last_due=None, now=NOON, catch_up=-DAY)
    with pytest.raises(Invalid, match="limit=0"):
        firings(NIGHTLY, last_due=None, now=NOON, limit=0)
    for naive in ({"now": NOON.replace(tzinfo=None)}, {"now": NOON, "start": NOON.replace(tzinfo=None)}):
        with pytest.raises(Invalid, match="time zone"):
            firings(NIGHTLY, last_due=None, **naive)


# -- overlaps


@pytest.mark.parametrize(
    ("overlap", "idle", "running", "waiting"),
    [
        ("allow", "start", "start", "start"),
        ("skip", "start", "skip", "skip"),
        ("queue", "start", "wait", "skip"),
        ("cancel_running", "start", "replace", "replace"),
    ],
)
def test_an_overlap_is_decided_by_the_policy(overlap: str, idle: str, running: str, waiting: str) -> None:
    policy = Overlap(overlap)
    assert decide(policy, running=False, waiting=False) == Decision(idle)
    assert decide(policy, running=True, waiting=False) == Decision(running)
    for under_way in (True, False):
        assert decide(policy, running=under_way, waiting=True) == Decision(waiting)


# -- backfills


def test_a_backfill_has_the_due_times_from_its_start_on_and_before_its_end() -> None:
    june = backfill(NIGHTLY, at("2026-06-01 02:00"), at("2026-06-04 02:00"))
    assert next(june) == nights(1)[0]
    assert tuple(june) == nights(2, 3)
    assert list(backfill(NIGHTLY, at("2026-06-01 03:00"), at("2026-06-01 04:00"))) == []


def test_a_backfill_may_begin_and_end_where_the_clocks_change() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    hourly = Timetable.of("@hourly", zone="Europe/Berlin")
    forward = datetime(2026, 3, 29, 3, tzinfo=berlin)
    assert list(backfill(hourly, forward, forward + timedelta(hours=1))) == [forward]
    first, again = (datetime(2026, 10, 25, 2, tzinfo=berlin, fold=fold) for fold in (0, 1))
    assert list(backfill(hourly, first, again)) == [first.astimezone(UTC)]


def test_backfills_that_touch_share_no_due_time() -> None:
    start, middle, end = at("2026-06-01"), nights(3)[0], at("2026-06-06")
    parts = [*backfill(NIGHTLY, start, middle), *backfill(NIGHTLY, middle, end)]
    assert parts == list(backfill(NIGHTLY, start, end))


@pytest.mark.parametrize(
    ("start", "end", "limit", "says"),
    [
        ("2026-06-02", "2026-06-01", 10, "from 2026-06-02 .* to 2026-06-01 .* no time in it"),
        ("2026-06-02", "2026-06-02", 10, "no time in it"),
        ("2026-06-01", "2026-06-30", 10, r"'0 2 \* \* \*' .* more than 10 due times.*up to 2026-06-11 02:00:00"),
    ],
)
def test_a_backfill_of_nothing_or_too_much_is_refused(start: str, end: str, limit: int, says: str) -> None:
    with pytest.raises(InvalidBackfill, match=says):
        backfill(NIGHTLY, at(start), at(end), limit=limit)


def test_a_backfill_may_have_just_as_many_as_the_limit() -> None:
    assert len(list(backfill(NIGHTLY, at("2026-06-01"), at("2026-06-11"), limit=10))) == 10
    with pytest.raises(Invalid, match="limit=0"):
        backfill(NIGHTLY, at("2026-06-01"), at("2026-06-11"), limit=0)


# -- the contract with DBOS's parser


def test_dbos_asks_the_same_parser_in_the_same_dialect() -> None:
    assert dbos._scheduler.croniter is croniter.croniter
    assert "second_at_beginning=True" in inspect.getsource(dbos._scheduler)


def test_the_parser_gives_what_is_read_of_it() -> None:
    assert issubclass(croniter.CroniterError, ValueError)
    for text in ("5 9 * * *", "1 5 9 * * *"):
        parsed = croniter.croniter(text, datetime(2000, 1, 1), second_at_beginning=True)  # noqa: DTZ001
        assert parsed.expanded[1] == [9]
        late = datetime(2026, 6, 1, 9, 5, 1)  # noqa: DTZ001
        assert copy.copy(parsed).get_next(datetime, start_time=late) == late.replace(
            day=2, second=len(text.split()) - 5
        )
    for text in ("5 0-23 * * *", "5 */1 * * *", "5 * * * *", "@hourly"):
        assert croniter.croniter(text, second_at_beginning=True).expanded[1] == ["*"]


def test_the_parser_would_have_a_daily_time_come_twice() -> None:
    """Why it is asked about clock times only; if this fails, look whether the zones could be left to it."""
    zone = ZoneInfo("Europe/Berlin")
    asked = croniter.croniter("30 2 * * *", datetime(2026, 10, 25, tzinfo=zone), second_at_beginning=True)
    assert [asked.get_next(datetime).day for _ in range(2)] == [25, 25]


def test_nothing_heavy_is_imported_for_a_timetable() -> None:
    code = (
        "import sys; from eventic_core.jobs.timetable import Timetable; print('croniter' in sys.modules)\n"
        "Timetable.of('0 9 * * *'); print('dbos' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
