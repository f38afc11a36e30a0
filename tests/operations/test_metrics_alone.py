"""Metrics of a process whose database has no tables for work, or is away, and what they cost whoever asks for none."""

from __future__ import annotations

import subprocess
import sys

from prometheus_client.parser import text_string_to_metric_families

from eventic_core import Eventic
from eventic_core.operations import metrics as module
from eventic_core.operations.metrics import render
from eventic_core.runtime import process
from eventic_core.store.metrics import read


def fresh() -> dict[tuple[str, ...], float]:
    """Read and parse the metrics; gives values by name and the values of the labels."""
    module._look_at.cache_clear()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(render())
        for sample in family.samples
    }


def test_without_tables_or_postgres_the_rest_is_shown(eventic: str) -> None:
    shown = fresh()  # DBOS was never launched on it
    assert shown["eventic_up",] == 1
    assert shown["eventic_unread", "ready"] == 1
    assert shown["eventic_database_size_bytes",] > 0
    engine = process().store.database.engine
    engine.url = engine.url.set(host="127.0.0.1", port=1, query={})
    assert read(process().store.database) is None
    shown = fresh()
    assert shown["eventic_up",] == 0
    assert shown["eventic_runs_taken_over_total",] >= 0
    Eventic.shutdown()
    assert fresh()["eventic_up",] == 0


def test_importing_the_package_imports_no_library_of_metrics_or_traces() -> None:
    code = """
import sys
import eventic_core.operations.metrics, eventic_core.operations.readiness, eventic_core.operations.health_server
assert not {"prometheus_client", "opentelemetry"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
