"""`eventic demo`: the world's airports loaded, corrected and measured, then one looked at from every side.

Owns the options and what is printed. The records and the workflow are in `_airports`, the run over a batch is in
`_neighbours`, the DAG in `_nightly`; they are imported when the command runs.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eventic_core.automation.terminal import progress_bar
from eventic_core.cli.options import database_option
from eventic_core.cli.output import print_columns
from eventic_core.settings import EMBEDDED, libpq_url, safe_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from eventic_core.cli._airports import Airport, Progress
    from eventic_core.runtime import Handle

SHOWN = "BFF"  # the airport with every kind of correction
COUNTRY = "CN"

_POLL_SECONDS = 0.1


@click.command()
@database_option
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the embedded Postgres keeps its data.  [default: .eventic]",
)
def demo(database_url: str | None, directory: Path | None) -> None:
    """Load the airports of the world as records, correct them, find their neighbours, and show the history of one.

    A durable workflow loads and corrects, a handler notes each correction, a run over a batch finds the nearest
    neighbour of each airport, and a DAG of jobs, the nightly, reports on their countries. The data come with the
    package airportsdata. Stop it whenever you like, even with kill -9: the next start goes on where this one was, and
    nothing is done twice. When all is done, a start only shows the result.
    """
    from eventic_core.app import Eventic
    from eventic_core.cli import _airports

    source = _airports.read_source()
    Eventic.init(name="eventic-demo", database_url=database_url, embedded_directory=directory)
    try:
        click.echo(f"Data: {_location()}", err=True)
        progress = _airports.find_progress(source)
        _work(progress)
        _show(progress)
    finally:
        Eventic.shutdown()


def _location() -> str:
    from eventic_core.app import Eventic

    url = Eventic.settings().database_url
    named = url.get_secret_value() if url else EMBEDDED
    return Eventic.location() if named == EMBEDDED else f"{safe_url(libpq_url(named))}, {Eventic.location()}"


def _work(progress: Progress) -> None:
    from eventic_core.app import Eventic
    from eventic_core.cli import _airports, _neighbours, _nightly

    runs = [_neighbours.find_run(), _nightly.find_run()]
    if progress.finished and all(run is None or run.status.is_finished for run in runs):
        click.echo("Everything is there already.", err=True)
        return
    Eventic.launch()
    handle = _airports.start(progress)
    click.echo(f"Run {handle.id}: kill it whenever you like, the next start goes on.", err=True)
    start = time.monotonic()
    for label, count, total in (
        ("airports loaded", lambda: progress.rows_loaded, progress.rows),
        ("corrections done", lambda: progress.corrections_done, progress.corrections),
        ("corrections noted by the handler", lambda: _airports.Note.where().count(), progress.corrections),
    ):
        _watch(progress, handle, label, count, total)
    click.echo(f"{handle.result()} in {time.monotonic() - start:.1f} s", err=True)
    run = _neighbours.find_run()
    if run is not None:
        click.echo(f"Run {run.id}: the nearest neighbour of each airport, as a batch of items.", err=True)
        run.wait(progress=True)
    night = _nightly.find_run()
    if night is not None:
        click.echo(f"Run {night.id}: the nightly, a DAG of jobs.", err=True)
        night.wait()


def _watch(progress: Progress, handle: Handle[str], label: str, count: Callable[[], int], total: int) -> None:
    """Show how far the run is with one thing until that is complete, or the run has ended."""
    if (done := count()) == total:
        return
    with progress_bar(total, label) as bar:
        bar.update(done)
        while done < total and handle.status() in ("ENQUEUED", "PENDING"):
            time.sleep(_POLL_SECONDS)
            progress.refresh()
            if count() != done:
                done = count()
                bar.update(done)


# The result, on stdout: the same whenever all is done.


def _show(progress: Progress) -> None:
    from eventic_core.cli._airports import Airport

    airport = Airport.where(iata=SHOWN).first()
    if airport is None:
        click.echo(f"{SHOWN}, the airport this demo shows, was deleted.", err=True)
    else:
        _show_airport(airport)
    field = Airport.fields
    _show_run()
    _show_nightly()
    highest = Airport.where(country=COUNTRY).order_by(-field.elevation).limit(5)
    _section(f"The highest airports of {COUNTRY}: Airport.where(country={COUNTRY!r}).order_by(-elevation).limit(5)")
    _table((f"{found.elevation:,.0f} ft", found.iata, found.name, found.subd) for found in highest)
    records = versions = 0
    for stored in Airport.stream():
        records, versions = records + 1, versions + stored.version + 1
    _section("Where the data lie")
    click.echo(f"  {_location()}")
    click.echo(f"  {records:,} airports in {versions:,} versions, from {progress.source}")


def _show_airport(airport: Airport) -> None:
    history = airport.history()
    click.echo(f"{airport.iata}  {airport.name}, {airport.city}, {airport.subd}, {airport.country}")
    _section("History: airport.history()")
    header = ("version", "when", "actor", "reason", "changed")
    _table([header, *((past.version, *_stamp(past), _changed(past)) for past in history)])
    _section(f"Differences: airport.diff(0, {airport.version})")
    _table((c.field, _plain(c.before), "->", _plain(c.after)) for c in airport.diff(0, airport.version).changes)
    if airport.version > 0:
        _show_before(airport)
    _show_notes(airport)
    _section("Who set each value: airport.blame()")
    blame = sorted(airport.blame().items(), key=lambda item: (-item[1].version, item[0]))
    _table((name, _plain(set_by.value), f"version {set_by.version}", set_by.reason) for name, set_by in blame)


def _show_notes(airport: Airport) -> None:
    from eventic_core.cli._airports import Note

    _section("What a handler noted of each correction, later, once: @on.update(Airport)")
    notes = Note.where(iata=airport.iata).order_by(Note.fields.number).all()
    _table((f"version {found.number}", ", ".join(found.changed), found.stamp.workflow_id) for found in notes)
    _section(f"The step of run {airport.stamp.workflow_id} that wrote each version: airport.stamp")
    history = reversed(airport.history())
    _table((f"version {past.version}", f"step {past.stamp.step_id}", past.stamp.reason) for past in history)


def _show_run() -> None:
    from eventic_core.cli._neighbours import Neighbour, find_run

    run = find_run()
    if run is None:
        return
    report = run.report()
    _section(f"What came of the run over {report.total:,} items: run.report()")
    _table((f"{count:,}", status) for status, count in report.statuses.items() if count)
    _table(
        (f"{error.count} x {error.error_type}: {error.message}, items {error.sample_numbers}",)
        for error in report.errors
    )
    near = Neighbour.where(iata=SHOWN).first()
    if near is not None:
        _section(
            f"The version that item {near.stamp.step_id} of the run wrote: Neighbour.where(iata={SHOWN!r}).first()"
        )
        _table(((near.iata, near.nearest, f"{near.km} km", near.stamp.reason),))


def _show_nightly() -> None:
    from eventic_core.cli._nightly import Country, find_run

    run = find_run()
    if run is None:
        return
    _section(f"What came of the nightly DAG: {run.dag}, {run.status}")
    _table((name, str(state), run.why(name)) for name, state in run.states().items())
    found = Country.where(code=COUNTRY).first()
    if found is not None:
        _table(((found.code, f"{found.airports:,} airports", f"highest {found.highest}", found.stamp.reason),))
        click.echo(f"  {run.result('report')}")


def _show_before(airport: Airport) -> None:
    moment = airport.stamp.recorded_at - timedelta(microseconds=1)
    before = type(airport).as_of(moment).hydrate(airport.id)
    _section(f"Just before the last change: Airport.as_of({_moment(moment)}).hydrate(airport.id)")
    _table((("version", before.version), ("name", before.name), ("elevation", _plain(before.elevation))))


def _stamp(airport: Airport) -> tuple[str, str | None, str | None]:
    stamp = airport.stamp
    return _moment(stamp.recorded_at), stamp.actor, stamp.reason


def _changed(airport: Airport) -> str:
    if airport.version == 0:
        return "everything"
    if airport.deleted:
        return "deleted"
    return ", ".join(change.field for change in airport.diff(airport.version - 1).changes)


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _plain(value: Any) -> str:
    from eventic_core.records import ABSENT

    return "(absent)" if value is ABSENT else str(value)


def _section(title: str) -> None:
    click.echo(f"\n{title}")


def _table(rows: Iterator[Sequence[Any]] | Sequence[Sequence[Any]]) -> None:
    print_columns((), rows, indent=2)
