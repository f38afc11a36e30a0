"""The demo's run: the nearest neighbour of each airport, as an automation over a batch of all of them.

Two airports at one place are one with two codes, or a mistake in the data: those items fail, and are reported.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic import BaseModel

from eventic_core.automation import Batch, Run, Skip, automation
from eventic_core.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

BATCH: Final = "airports"
RUN: Final = "demo-neighbours"
"""The correlation id of the run: there is one in a database."""
_EARTH_KM: Final = 6371


class Neighbour(Record, class_type="DemoNeighbour"):
    """The airport next to another one, in the same country."""

    iata: str
    nearest: str
    km: float


class Place(BaseModel):
    """What the items of the batch are: where an airport lies."""

    iata: str
    country: str
    lat: float
    lon: float


@automation("demo-neighbours", item_schema=Place, tolerated_failures="1%")
def find_neighbour(place: Place) -> float | Skip:
    """Find the nearest airport of the country; the record and the item's result are stored together, once."""
    others = [other for other in _airports_of(place.country) if other.iata != place.iata]
    if not others:
        return Skip("the only airport of its country")
    x, y, z = _direction(place.lat, place.lon)
    cosine, nearest = max((x * other.x + y * other.y + z * other.z, other.iata) for other in others)
    km = round(_EARTH_KM * math.acos(min(cosine, 1.0)), 1)
    if km == 0:
        message = f"it is where {nearest!r} is"
        raise ValueError(message)
    Neighbour(iata=place.iata, nearest=nearest, km=km)
    return km


def load(rows: Iterable[object]) -> UUID:
    """Load the batch of all airports, in the transaction of the caller."""
    return find_neighbour.batch(BATCH, rows).id


def start(batch_id: UUID) -> None:
    """Start the run over the batch, in the transaction of the caller."""
    find_neighbour.start(Batch.hydrate(batch_id), correlation_id=RUN)


def find_run() -> Run | None:
    """Read the run, if it has been started in this database."""
    return Run.where(correlation_id=RUN).first()


class _Direction(NamedTuple):
    iata: str
    x: float
    y: float
    z: float


def _direction(lat: float, lon: float) -> tuple[float, float, float]:
    north, east = math.radians(lat), math.radians(lon)
    return math.cos(north) * math.cos(east), math.cos(north) * math.sin(east), math.sin(north)


@functools.cache
def _directions() -> dict[str, list[_Direction]]:
    from eventic_core.cli._airports import read_source

    found: defaultdict[str, list[_Direction]] = defaultdict(list)
    for row in read_source().rows:
        found[row["country"]].append(_Direction(row["iata"], *_direction(row["lat"], row["lon"])))
    return found


def _airports_of(country: str) -> list[_Direction]:
    return _directions()[country]
