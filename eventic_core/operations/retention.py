"""Retention: what is kept for how long. Rules as records, what they would remove, and their application in batches.

Owns the rules. What a batch of each kind removes is in `sweeps`; what must stay whatever a rule says, in `store`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field, field_validator, model_validator

from eventic_core.automation.status import ExecutionStatus
from eventic_core.errors import Conflict, Invalid, NotFound
from eventic_core.operations.acts import OperatorAct, act_of, record_act
from eventic_core.records import Record, acting
from eventic_core.records.blocking import refuse_in_loop
from eventic_core.records.editing import edit_scope

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

BATCH_ROWS: Final = 1000
BOUND: Final = 10_000
"""A plan counts exactly up to here."""
WORKFLOW_ENDS: Final = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
RUN_ENDS: Final = tuple(str(status) for status in ExecutionStatus if status.is_finished)
_AGE: Final = re.compile(r"([1-9][0-9]{0,8})([smhdwy])")
_UNIT_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_LONGEST_SECONDS: Final = 1000 * 31_536_000


class What(StrEnum):
    """What a rule removes."""

    WORKFLOWS = "workflows"
    """Ended runs of workflows, handlers and calls, with all that they started."""
    RUNS = "runs"
    """Ended runs of automations and DAGs, with their items' and jobs' part in them."""
    HISTORY = "history"
    """Versions of records that others followed; the current one stays."""
    TOMBSTONES = "tombstones"
    """Deleted records, with all their versions."""


_ENDS: Final = {What.WORKFLOWS: WORKFLOW_ENDS, What.RUNS: RUN_ENDS}


class RetentionRule(Record, unique=["name"]):
    """A rule; its versions say who changed it, when and why.

    Attributes:
        name: What people call it.
        what: What it removes.
        of: Only of the workflow, of the automation or DAG, or of the record class with this name; `None` is all.
        statuses: Of runs, only those that ended so; none is any.
        older_than_seconds: For how long it has been so: since a run ended, a version was followed, a record deleted.
    """

    name: str = Field(min_length=1, max_length=200)
    what: What
    of: str | None = None
    statuses: tuple[str, ...] = ()
    older_than_seconds: int = Field(ge=1, le=_LONGEST_SECONDS)

    @field_validator("statuses", mode="before")
    @classmethod
    def _in_capitals(cls, value: object) -> object:
        return tuple(str(one).upper() for one in value) if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _ends(self) -> Self:
        known = _ENDS.get(self.what, ())
        unknown = [status for status in self.statuses if status not in known]
        if unknown:
            may = f"Those of {self.what} are {', '.join(known)}" if known else f"A rule for {self.what} has none"
            message = f"{unknown[0]!r} is no end of what the rule removes. {may}."
            raise ValueError(message)
        return self

    @property
    def ends(self) -> Sequence[str]:
        """How a run may have ended."""
        return self.statuses or _ENDS.get(self.what, ())


@dataclass(frozen=True, slots=True)
class Planned:
    """What a rule would remove now.

    Attributes:
        count: Runs with those they started, versions, or records; see `is_more`.
        is_more: Whether there are more than were counted.
        held_by: A run that has been unfinished for longer than the rule's age, which keeps versions that were current
            since it began.
    """

    rule: RetentionRule
    count: int
    is_more: bool
    held_by: str | None


@dataclass(frozen=True, slots=True)
class Applied:
    """What a rule has removed.

    Attributes:
        count: Runs with those they started, versions, or records.
        rows: Rows of the tables of runs and versions.
    """

    rule: RetentionRule
    count: int
    rows: int


def parse_age(text: str) -> int:
    """Read an age, as `30d`: s, m, h, d, w, or y of 365 days; gives seconds.

    Raises:
        Invalid: It is none, or above a thousand years.
    """
    match = _AGE.fullmatch(text.strip())
    if match is None or (seconds := int(match[1]) * _UNIT_SECONDS[match[2]]) > _LONGEST_SECONDS:
        message = f"{text!r} is no age. Write a number and a unit, s, m, h, d, w or y: 30d."
        raise Invalid(message)
    return seconds


def rules(names: Sequence[str] = ()) -> list[RetentionRule]:
    """List the rules by name, or those named.

    Raises:
        NotFound: One is not there.
    """
    found = {rule.name: rule for rule in RetentionRule.where().order_by(RetentionRule.fields.name).all()}
    missing = [name for name in names if name not in found]
    if missing:
        message = f"There is no retention rule {missing[0]!r}. There are: {', '.join(found) or 'none'}."
        raise NotFound(message)
    return [found[name] for name in dict.fromkeys(names)] if names else list(found.values())


def set_rule(
    name: str,
    what: What | str,
    *,
    older_than_seconds: int,
    of: str | None = None,
    statuses: Sequence[str] = (),
    reason: str | None = None,
) -> RetentionRule:
    """Make a rule, or change the one of the name; one that is so already gets no version. Nothing is removed.

    Raises:
        InvalidRecord: The values make no rule.
    """
    values: dict[str, Any] = {"what": what, "of": of, "statuses": tuple(statuses)}
    values["older_than_seconds"] = older_than_seconds
    with edit_scope(), acting(reason=reason or "retention.rule"):
        rule: RetentionRule | None = RetentionRule.where(RetentionRule.fields.name == name).first()
        if rule is None:
            rule = RetentionRule(name=name, **values)
        else:
            before = rule.version, rule.model_dump()
            rule.update(**values)
            if before[1] == rule.model_dump():
                return rule
        record_act("retention.rule", name, reason=reason, what=str(rule.what), of=of, seconds=older_than_seconds)
        return rule


def drop_rule(name: str, *, reason: str | None = None) -> None:
    """Delete a rule; its versions stay.

    Raises:
        NotFound: There is none of the name.
    """
    with edit_scope():
        (rule,) = rules([name])
        rule.delete(reason=reason or "retention.drop_rule")
        record_act("retention.drop_rule", name, reason=reason)


def plan(chosen: Sequence[RetentionRule]) -> list[Planned]:
    """Count what rules would remove now, each by itself; takes no locks. A draft of a rule may be planned too."""
    from eventic_core.operations.sweeps import sweep_of

    refuse_in_loop("retention.plan()", "asyncio.to_thread(plan, ...)")
    found = []
    for rule in chosen:
        sweep = sweep_of(rule, _cutoff(rule))
        count = sweep.count(BOUND + 1)
        found.append(Planned(rule, min(count, BOUND), count > BOUND, sweep.held_by))
    return found


def apply(
    rule: RetentionRule, *, batch_rows: int = BATCH_ROWS, reason: str | None = None, request_key: str | None = None
) -> Applied:
    """Remove what a rule says, in batches, each a transaction with its share of the one act on record.

    May be ended at any moment and called again, and be called by several processes at once: their batches follow each
    other. What is removed is as of the call: what becomes old enough meanwhile is for the next one.

    Args:
        rule: The rule, as it is.
        batch_rows: About how many rows one transaction removes.
        reason: Why; stamped on the act.
        request_key: With a key that was given before, the act goes on where it was ended, or tells what it did.

    Raises:
        Invalid: `batch_rows` is below 1.
        Conflict: The key was given for something else.
    """
    from eventic_core.operations.sweeps import sweep_of

    refuse_in_loop("retention.apply()", "asyncio.to_thread(apply, ...)")
    if batch_rows < 1:
        message = f"batch_rows={batch_rows}: a batch removes at least one row."
        raise Invalid(message)
    act = _earlier(rule, request_key)
    if act is not None and act.details.get("finished"):
        return _applied(rule, act)
    sweep = sweep_of(rule, _cutoff(rule))
    is_going_on = True
    while is_going_on:
        with edit_scope():
            done = sweep.batch(batch_rows)
            is_going_on = done.is_going_on
            if act is None and (done.rows or request_key is not None):
                values = {"what": str(rule.what), "of": rule.of, "older_than_seconds": rule.older_than_seconds}
                act = record_act("retention.apply", rule.name, reason=reason, request_key=request_key, **values)
            if act is not None:
                so_far = _applied(rule, act)
                moved = {"count": so_far.count + done.count, "rows": so_far.rows + done.rows}
                act.details = {**act.details, **moved, "finished": not is_going_on}
    return Applied(rule, 0, 0) if act is None else _applied(rule, act)


def _cutoff(rule: RetentionRule) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=rule.older_than_seconds)


def _earlier(rule: RetentionRule, request_key: str | None) -> OperatorAct | None:
    act = None if request_key is None else act_of(request_key)
    if act is not None and (act.act, act.target) != ("retention.apply", rule.name):
        message = f"The request key {request_key!r} was given for {act.act} of {act.target}. Choose another key."
        raise Conflict(message)
    return act


def _applied(rule: RetentionRule, act: OperatorAct) -> Applied:
    count, rows = act.details.get("count"), act.details.get("rows")
    return Applied(rule, count if isinstance(count, int) else 0, rows if isinstance(rows, int) else 0)
