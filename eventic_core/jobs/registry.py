"""Jobs by name: every function of this process that is declared with `@job`, for what is stored to find it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventic_core.errors import DuplicateRegistration, NotRegistered
from eventic_core.runtime.functions import same_place

if TYPE_CHECKING:
    from eventic_core.jobs.declared_job import DeclaredJob

_jobs: dict[str, list[DeclaredJob[Any, Any]]] = {}


def note(job: DeclaredJob[Any, Any]) -> None:
    """Note a job that is declared; one that is declared again takes the place of the one before."""
    known = _jobs.get(job.name)
    others = [] if known is None else [one for one in known if not same_place(one.function, job.function)]
    _jobs[job.name] = [*others, job]


def find_job(name: str) -> DeclaredJob[Any, Any]:
    """Give the job that is declared under a name.

    Raises:
        NotRegistered: This process has declared none.
        DuplicateRegistration: It has declared two.
    """
    found = _jobs.get(name, ())
    if not found:
        message = f"No job {name!r} is declared in this process: import its module, here and in the worker."
        raise NotRegistered(message)
    if len(found) > 1:
        places = " and ".join(f"{one.function.__module__}.{one.function.__qualname__}" for one in found)
        message = f"{len(found)} jobs are declared as {name!r}: {places}. Give one of them another name."
        raise DuplicateRegistration(message)
    return found[0]
