"""Progress on the terminal: a bar that moves, or lines where the output is no terminal.

Owns what a person sees of a load or a run, on stderr. Reads nothing.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

    from rich.progress import Progress, TaskID

_LINE_SECONDS: Final = 5.0
_LINES: Final = 10
_TITLE_CHARACTERS: Final = 24
"""Of a title beside a bar, which needs the rest of the line; a longer one, with an id in it, loses its middle."""


class ProgressBar:
    """Shows how far something is; this one shows nothing."""

    def update(
        self,
        done: int,
        *,
        failed: int = 0,
        retrying: int = 0,
        rate: float | None = None,
        eta_seconds: float | None = None,
        note: str = "",
    ) -> None:
        """Show how far it is now; `rate` is per second, `note` what else there is to say."""
        parts = [f"{failed:,} failed" if failed else "", f"{retrying:,} retrying" if retrying else ""]
        parts += [f"{rate:,.0f}/s" if rate else "", "" if eta_seconds is None else f"{_clock(eta_seconds)} left", note]
        self._show(done, ", ".join(part for part in parts if part))

    def _show(self, done: int, details: str) -> None:
        pass


@contextmanager
def progress_bar(total: int | None, title: str, *, show: bool | None = None) -> Iterator[ProgressBar]:
    """Show progress on stderr inside the block: a bar on a terminal, else a line every tenth or few seconds.

    Args:
        total: Of what there is to do; `None` is not known.
        title: What it is about.
        show: Whether to show anything; by default, if the total is known.
    """
    stream = sys.stderr
    if not (total is not None if show is None else show) or stream is None:
        yield ProgressBar()
    elif stream.isatty():
        yield from _bar(total, title, stream)
    else:
        lines = _Lines(total, title, stream)
        yield lines
        lines.finish()


def _clock(seconds: float) -> str:
    minutes, left = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def _bar(total: int | None, title: str, stream: TextIO) -> Iterator[ProgressBar]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f}" + (f" of {total:,}" if total is not None else "")),
        TextColumn("{task.fields[details]}"),
        TimeElapsedColumn(),
    )
    half = _TITLE_CHARACTERS // 2
    shown = title if len(title) <= _TITLE_CHARACTERS else f"{title[:half]}…{title[1 - half :]}"
    with Progress(*columns, console=Console(file=stream)) as progress:
        yield _Bar(progress, progress.add_task(escape(shown), total=total, details=""))


class _Bar(ProgressBar):
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def _show(self, done: int, details: str) -> None:
        self._progress.update(self._task, completed=done, details=details)


class _Lines(ProgressBar):
    """Prints a line when a tenth more is done or some seconds have passed, and the last state at the end."""

    def __init__(self, total: int | None, title: str, stream: TextIO) -> None:
        self._total = total
        self._title = title
        self._stream = stream
        self._line = ""
        self._shown_line = ""
        self._shown_done = 0
        self._shown_at = time.monotonic()

    def _show(self, done: int, details: str) -> None:
        counted = f"{done:,}" if self._total is None else f"{done:,} of {self._total:,}"
        self._line = f"{self._title}: {counted}{f' ({details})' if details else ''}"
        is_tenth = self._total is not None and done - self._shown_done >= max(1, self._total / _LINES)
        if is_tenth or time.monotonic() - self._shown_at >= _LINE_SECONDS:
            self._shown_done, self._shown_at = done, time.monotonic()
            self.finish()

    def finish(self) -> None:
        """Print the last state, unless it has been."""
        if self._line and self._line != self._shown_line:
            self._shown_line = self._line
            print(self._line, file=self._stream, flush=True)
