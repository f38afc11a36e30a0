"""JobContext: what a job's function is told of where it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class JobContext:
    """Where a job runs; given to a parameter called `context`.

    Attributes:
        dag: The DAG's name.
        job: The job's name.
        run_id: The run's id.
        number: The job's place in the DAG, from 1; of a mapped job the element's place.
        attempt: Which attempt this is, from 1.
        correlation_id: The run's.
        idempotency_key: For calls to the outside: the same in all attempts of the job, or of the element, in this run.
    """

    dag: str
    job: str
    run_id: Any
    number: int
    attempt: int
    correlation_id: str | None
    idempotency_key: str
