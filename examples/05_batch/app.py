"""A correction of 3,500 airports as a run over a batch: retried, reported, done again, replayed, undone."""

from __future__ import annotations

from uuid import UUID, uuid4

import airportsdata
from pydantic import BaseModel, Field

from eventic_core import Eventic, Record
from eventic_core.automation import ItemContext, Retry, Skip, automation

lessons: set[str] = set()  # what we learn on the way; in real life the code below changes


class Airport(Record, class_type="SurveyedAirport"):
    survey: str
    iata: str
    name: str
    subd: str
    elevation: float  # feet
    metres: int | None = None


class Row(BaseModel):  # what an item must be; other fields of a row are left out
    id: UUID
    name: str
    subd: str = Field(min_length=1)
    elevation: float


@automation(
    "feet-to-metres",
    item_schema=Row,
    retry={TimeoutError: Retry(max_attempts=3, delay_seconds=0)},  # other errors are not tried again
    tolerated_failures="1%",
)
def to_metres(row: Row, context: ItemContext) -> int | Skip:
    if context.number % 100 == 0 and context.attempt == 1:
        message = f"the survey office is busy with item {context.number}"
        raise TimeoutError(message)
    if row.elevation < 0 and "below the sea" not in lessons:
        message = f"{row.elevation} ft is below the sea"
        raise ValueError(message)
    if "Seaplane" in row.name and "seaplanes" in lessons:
        return Skip("what lies on the water has no height of its own")
    airport = Airport.hydrate(row.id)
    airport.metres = round(row.elevation * 0.3048)  # a version, stored once, with the status of the item
    return airport.metres


def rows() -> list[dict[str, object]]:
    airports = [row for row in airportsdata.load("IATA").values() if row["tz"].startswith("America/")]
    return [{key: value for key, value in row.items() if key in Airport.model_fields} for row in airports]


def main() -> None:
    Eventic.init(name="batch", log_level="CRITICAL")
    Eventic.launch()  # a worker in this process; in production dbos-runner runs them

    survey = f"survey {uuid4()}"  # an automation has one batch of a name
    Airport.create_many({"survey": survey, **row} for row in rows())
    stored = Airport.where(survey=survey).order_by(Airport.fields.iata)
    loaded = to_metres.load(survey, stored, bad_rows="set aside")
    bad = loaded.bad_rows[0]
    print(f"{loaded.count:,} items; {loaded.bad_count} rows set aside, first row {bad.number}: {bad.errors[0]}")

    run = to_metres.start(loaded.batch, correlation_id=survey)
    run.wait(timeout_seconds=50)  # progress=True shows a bar
    report = run.report()
    print(f"{run.status}: {report.statuses['COMPLETED']:,} done; items by attempts: {report.attempts}")
    for error in report.errors:
        print(f"  {error.count} x {error.error_type}: {error.message}; items {error.sample_numbers}")
    failed = report.errors[0].first_number

    lessons.add("below the sea")
    again = run.redrive(error_type="ValueError")  # the same run, its second attempt
    run.wait(timeout_seconds=50)
    print(f"redriven: {again} done again, {run.progress().failed} failed")

    (change,) = run.changes(record_class=Airport, item_number=failed)
    values = [f"{part.field} {part.before} -> {part.after}" for part in change.diff.changes]
    print(f"item {change.item_number}, attempt {change.attempt} of the run: version {change.version}, {values[0]}")

    lessons.add("seaplanes")
    replayed = run.replay(numbers=range(1, 501))  # on the data as it was; stores nothing
    print(replayed)
    for item in replayed:
        fields = ", ".join(f"{part.field} {part.before} -> {part.after}" for part in item.fields)
        print(f"  item {item.numbers[0]}: {fields}")

    stored.limit(1).all()[0].name = "Named by hand"  # somebody works on
    print("dry run:", counts(run.undo(dry_run=True)))
    undone = run.undo()
    print("undone: ", counts(undone))
    print(f"left alone, for somebody has since changed: {undone.conflicts[0].touches[0].fields}")
    print(f"{stored.where(metres=None).count():,} airports without metres again")

    Eventic.shutdown()


def counts(undone: object) -> str:
    return str(undone).partition(": ")[2]  # without its id


if __name__ == "__main__":
    main()
