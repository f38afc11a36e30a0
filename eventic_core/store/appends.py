"""Which statement writes some versions, and its parameters: one for each form that a write may have.

Owns the choice. The statements are in `sql/`; what a version is as a parameter, in `columns`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from eventic_core.store import columns
from eventic_core.store.handlers import GENERATION
from eventic_core.store.sql import statement
from eventic_core.store.work import CHECKPOINT, GATE, GATED, WORK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventic_core.records.port import Append, Checkpoint, Work
    from eventic_core.store.moves import Moves
    from eventic_core.store.work import WorkTable


def _forms(name: str, also: str = "", **parts: str) -> dict[tuple[bool, bool], str]:
    """Give the forms of a write: with or without a checkpoint, and work; `also` is one more part of all of them."""
    return {
        (gated, worked): statement(
            name,
            generation=GENERATION,
            gate=GATE if gated else "",
            gated=GATED if gated else "",
            also=(CHECKPOINT if gated else "") + (WORK if worked else "") + also,
            **parts,
        )
        for gated in (False, True)
        for worked in (False, True)
    }


def _untold(forms: dict[tuple[bool, bool], str]) -> dict[tuple[bool, bool], str]:
    """Make of the forms of a write those that give back one row, if it was written, instead of one for each version."""

    def quiet(sql: str) -> str:
        parts, insert, values = sql.rpartition("\ninsert into")
        values = values.replace("returning version_id, recorded_at, xid::text, position", "returning 1")
        return f"{parts}, written as ({insert}{values.rstrip()}\n)\nselect 1 from written limit 1"

    return {form: quiet(sql) for form, sql in forms.items()}


CREATE_ONE = _forms("create_one")
APPEND_ONE = _forms("append_one")
_KEYS = statement("part_keys").rstrip()
_INPUT = statement("part_input").rstrip()
APPEND_MANY = _forms("append_many", input=_INPUT, keys=_KEYS)
_COUNTING = statement("part_counting", moved=statement("part_moved_rows").rstrip()).rstrip()
_INPUTS = {False: statement("part_chains"), True: statement("part_rows", input=_INPUT)}
_TRACKED = {
    (is_mixed, ends_group): _forms(
        "append_tracked",
        statement("part_group_done") if ends_group else "",
        input=_INPUTS[is_mixed].rstrip(),
        keys=_KEYS,
        counting=_COUNTING,
    )
    for is_mixed in (False, True)
    for ends_group in (False, True)
}
_UNTOLD = {kind: _untold(forms) for kind, forms in _TRACKED.items()}


class Write(NamedTuple):
    """A write of versions, whatever they are.

    Attributes:
        work: What is to be enqueued with them, what their handlers have to do included.
        checkpoint: The step that the write is.
        moves: Of versions of classes with states, or of several of one record; `None` if there are none.
        told: Whether a row is given back for each version, or one if it was written.
        ends_group: Whether the run of `checkpoint` is a group that is done with this.
    """

    work: Sequence[Work]
    checkpoint: Checkpoint | None
    moves: Moves | None
    told: bool
    ends_group: bool

    def sql(self, appends: Sequence[Append], generation: int, table: WorkTable) -> tuple[str, Sequence[Any]]:
        """Give the statement that writes versions, and its parameters.

        Args:
            appends: The versions.
            generation: Of the list of handlers that `work` goes by.
            table: Gives the parameters of work and checkpoints.
        """
        checkpoint, moves = self.checkpoint, self.moves
        form = (checkpoint is not None, bool(self.work))
        gate = () if checkpoint is None else table.gate_parameters(checkpoint)
        also = () if checkpoint is None else table.checkpoint_parameters(checkpoint)
        if self.work:
            also += table.work_parameters(self.work)
        if len(appends) == 1 and not appends[0].keys and moves is None:
            append = appends[0]
            if append.version == 0:
                return CREATE_ONE[form], (*gate, generation, *also, *columns.of_one(append))
            return APPEND_ONE[form], (*gate, append.id, append.version, generation, *also, *columns.of_one(append))
        keys = [(append.id, *key) for append in appends for key in append.keys]
        key_columns = [list(column) for column in zip(*keys, strict=True)] if keys else [[], [], [], []]
        after = (generation, *key_columns, *key_columns)
        if moves is None:
            return APPEND_MANY[form], (*gate, *columns.of_rows(appends, None), *after, *also)
        is_mixed = moves.records < len(appends)
        what = (columns.of_rows if is_mixed else columns.of_chains)(appends, moves.before)
        if self.ends_group:
            assert checkpoint is not None
            also += (checkpoint.workflow_id,)
        forms = (_TRACKED if self.told else _UNTOLD)[is_mixed, self.ends_group]
        return forms[form], (*gate, *what, *after, *moves.deltas, *also)
