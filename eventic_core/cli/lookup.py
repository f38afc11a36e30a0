"""What people name on the command line, found: runs of automations, automations and batches."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from eventic_core.automation.declared import declared, find
from eventic_core.automation.definitions import Automation, Batch
from eventic_core.automation.run import Run
from eventic_core.errors import Conflict, Invalid, NotFound, NotRegistered, RecordNotFound, RunNotFound
from eventic_core.runtime import runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventic_core.automation.declared import DeclaredAutomation

_RUN_ID: Final = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?::[1-9][0-9]*)?", re.IGNORECASE)
"""A run's id, or that of the workflow which is a later attempt of it."""
_CORRECTION_ID: Final = re.compile(r"[0-9a-f-]{36}(?::(?:undo|replay)-[1-9][0-9]*)+")
_LISTED: Final = 10


def find_run(name: str) -> Run:
    """Find a run of an automation by its id, that of an attempt of it, or its correlation id.

    Raises:
        RunNotFound: There is none.
        Invalid: Several have the correlation id; names them, the newest first.
    """
    found = _by_id(name) or _by_correlation_id(name)
    if found is None:
        message = (
            f"There is no run of an automation with the id or the correlation id {name!r} in this database. "
            "`eventic run list --name eventic.automation_run` shows the newest."
        )
        raise RunNotFound(message)
    return found


def find_writer(name: str) -> Run | str:
    """Find a run of an automation as `find_run` does; the id of an undo or a replay of one is passed on as it is."""
    return name if _CORRECTION_ID.fullmatch(name) else find_run(name)


def find_automation_run(name: str) -> Run | None:
    """Find a run by its id, or a run of an automation by its correlation id; `None` for a run of nothing of the kind.

    Raises:
        RunNotFound: There is no run of any kind.
        Invalid: Several have the correlation id.
    """
    if (found := _by_id(name)) is not None:
        return found
    try:
        runs.get_run(name)
    except RunNotFound:
        if (found := _by_correlation_id(name)) is None:
            raise
    return found


def refuse_automation_run(run_id: str, verb: str, remedy: str) -> None:
    """Refuse what can be done to a run, but not to one of an automation.

    Raises:
        Conflict: It is one.
    """
    if (found := _by_id(run_id)) is not None:
        message = f"Run {found.id} is of an automation and cannot be {verb}. {remedy}."
        raise Conflict(message)


def _by_id(name: str) -> Run | None:
    if (match := _RUN_ID.fullmatch(name)) is None:
        return None
    try:
        return Run.hydrate(UUID(match[1]))
    except RecordNotFound:
        return None


def _by_correlation_id(name: str) -> Run | None:
    found = Run.where(Run.fields.correlation_id == name).order_by(-Run.fields.id).limit(_LISTED + 1).all()
    if len(found) > 1:
        listed = ", ".join(str(run.id) for run in found[:_LISTED])
        more = " and more" if len(found) > _LISTED else ""
        message = f"Several runs have the correlation id {name!r}: {listed}{more}. Name one by its id."
        raise Invalid(message)
    return found[0] if found else None


def automation_of(run: Run) -> str:
    """Give the name of a run's automation."""
    stored: Automation = Automation.hydrate(run.automation_id)
    return stored.name


def find_stored_automation(name: str) -> Automation:
    """Find an automation that is stored.

    Raises:
        NotFound: None of the name is; lists those that are.
    """
    found = Automation.where(Automation.fields.name == name).first()
    if found is None:
        known = {automation.name for automation in declared()}
        known |= {automation.name for automation in Automation.where().limit(_LISTED).all()}
        message = (
            f"There is no automation {name!r}. There are: {', '.join(sorted(known)) or 'none'}; --app MODULE or "
            "EVENTIC_APP names the module that declares more."
        )
        raise NotFound(message)
    return found


def find_declared_automation(name: str) -> DeclaredAutomation[Any, Any]:
    """Find an automation that this process has declared.

    Raises:
        NotRegistered: It is stored only.
        NotFound: It is not stored either.
    """
    try:
        return find(name)
    except NotRegistered as error:
        find_stored_automation(name)
        message = (
            f"Automation {name!r} is stored, but not declared in this process: name the module that declares it with "
            "--app MODULE or EVENTIC_APP."
        )
        raise NotRegistered(message) from error


def find_batches(automation: str, names: Sequence[str]) -> list[Batch]:
    """Find batches of an automation, each by its name or its id; an automation that is not stored yet has none.

    Raises:
        NotFound: It has none of that name or id; lists the newest of those that it has.
    """
    stored = Automation.where(Automation.fields.name == automation).first()
    return [_find_batch(automation, stored, name) for name in names]


def _find_batch(automation: str, stored: Automation | None, name: str) -> Batch:
    fields, newest = Batch.fields, []
    if stored is not None:
        of_it = fields.automation_id == stored.id
        found = Batch.where(of_it, fields.name == name).first()
        if found is None and (match := _RUN_ID.fullmatch(name)) is not None:
            found = Batch.where(of_it, fields.id == UUID(match[1])).first()
        if found is not None:
            return found
        newest = Batch.where(of_it).order_by(-fields.id).limit(_LISTED).all()
    names = ", ".join(repr(batch.name) for batch in newest)
    message = f"Automation {automation!r} has no batch {name!r}. Its newest are: {names or 'none'}."
    raise NotFound(message)
