"""`run.replay()`: a run done again on the data as it was, compared with what it did, and published if so wanted.

Owns what may be replayed and the report. How an item is replayed is `replay_items`', what publishing writes is
`replay_plan`'s, how it is written `corrections`'.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from eventic_core.automation import declared
from eventic_core.automation.corrections import Writing
from eventic_core.automation.effects import nets_of
from eventic_core.automation.replay_findings import Findings
from eventic_core.automation.replay_items import Replayer
from eventic_core.automation.replay_plan import Published, PublishPlan, kept_shares, replay_ids, shares_of
from eventic_core.automation.run_changes import postgres_store, run_history, writer_of
from eventic_core.automation.undo_plan import refuse_unknown
from eventic_core.errors import Invalid, InvalidStateError, RecordNotFound, ScopeError
from eventic_core.records.blocking import in_thread, refuse_in_loop
from eventic_core.records.editing import in_scope
from eventic_core.records.port import using_store
from eventic_core.runtime.functions import outside_journal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from uuid import UUID

    from eventic_core.automation.declared import DeclaredAutomation
    from eventic_core.automation.run import Run
    from eventic_core.automation.run_changes import Writer
    from eventic_core.automation.run_diff import ItemDiff

__all__ = ["Published", "ReplayReport", "replay", "replay_async"]

_PAGE_ITEMS: Final = 200
_SHOWN_NUMBERS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """What came of a replay; iterating reads an `ItemDiff` for each item that differs, by number, from a file.

    Attributes:
        run_id: The run.
        as_of: The moment as of which all was read; `None` is that at which each item's last attempt began.
        same: Items of which the same came.
        different: Items of which something else came; those that diverged count as such.
        diverged: Items whose replay asked what nothing on record answers, or that are not there as of the moment:
            their error is `ReplayDiverged`, what they did to records is not compared.
        dropped_work: Pieces of background work that the replay would have enqueued, handlers included.
        published: What was written; `None` if nothing was to be.
    """

    run_id: UUID
    as_of: datetime | None
    same: int
    different: int
    diverged: int
    dropped_work: int
    published: Published | None = None
    findings: Findings = field(repr=False, compare=False)

    @property
    def items(self) -> int:
        """How many items were replayed."""
        return self.same + self.different

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return self.different > 0

    def __iter__(self) -> Iterator[ItemDiff]:
        return self.findings.differences()

    def __str__(self) -> str:
        diverged = f" ({self.diverged:,} could not be replayed)" if self.diverged else ""
        items = "1 item" if self.items == 1 else f"{self.items:,} items"
        return f"{items} replayed: {self.same:,} same, {self.different:,} different{diverged}"

    def lines(self) -> Iterator[str]:
        """Render it as text, line by line, the counts last."""
        for item in self:
            yield from item.lines()
        if self.dropped_work:
            pieces = "1 piece" if self.dropped_work == 1 else f"{self.dropped_work:,} pieces"
            yield f"{pieces} of background work not enqueued"
        yield str(self)
        if self.published is not None:
            for conflict in self.published.conflicts:
                yield f"! {conflict.line()}"
            yield str(self.published)


def replay(
    run: Run | UUID | str,
    as_of: datetime | None = None,
    *,
    publish: bool = False,
    force: bool = False,
    numbers: Iterable[int] | None = None,
    reason: str | None = None,
) -> ReplayReport:
    """Do the items of a run again, on the data as it was and in this process, and compare what comes of it.

    The automation's function, as it is declared here, is called once for each item that has begun, in the order of
    their numbers, with the item's payload and the records of then. Nothing that it writes or enqueues is stored, and
    items do not see each other's. A function marked as a step is not called: it gives what it gave in the item's last
    attempt, of the step's name the first call what the first gave, and so on; what such a step wrote is not repeated.
    All else that the function does outside of records it does again: mark it as a step.

    What cannot be answered from the past ends the replay of the item as diverged: a step that was not called then, a
    query of a class after a record of it was changed, SQL, a change feed. Unique keys that others held are not seen.

    By default each item finds the records it wrote at the very versions it found then, others as of the moment its
    last attempt began, by the clock of its worker.

    Published, each record becomes what it had been if the run had done what the replay did, as new versions stamped
    `<run>:replay-<attempt>` and with the item's number: what only the replay creates is made, what only the run
    created is deleted, of others the fields change in which the two differ. An item that fails in the replay has done
    nothing; one that diverges is left as it was. The run, its items and their results stay as they are. Chunks commit
    one by one, so if it is interrupted, call it again; a later replay that is published takes the place of the first.

    Args:
        run: The run, or its id.
        as_of: A moment as of which all is read instead.
        publish: Whether to write what differs.
        force: Whether to publish also what others wrote since the run, which else is left alone and listed.
        numbers: Only these items, by their numbers in the run.
        reason: Stamped on the versions; the default is `replay of run <id>`.

    Raises:
        RecordNotFound: No such run is stored.
        Invalid: The moment has no time zone or is to come, or a number is of no item that has begun.
        NotRegistered: This process has not declared the automation, or not the class of a record to be written.
        InvalidStateError: It is to be published, and the run is not finished.
        ScopeError: In an edit, a unit of work or a transaction.
        BlockingInLoop: In a running event loop; await `replay_async` there.
        StoreUnavailable: Postgres does not answer; the chunks before are written.
    """
    refuse_in_loop("replay()", "replay_async()")
    if in_scope():
        message = "replay() opens a scope for each item, so it cannot be part of one: call it outside."
        raise ScopeError(message)
    _check(as_of, publish=publish, force=force, reason=reason)
    with outside_journal(), using_store(None):
        writer = writer_of(run)
        if writer.is_correction:
            message = f"{writer.workflow_id} is an undo or a replay, which has no items to replay: replay the run."
            raise Invalid(message)
        if publish and not writer.run.status.is_finished:
            raise InvalidStateError("Run", writer.run.id, writer.run.status, "publishing a replay of it")
        chosen = None if numbers is None else sorted(set(numbers))
        replaying = _Replay(writer, _automation(writer.run), as_of, chosen, publish=publish)
        replaying.run()
        plan = PublishPlan(writer, replaying.findings, as_of, force=force, reason=reason) if publish else None
        return replaying.report(plan)


async def replay_async(run: Run | UUID | str, as_of: datetime | None = None, **options: Any) -> ReplayReport:
    """Replay a run without blocking the event loop; see `replay`."""
    return await in_thread(replay, run, as_of, **options)


def _check(as_of: Any, *, publish: bool, force: bool, reason: str | None) -> None:
    if as_of is not None:
        if not isinstance(as_of, datetime) or as_of.tzinfo is None:
            message = f"replay(as_of={as_of!r}): that is no moment with a time zone. Use an aware datetime."
            raise Invalid(message)
        if as_of > datetime.now(UTC):
            message = f"replay(as_of={as_of.isoformat()}): that moment is still to come."
            raise Invalid(message)
    if not publish and (force or reason is not None):
        message = "replay(force=, reason=) are for what is written: say publish=True too."
        raise Invalid(message)


def _automation(run: Run) -> DeclaredAutomation[Any, Any]:
    row = postgres_store().head(run.automation_id)
    if row is None:
        message = f"No Automation {run.automation_id} is stored, of which run {run.id} is. Check the run."
        raise RecordNotFound(message)
    return declared.find(row.document["name"])


class _Replay:
    """One replay under way."""

    def __init__(
        self,
        writer: Writer,
        automation: DeclaredAutomation[Any, Any],
        as_of: datetime | None,
        chosen: Sequence[int] | None,
        *,
        publish: bool,
    ) -> None:
        self.findings = Findings()
        self._writer = writer
        self._as_of = as_of
        self._publish = publish
        self._chosen = chosen
        self._numbers = run_history().begun_numbers(writer.run.id, chosen)
        if chosen is not None and (unknown := sorted(set(chosen) - set(self._numbers))):
            named = ", ".join(map(str, unknown[:_SHOWN_NUMBERS])) + (", ..." if unknown[_SHOWN_NUMBERS:] else "")
            message = f"Run {writer.run.id} has no item {named} that has begun. Nothing was done."
            raise Invalid(message)
        self._replayer = Replayer(writer, automation, as_of)
        self._same = self._different = self._diverged = self._work = 0

    def run(self) -> None:
        """Replay the items, a page at a time."""
        try:
            for page in _pages(self._numbers):
                self._replay(page)
        finally:
            self._replayer.event_loop.close()
        if self._publish and self._chosen is not None:  # what other items did to the same records stays
            chosen = set(self._chosen)
            others = run_history().begun_numbers(self._writer.run.id, None)
            for page in _pages([number for number in others if number not in chosen]):
                for number, done in nets_of(self._writer.workflow_ids, page).items():
                    self.findings.add_shares(kept_shares(number, done))

    def _replay(self, page: Sequence[int]) -> None:
        found = self._replayer.replay(page)
        different = [replayed for replayed in found if replayed.diff]
        self.findings.add_differences((replayed.number, replayed.diff) for replayed in different)
        self._same += len(found) - len(different)
        self._different += len(different)
        self._diverged += sum(replayed.diverged for replayed in found)
        self._work += sum(replayed.dropped_work for replayed in found)
        if self._publish:
            earlier = nets_of(replay_ids(self._writer), page)
            for replayed in found:
                shares = shares_of(replayed, earlier.get(replayed.number, []), self._writer.run.id)
                self.findings.add_shares(shares)

    def report(self, plan: PublishPlan | None) -> ReplayReport:
        """Publish what differs, if there is a plan, and give the numbers."""
        published = None
        if plan is not None:
            refuse_unknown(self._writer, sorted(self.findings.class_types))
            published = Published.of(Writing(plan).run(), plan.workflow_id)
        return ReplayReport(
            run_id=self._writer.run.id,
            as_of=self._as_of,
            same=self._same,
            different=self._different,
            diverged=self._diverged,
            dropped_work=self._work,
            published=published,
            findings=self.findings,
        )


def _pages(numbers: Sequence[int]) -> Iterator[list[int]]:
    waiting = iter(numbers)
    while page := list(islice(waiting, _PAGE_ITEMS)):
        yield page
