"""The demo's records and its job: load the world's IATA airports, then correct what is wrong in them.

Owns how the job goes on where it stopped. Prints nothing; whoever runs the job is told how far it is.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from eventic_core.app import Eventic
from eventic_core.errors import ConfigurationError, DuplicateKey, VersionConflict
from eventic_core.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

PACKAGE: Final = "airportsdata"
ACTOR: Final = "demo"
ROWS_AT_ONCE: Final = 1000
CORRECTIONS_AT_ONCE: Final = 100

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
    """How far the job is; each step is written in the transaction of the rows it counts, or after them."""

    job: str
    source: str
    rows: int
    rows_loaded: int = 0
    corrections: int
    corrections_done: int = 0

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return (self.rows_loaded, self.corrections_done) == (self.rows, self.corrections)


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


@contextlib.contextmanager
def _refreshed_if_overtaken(progress: Progress) -> Iterator[None]:
    """Let two demos at work on one database share it: who comes second looks again at what is left."""
    try:
        yield
    except VersionConflict:
        progress.refresh()


def load(source: Source, progress: Progress, report: Callable[[int], None]) -> None:
    """Store a record for each row; a chunk and the progress over it are one transaction.

    Killed at any moment, it has stored whole chunks, and progress says how many.
    """
    with Eventic.acting(actor=ACTOR, reason="import", correlation_id=source.label):
        while (done := progress.rows_loaded) < progress.rows:
            chunk = source.rows[done : done + ROWS_AT_ONCE]
            with _refreshed_if_overtaken(progress), Eventic.unit_of_work():
                progress.rows_loaded = done + len(chunk)
                Airport.create_many(chunk)
            report(progress.rows_loaded)


def correct(source: Source, progress: Progress, report: Callable[[int], None]) -> None:
    """Do the corrections, each a version of its own; progress follows after every hundred.

    Killed at any moment, it does some of those hundred again, which changes nothing.
    """
    while (done := progress.corrections_done) < progress.corrections:
        batch = source.corrections[done : done + CORRECTIONS_AT_ONCE]
        with _refreshed_if_overtaken(progress):
            airports = {a.iata: a for a in Airport.where(Airport.fields.iata.in_({iata for iata, _ in batch}))}
            for iata, kind in batch:
                with Eventic.acting(actor=ACTOR, reason=kind.reason, correlation_id=source.label):
                    kind.apply(airports[iata])
            with Eventic.acting(actor=ACTOR, reason="corrections", correlation_id=source.label):
                progress.corrections_done = done + len(batch)
        report(progress.corrections_done)
