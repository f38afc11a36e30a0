"""The demo's records and its job: load the world's IATA airports, correct what is wrong in them, and report.

The job is a durable workflow, and a handler notes each correction in a record of its own. In the end it starts the
run of `_neighbours` and the nightly of `_nightly`. Prints nothing.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from eventic_core.app import Eventic
from eventic_core.cli import _neighbours
from eventic_core.errors import ConfigurationError, DuplicateKey
from eventic_core.records import Record
from eventic_core.runtime import Handle, on

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from uuid import UUID

PACKAGE: Final = "airportsdata"
ACTOR: Final = "demo"
ROWS_AT_ONCE: Final = 1000
CORRECTIONS_AT_ONCE: Final = 100
RUN: Final = "demo-airports"
"""The id of the job's run: there is one in a database, however often the demo is started."""
_POLL_SECONDS: Final = 0.1

_DISTRICTS: Final = {
    "ACT": "Australian Capital Territory",
    "ARMM": "Autonomous Region in Muslim Mindanao",
    "FATA": "Federally Administered Tribal Areas",
    "FCT": "Federal Capital Territory",
    "SNNPR": "Southern Nations, Nationalities, and Peoples' Region",
}
_LOST_LETTERS: Final = {"L?liang": "Lüliang", "C?bano": "Cóbano"}
_ABOVE_SEA: Final = frozenset({"CH", "ET", "MN", "SK", "UG", "UZ"})  # landlocked, with an airport at "0 ft"


class Airport(Record, class_type="DemoAirport", unique=["iata"]):
    """An airport with an IATA code; the fields are the columns of the data set."""

    iata: str
    icao: str
    name: str
    city: str
    subd: str
    country: str
    elevation: float | None  # feet above sea level
    lat: float
    lon: float
    tz: str
    lid: str

    def rename(self, name: str) -> None:
        """Give it another name, with single spaces."""
        self.name = " ".join(name.split())


class Progress(Record, class_type="DemoProgress", unique=["job"]):
    """How far the job is, for those who watch; the job itself knows from its steps."""

    job: str
    source: str
    rows: int
    rows_loaded: int = 0
    corrections: int
    corrections_done: int = 0
    notes: int = 0

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.rows_loaded == self.rows and 0 < self.corrections_done == self.corrections <= self.notes


class Note(Record, class_type="DemoNote"):
    """What a correction changed, written by a handler after the correction had committed."""

    iata: str
    number: int  # the version of the airport that the correction is
    changed: list[str]
    reason: str | None


@on.update(Airport, name="demo.note")
def note(airport: Airport) -> None:
    """Note a correction; runs on a worker, once for each version of an airport after the first."""
    changes = airport.diff(airport.version - 1).changes
    changed = [change.field for change in changes]
    Note(iata=airport.iata, number=airport.version, changed=changed, reason=airport.stamp.reason)


# The corrections. Each looks at the airport as it is and leaves a correct one alone, so it may be done again.


def _round_elevation(airport: Airport) -> None:
    if airport.elevation is not None:
        airport.elevation = round(airport.elevation)  # a bare assignment is a version, unless nothing changed


def _tidy_name(airport: Airport) -> None:
    airport.rename(_tidy(airport.name))  # a public method is a version, with its name as the reason


def _tidy(name: str) -> str:
    name = re.sub(r"\bAirport Airport$", "Airport", name.rstrip("."))
    return " ".join(re.sub(r"\bIntl$", "International Airport", name).split())


def _forget_zero(airport: Airport) -> None:
    if airport.elevation == 0:
        with airport.edit(reason="0 ft in a landlocked country means unknown"):
            airport.elevation = None


def _spell_out(airport: Airport) -> None:
    if airport.subd in _DISTRICTS:
        with airport.edit(reason="district spelled out"):  # what a block changes is one version
            airport.properties.add(subd_code=airport.subd)
            airport.subd = _DISTRICTS[airport.subd]


def _put_letters_back(airport: Airport) -> None:
    with airport.edit(reason="lost letter put back"):
        for lost, right in _LOST_LETTERS.items():
            airport.name = airport.name.replace(lost, right)
            airport.city = airport.city.replace(lost, right)


def _split_name(airport: Airport) -> None:
    parts = airport.name.split("/")
    if _is_threefold(airport.name, airport.city):
        with airport.edit(reason="city and field taken out of the name"):
            airport.properties.add(field=parts[2])
            airport.name = f"{parts[1]} Airport"


def _is_threefold(name: str, city: str) -> bool:
    parts = name.split("/")
    return len(parts) == 3 and parts[0] == city and parts[1].endswith(("Regional", "International", "County"))  # noqa: PLR2004


@dataclass(frozen=True, slots=True)
class Correction:
    """One kind of correction: the rows of the data set that need it, and what is done to their records."""

    needed: Callable[[Mapping[str, Any]], bool]
    apply: Callable[[Airport], None]
    reason: str | None = None  # of the versions, where the correction itself gives none


