"""The logger for programs with progress bars: lines that people can read, levels from where they are named."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from uuid import uuid4

import pytest
from rich.console import Console
from rich.progress import Progress
from tqdm import tqdm

from eventic_core import ConfigurationError
from eventic_core.automation import RichTqdmHandler, setup_logger


@pytest.fixture
def name() -> Iterator[str]:
    name = f"logs.{uuid4().hex}"
    yield name
    logging.getLogger(name).handlers.clear()


def at(logger: logging.Logger, moment: float, message: str) -> None:
    record = logger.makeRecord(logger.name, logging.WARNING, "/somewhere/work.py", 7, message, (), None)
    record.created = moment
    logger.handle(record)


def test_a_line_says_when_how_bad_what_and_where(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logger(name).warning("%d rows are odd", 3)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.search(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] WARNING +3 rows are odd +test_logs\.py:\d+", shown.err)


def test_lines_of_one_second_show_the_time_once(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    logger = setup_logger(name)
    for moment, message in ((1000.1, "one"), (1000.8, "two"), (1001.2, "three")):
        at(logger, moment, message)
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith("[") for line in lines] == [True, False, True]
    assert lines[0].index("WARNING") == lines[1].index("WARNING")
    logger.handlers[:] = [RichTqdmHandler(group_by_ts=False)]
    at(logger, 1000.1, "one")
    at(logger, 1000.8, "two")
    assert [line.startswith("[") for line in capsys.readouterr().err.splitlines()] == [True, True]


def test_bars_stay_whole(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    logger = setup_logger(name)
    with tqdm(total=3, mininterval=0) as bar:
        for number in range(3):
            logger.info("row %d", number)
            bar.update()
    shown = capsys.readouterr().err
    lines = [line for line in re.split(r"[\r\n]", shown) if "row " in line]
    assert [line.count("|") for line in lines] == [0, 0, 0]
    assert "3/3" in shown


def test_bars_of_rich_stay_whole_too(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    logger = setup_logger(name)
    console = Console(file=sys.stderr, force_terminal=True, width=100)
    with Progress(console=console, auto_refresh=False) as bars:
        loading = bars.add_task("loading", total=3)
        for number in range(3):
            logger.info("row %d", number)
            bars.update(loading, advance=1, refresh=True)
    lines = re.split(r"[\r\n]", capsys.readouterr().err)
    assert [("row" in line, "loading" in line) for line in lines if "row" in line] == [(True, False)] * 3
    assert "100%" in "".join(lines)


def test_a_second_call_adds_no_second_handler(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = setup_logger(name, "ERROR")
    again = setup_logger(name, logging.DEBUG, "<%(message)s>")
    assert again is first
    assert [type(handler) for handler in again.handlers] == [RichTqdmHandler]
    assert (again.level, again.propagate) == (logging.DEBUG, False)
    again.debug("once")
    assert capsys.readouterr().err.count("<once>") == 1


def test_level_comes_from_the_argument_the_variable_or_is_info(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOG_LEVEL", raising=False)
    assert setup_logger(name).level == logging.INFO
    monkeypatch.setenv("LOG_LEVEL", "warning")
    assert setup_logger(name).level == logging.WARNING
    assert setup_logger(name, "debug").level == logging.DEBUG


def test_levels_and_formats_that_make_no_sense_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "loud")
    with pytest.raises(ConfigurationError, match=r"variable LOG_LEVEL is 'loud'"):
        setup_logger(name)
    with pytest.raises(ConfigurationError, match=r"argument level is 'quiet'"):
        setup_logger(name, "quiet")
    with pytest.raises(ConfigurationError, match="fmt="):
        setup_logger(name, "INFO", "no field at all")
    assert logging.getLogger(name).handlers == []
