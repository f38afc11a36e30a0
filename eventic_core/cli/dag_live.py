"""A run of a DAG followed to its end: a table that moves on a terminal, elsewhere a line for each job as it ends.

Owns what is shown, and which jobs of many. What there is to show is the run's.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from eventic_core.automation.status import ExecutionStatus
from eventic_core.graph import NodeState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rich.console import Console, RenderableType

    from eventic_core.jobs.dag_run import DagRun
    from eventic_core.jobs.status import JobLook

S = NodeState
_WATCH_SECONDS: Final = 0.1
_FRAME_SECONDS: Final = 0.2
_OTHER_LINES: Final = 5
"""Of a screen: the header, what is not shown, the totals, the run's last line and the cursor's."""
_STYLES: Final = {
    S.WAITING: "dim",
    S.READY: "cyan",
    S.RUNNING: "bold blue",
    S.COMPLETED: "green",
    S.FAILED: "bold red",
    S.CANCELLED: "magenta",
    S.SKIPPED: "dim",
    S.UPSTREAM_FAILED: "yellow",
}


def follow(run: DagRun) -> None:
    """Watch a run until it has ended; ends the command with 1 unless it completed."""
    watch(run)
    if run.status != ExecutionStatus.COMPLETED:
        click.get_current_context().exit(1)


def watch(run: DagRun, *, is_over: Callable[[], bool] = lambda: False) -> None:
    """Show a run until it has ended, then its status in a line; no longer once `is_over` says so."""
    if sys.stdout.isatty():
        _draw(run, is_over)
    else:
        _print_jobs(run, is_over)
    if run.status.is_finished:
        click.echo(f"{run.id}  {run.status}" + (f"  {run.error_summary}" if run.error_summary else ""))


def _print_jobs(run: DagRun, is_over: Callable[[], bool]) -> None:
    """Print each job once as it ends."""
    told: set[str] = set()
    while True:
        run.refresh()
        for name, state in run.states().items():
            if state.is_finished and name not in told:
                told.add(name)
                why = run.why(name)
                click.echo(f"{name}  {state}" + (f"  {why}" if why else ""))
        if run.status.is_finished or is_over():
            return
        time.sleep(_WATCH_SECONDS)


def _draw(run: DagRun, is_over: Callable[[], bool]) -> None:
    """Draw the run again and again in place."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    order = [name for layer in run.layers() for name in layer]
    seen = Seen(order)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            run.refresh()
            states = run.states()
            shown = set(seen.moving(states, _room(console)))
            looks = {look.job: look for look in run.look(*shown)} if shown else {}
            live.update(frame(run, states, [looks[name] for name in order if name in shown]), refresh=True)
            if run.status.is_finished or is_over():
                return
            time.sleep(_FRAME_SECONDS)


def _room(console: Console) -> int:
    return max(console.height - _OTHER_LINES, 1)


class Seen:
    """Which jobs have been seen to end, the last one last, and so which of many are worth a line.

    Args:
        order: All jobs, by layers.
    """

    def __init__(self, order: Sequence[str]) -> None:
        self._order = order
        self._ended: dict[str, NodeState] = {}

    def moving(self, states: Mapping[str, NodeState], room: int) -> list[str]:
        """Choose the jobs to show: all if they fit; else failures, what is being done, what ended last, what is next.

        Failures leave at least half of the lines to the others, if these need them.
        """
        for name in self._order:
            if self._ended.get(name, S.WAITING) is not states[name]:
                self._ended.pop(name, None)
                if states[name].is_finished:
                    self._ended[name] = states[name]
        if len(self._order) <= room:
            return list(self._order)
        latest = list(reversed(self._ended))
        failed = [name for name in latest if states[name] is S.FAILED]
        active = [name for name in self._order if states[name] in (S.RUNNING, S.READY)]
        active.sort(key=lambda name: states[name] is S.READY)
        waiting = (name for name in self._order if states[name] is S.WAITING)
        first = failed[: room // 2]
        return list(dict.fromkeys([*first, *active, *failed, *latest, *waiting]))[:room]


def frame(run: DagRun, states: Mapping[str, NodeState], looks: Sequence[JobLook]) -> RenderableType:
    """Draw how far a run is: a line for each of some jobs, and the totals of all."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("JOB", "STATE", box=None, pad_edge=False, header_style="bold", expand=True)
    for title in ("ATTEMPT", "SECONDS"):
        table.add_column(title, justify="right")
    table.add_column("WHY", ratio=1)  # what the others leave
    for column in table.columns:
        column.no_wrap, column.overflow = True, "ellipsis"
    for look in looks:
        cells = (look.job, str(look.state), str(look.attempts or ""), _seconds(look), look.why)
        styles = ("", _STYLES[look.state], "", "", "red" if look.state is S.FAILED else "dim")
        table.add_row(*(Text(_line(cell), style=style) for cell, style in zip(cells, styles, strict=True)))
    hidden = len(states) - len(looks)
    more = [Text(f"... and {hidden:,} more", style="dim")] if hidden else []
    return Group(table, *more, Text(_totals(run, states), style="bold", no_wrap=True, overflow="ellipsis"))


def _totals(run: DagRun, states: Mapping[str, NodeState]) -> str:
    count = Counter(states.values())
    ended = sum(count[state] for state in count if state.is_finished)
    status = "PAUSED" if run.paused and not run.status.is_finished else str(run.status)
    parts = ", ".join(f"{count[state]:,} {state.lower().replace('_', ' ')}" for state in NodeState if count[state])
    took = _between(run.started_at, run.finished_at)
    return f"{status}  " + (f"{took} s  " if took else "") + f"{ended:,} of {len(states):,} jobs ended: {parts}"


def _seconds(look: JobLook) -> str:
    if not look.state.is_finished and look.state is not S.RUNNING:
        return ""
    return _between(look.started_at, look.finished_at)


def _between(start: datetime | None, end: datetime | None) -> str:
    """Write how many seconds something took, or has taken so far."""
    return "" if start is None else f"{max(0.0, ((end or datetime.now(UTC)) - start).total_seconds()):.1f}"


def _line(text: str) -> str:
    """Write a text in one line; what a terminal would obey is escaped."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
