"""Logging for programs with progress bars: Rich lines on stderr that leave tqdm's bars whole.

A program asks for it; the package itself configures no logging. Imports rich and tqdm, so it is loaded when used.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from tqdm import tqdm

from eventic_core.errors import ConfigurationError

_PLAIN_WIDTH = 160
"""Columns of a line when stderr is no terminal: wide enough that few are broken."""


class _AboveBars:
    """A text file that writes to stderr as it is now, above the bars that tqdm shows."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        """Write, taking the bars away meanwhile."""
        tqdm.write(text, file=sys.stderr, end="")
        return len(text)

    def flush(self) -> None:
        """Pass it on."""
        sys.stderr.flush()

    def isatty(self) -> bool:
        """Tell whether people look at it."""
        return sys.stderr.isatty()


class RichTqdmHandler(RichHandler):
    """Writes each record as a line: time, level, message, and the file and line it comes from.

    Args:
        group_by_ts: Whether lines of one second show the time once, on the first of them.
        options: Others, as Rich's own handler takes them.
    """

    def __init__(self, *, group_by_ts: bool = True, **options: Any) -> None:
        width = None if sys.stderr.isatty() else _PLAIN_WIDTH
        console = options.pop("console", None) or Console(file=_AboveBars(), width=width)  # type: ignore[arg-type]
        super().__init__(
            console=console,
            omit_repeated_times=group_by_ts,
            log_time_format="[%Y-%m-%d %H:%M:%S]",
            **{"rich_tracebacks": False, **options},
        )


def setup_logger(name: str, level: int | str | None = None, fmt: str | None = None) -> logging.Logger:
    """Give a logger that writes with `RichTqdmHandler`, and to nobody else; called again, it changes level and format.

    Args:
        name: The logger's.
        level: From which level on; default the variable LOG_LEVEL, else INFO.
        fmt: Of the message, as `logging.Formatter` takes it; default the message alone.

    Raises:
        ConfigurationError: There is no such level, or the format makes no sense.
    """
    named = level if level is not None else os.environ.get("LOG_LEVEL") or "INFO"
    number = _level(named, "argument level" if level is not None else "variable LOG_LEVEL")
    try:
        formatter = logging.Formatter(fmt or "%(message)s")
    except ValueError as error:
        message = f"setup_logger(fmt={fmt!r}): {error}. Write it as logging.Formatter takes it: %(message)s."
        raise ConfigurationError(message) from error
    logger = logging.getLogger(name)
    handler = next((found for found in logger.handlers if isinstance(found, RichTqdmHandler)), None)
    if handler is None:
        handler = RichTqdmHandler()
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    elif fmt is not None:
        handler.setFormatter(formatter)
    logger.setLevel(number)
    logger.propagate = False
    return logger


def _level(given: int | str, place: str) -> int:
    if isinstance(given, int) and not isinstance(given, bool) and given >= 0:
        return given
    known = logging.getLevelNamesMapping()
    number = known.get(str(given).strip().upper())
    if number is None:
        message = f"The {place} is {given!r}, which is no level. Say one of {', '.join(known)}."
        raise ConfigurationError(message)
    return number
