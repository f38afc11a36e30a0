"""A nightly run over airports: extracted, measured three ways at the same time, stored, judged, reported, announced."""

from __future__ import annotations

from collections import Counter
from typing import Any

import airportsdata
from pydantic import BaseModel

from eventic_core import Eventic, Record
from eventic_core.jobs import DagRun, JobContext, Retry, dag, job


class Row(BaseModel):
    iata: str
    country: str
    elevation: float  # feet


class Country(Record, class_type="NightlyCountry"):
    code: str
    airports: int


class Report(Record, class_type="NightlyReport"):
    text: str


@job(retry={TimeoutError: Retry(max_attempts=3, delay_seconds=0)})
def extract(zone: str, context: JobContext) -> list[Row]:
    if context.attempt == 1:
        message = "the registry is busy"
        raise TimeoutError(message)
    rows = airportsdata.load("IATA").values()
    return [Row.model_validate(row) for row in rows if row["tz"].startswith(zone)]


@job
def countries(extract: list[Row]) -> list[tuple[str, int]]:  # takes the result of the job it names
    return Counter(row.country for row in extract).most_common(3)


@job
def highest(extract: list[Row]) -> Row:
    return max(extract, key=lambda row: row.elevation)


@job
def below_the_sea(extract: list[Row]) -> int:
    return sum(row.elevation < 0 for row in extract)


@job(map="country", inputs={"country": countries})
def store(country: tuple[str, int]) -> str:  # once for each country, on as many workers as there are
    code, airports = country
    return Country(code=code, airports=airports).code


@job(branch=True)
def gate(extract: list[Row], below_the_sea: int) -> str:  # names the job that is followed
    return "publish" if below_the_sea * 300 <= len(extract) else "reject"


@job(depends_on=["gate"])
def publish(countries: list[tuple[str, int]], highest: Row) -> str:
    report = Report(text=f"{countries}; highest {highest.iata}")  # stored once, with the job's result
    return report.text


@job(depends_on=["gate"])
def reject(below_the_sea: int) -> str:
    return f"{below_the_sea} airports below the sea are too many"


@job(rule="none_failed")
def tidy(publish: str | None, reject: str | None) -> str:
    return f"published: {publish}" if publish else f"rejected: {reject}"


@job
def send(text: str) -> str:
    return f"{len(text)} letters"


mailing = dag("mailing", send)


@job
def announce(publish: str) -> DagRun:  # ends when the run of the other DAG has ended
    return mailing.start(text=publish)


nightly = dag("nightly", extract, countries, highest, below_the_sea, store, gate, publish, reject, announce, tidy)


def show(zone: str) -> None:
    run: Any = nightly.start(zone=zone).wait(timeout_seconds=60)
    print(f"{zone}: {run.status}; {run.result('tidy')}")
    print(f"  {run.why('reject') or run.why('publish')}")
    mailed = run.result("announce")
    print(f"  stored {run.result('store')}; sent: {mailed.result('send') if mailed else 'nothing'}")
    attempts = run.job_run("extract")
    print(f"  extract took {attempts.attempt_count} attempts: {[str(v.status) for v in attempts.history()][::-1]}")


def main() -> None:
    Eventic.init(name="dag", log_level="CRITICAL")
    Eventic.launch()  # a worker in this process; in production dbos-runner runs them
    print(" -> ".join(", ".join(layer) for layer in nightly.plan.dag.layers()))
    show("Europe/")
    show("America/")
    print(Report.where().count() > 0, nightly.mermaid().splitlines()[0])
    Eventic.shutdown()


if __name__ == "__main__":
    main()