_KINDS: Final = (
    Correction(lambda row: row["elevation"] % 1 != 0, _round_elevation, "elevation in whole feet"),
    Correction(lambda row: row["name"] != _tidy(row["name"]), _tidy_name),
    Correction(lambda row: row["elevation"] == 0 and row["country"] in _ABOVE_SEA, _forget_zero),
    Correction(lambda row: row["subd"] in _DISTRICTS, _spell_out),
    Correction(lambda row: any(lost in row["city"] for lost in _LOST_LETTERS), _put_letters_back),
    Correction(lambda row: _is_threefold(row["name"], row["city"]), _split_name),
)


@dataclass(frozen=True, slots=True)
class Source:
    """The data set: its rows in order, and the corrections they need, as `(iata, kind)` in order."""

    version: str
    rows: Sequence[Mapping[str, Any]]
    corrections: Sequence[tuple[str, Correction]]

    @property
    def label(self) -> str:
        """The package and its version."""
        return f"{PACKAGE} {self.version}"


@functools.cache
def read_source() -> Source:
    """Read the airports from their package.

    Raises:
        ConfigurationError: The package is not installed.
    """
    try:
        package = importlib.import_module(PACKAGE)
    except ImportError:
        raise ConfigurationError(
            f"The airports of the demo are not here: the package {PACKAGE} is not installed. "
            'Run pip install "eventic-core[embedded]".'
        ) from None
    rows = list(package.load("IATA").values())
    corrections = [(row["iata"], kind) for kind in _KINDS for row in rows if kind.needed(row)]
    return Source(importlib.metadata.version(PACKAGE), rows, corrections)


def find_progress(source: Source) -> Progress:
    """Read how far the job is in this database, or begin it.

    Raises:
        ConfigurationError: It was begun with another version of the data set and is not finished.
    """
    found = Progress.where(job="airports").first()
    if found is None:
        rows, corrections = len(source.rows), len(source.corrections)
        try:
            with Eventic.acting(actor=ACTOR, reason="begin"):
                return Progress(job="airports", source=source.label, rows=rows, corrections=corrections)
        except DuplicateKey:  # another start of the demo was faster
            return find_progress(source)
    if found.source != source.label and not found.finished:
        raise ConfigurationError(
            f"The demo was begun here with {found.source}, but {source.label} is installed. "
            f"Run pip install {found.source.replace(' ', '==')}, or use another database."
        )
    return found


@Eventic.transaction(name="demo.load")
def load_chunk(progress_id: UUID) -> bool:
    """Store a record for each of the next rows; the rows and the progress over them are one transaction."""
    progress = Progress.hydrate(progress_id)
    chunk = read_source().rows[progress.rows_loaded : progress.rows_loaded + ROWS_AT_ONCE]
    progress.rows_loaded += len(chunk)
    Airport.create_many(chunk)
    return progress.rows_loaded < progress.rows


@Eventic.step(name="demo.count-notes")
def count_notes(expected: int) -> int:
    """Wait until the handler has noted every correction; a step, because what it finds depends on when it looks."""
    while (found := Note.where().count()) < expected:
        time.sleep(_POLL_SECONDS)
    return found


@Eventic.transaction(name="demo.load-batch")
def load_batch() -> UUID:
    """Make a batch of all airports as they are now; once, as every transaction that is a step of a workflow."""
    return _neighbours.load(Airport.where().order_by(Airport.fields.iata))


@Eventic.transaction(name="demo.start-run")
def start_run(batch_id: UUID) -> None:
    """Start the run over the batch, and the first nightly."""
    from eventic_core.cli import _nightly

    _neighbours.start(batch_id)
    _nightly.start()


@Eventic.workflow(name="demo.airports")
def tidy_airports(progress_id: UUID) -> str:
    """Load, correct and report. Killed at any moment and started again it goes on where it was, and does nothing twice.

    Each chunk of rows is a step, each correction a version of its own and a step.
    """
    source = read_source()
    with Eventic.acting(actor=ACTOR, reason="import", correlation_id=source.label):
        while load_chunk(progress_id):
            pass
    for done in range(0, len(source.corrections), CORRECTIONS_AT_ONCE):
        batch = source.corrections[done : done + CORRECTIONS_AT_ONCE]
        airports = {a.iata: a for a in Airport.where(Airport.fields.iata.in_({iata for iata, _ in batch}))}
        for iata, kind in batch:
            with Eventic.acting(actor=ACTOR, reason=kind.reason, correlation_id=source.label):
                kind.apply(airports[iata])
        with Eventic.acting(actor=ACTOR, reason="corrections", correlation_id=source.label):
            Progress.hydrate(progress_id).corrections_done = done + len(batch)
    notes = count_notes(len(source.corrections))
    with Eventic.acting(actor=ACTOR):
        start_run(load_batch())
    with Eventic.acting(actor=ACTOR, reason="report", correlation_id=source.label):
        Progress.hydrate(progress_id).notes = notes
    return f"{len(source.rows):,} airports, {len(source.corrections):,} corrections, {notes:,} notes"


def start(progress: Progress) -> Handle[str]:
    """Start the job, or find the run that somebody started before."""
    return Eventic.queue("demo").enqueue(tidy_airports, progress.id, run_id=RUN)
