"""The demo's nightly: a DAG over the airports as they are stored now, which reports on the countries they lie in.

Extract, three transforms at the same time, a load that is mapped over the countries, a gate that chooses, a report.
`eventic dag run demo-nightly --app eventic_core.cli._nightly --work --watch` runs it again.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from pydantic import BaseModel

from eventic_core.app import Eventic
from eventic_core.cli._airports import ACTOR, Airport
from eventic_core.jobs import DagRun, Retry, dag, job
from eventic_core.records import Record

RUN: Final = "demo-nightly"
"""The name of the DAG, and the correlation id of the demo's run: there is one in a database."""
_MOST_UNKNOWN_SHARE: Final = 0.01


class Country(Record, class_type="DemoCountry", unique=["code"]):
    """What the nightly knows of a country."""

    code: str
    airports: int
    highest: str


class Nightly(Record, class_type="DemoNightly"):
    """What was published of a night."""

    text: str


class Place(BaseModel):
    """What is taken of an airport."""

    iata: str
    country: str
    elevation: float | None  # feet above sea level


class Share(BaseModel):
    """A country, and how many airports lie in it."""

    code: str
    airports: int


@job(retry=Retry(max_attempts=3, delay_seconds=1))
def extract() -> list[Place]:
    """Read the airports."""
    found = Airport.where().order_by(Airport.fields.iata)
    return [Place.model_validate(one, from_attributes=True) for one in found]


@job
def countries(extract: list[Place]) -> list[Share]:
    """Count the airports of each country."""
    counted = Counter(place.country for place in extract)
    return [Share(code=code, airports=count) for code, count in sorted(counted.items())]


@job
def highest(extract: list[Place]) -> dict[str, str]:
    """Find the highest airport of each country."""
    by_height = sorted(
        extract, key=lambda place: (float("-inf") if place.elevation is None else place.elevation, place.iata)
    )
    return {place.country: place.iata for place in by_height}


@job
def unknown(extract: list[Place]) -> list[str]:
    """List the airports whose elevation nobody knows."""
    return [place.iata for place in extract if place.elevation is None]


@job(map="country", inputs={"country": countries})
def load(country: Share, highest: dict[str, str]) -> str:
    """Store what is known of one country; a country that is stored already gets a new version if it changed."""
    known = Country.where(code=country.code).first()
    if known is None:
        Country(code=country.code, airports=country.airports, highest=highest[country.code])
    else:
        known.update(airports=country.airports, highest=highest[country.code])
    return country.code


@job(branch=True)
def gate(extract: list[Place], unknown: list[str]) -> str:
    """Choose whether the night's data are good enough."""
    return "publish" if len(unknown) <= _MOST_UNKNOWN_SHARE * len(extract) else "hold"


@job(depends_on=["gate"])
def publish(load: list[str], countries: list[Share]) -> str:
    """Publish the night: one record, stored with the job's result."""
    most = max(countries, key=lambda share: share.airports)
    return Nightly(text=f"{len(load)} countries; most airports: {most.code}, {most.airports:,}").text


@job(depends_on=["gate"])
def hold(unknown: list[str]) -> str:
    """Hold the night back."""
    return f"{len(unknown)} elevations are not known"


@job(rule="none_failed")
def report(publish: str | None, hold: str | None) -> str:
    """Say what came of the night."""
    return f"published: {publish}" if publish else f"held back: {hold}"


nightly = dag(RUN, extract, countries, highest, unknown, load, gate, publish, hold, report)


def start() -> None:
    """Start the demo's run, in the transaction of the caller."""
    with Eventic.acting(actor=ACTOR):
        nightly.start(correlation_id=RUN)


def find_run() -> DagRun | None:
    """Read the demo's run, if it has been started in this database."""
    return DagRun.where(correlation_id=RUN).first()
