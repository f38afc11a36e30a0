"""The other way to put a run's steps on record: through DBOS's own steps and its datasource, in public calls only.

Slower, and there in case the tables behind the one-statement way change; both ways pass the same tests.
"""

from __future__ import annotations

from eventic_core.runtime.journal import StatementJournal


class DatasourceJournal(StatementJournal):
    """Checkpoints written by DBOS."""
