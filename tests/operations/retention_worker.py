"""The process that `test_retention` kills: it applies a rule in small batches, and says after each how far it is."""

from __future__ import annotations

import sys

from eventic_core import Eventic, Record
from eventic_core.operations import sweeps
from eventic_core.operations.retention import RetentionRule, apply


class Leaf(Record, class_type="RetentionLeaf"):
    text: str = ""


def main(url: str, what: str) -> None:
    remove = sweeps.RetentionTable.take_turn

    def said(self: sweeps.RetentionTable, tx: object) -> None:
        remove(self, tx)  # type: ignore[arg-type]
        sys.stdout.write("batch\n")
        sys.stdout.flush()

    sweeps.RetentionTable.take_turn = said  # type: ignore[method-assign]
    Eventic.init(name="tests", database_url=url)
    rule = RetentionRule.model_validate({"name": what, "what": what, "older_than_seconds": 30 * 86_400})
    apply(rule, batch_rows=5, request_key="killed")


if __name__ == "__main__":
    main(*sys.argv[1:])
