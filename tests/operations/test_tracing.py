"""Traces: what one request causes, in whichever process, is one trace, and without an SDK there is nothing of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from eventic_core.settings import libpq_url
from eventic_core.store.handlers import call_payload
from eventic_core.store.trace import untraced

LATER = "for a plain worker"
SHOP = str(Path(__file__).with_name("traced_shop.py"))


def run(role: str, url: str, *options: str) -> list[dict[str, Any]]:
    command = [sys.executable, SHOP, role, url, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def spans(module_url: str) -> list[dict[str, Any]]:
    return run("web", module_url) + run("worker", module_url)


def ours(spans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [span for span in spans if not span["name"].startswith(("fastapi.", "POST ", "again"))]


@pytest.fixture(scope="module")
def module_url(server_url: str, template: str) -> Any:
    from conftest import new_database

    with new_database(server_url, template) as url:
        yield url


def named(spans: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    found = [span for span in spans if span["name"] == name]
    assert found, sorted({span["name"] for span in spans})
    return found


def test_a_request_and_all_it_causes_in_another_process_are_one_trace(spans: list[dict[str, Any]]) -> None:
    assert len({span["trace"] for span in spans}) == 1
    assert {span["name"] for span in ours(spans)} == {
        "process traced_orders",
        "workflow traced_fulfil",
        "workflow traced_late",
        "step traced_charge",
        "step traced_weigh",
        "transaction traced_note",
        "transaction traced_lines",
        "process queue_traced_order",
        "handler traced_receipt",
        "process eventic_runs",
        "run traced-lines",
        "process automation_traced_lines",
        "item traced-lines",
        "process eventic_dags",
        "dag traced-packing",
        "process dag_traced_packing",
        "job traced-packing.traced_pack",
        "job traced-packing.traced_label",
    }


def test_the_correlation_id_is_on_every_span(spans: list[dict[str, Any]]) -> None:
    assert {
        span["name"] for span in ours(spans) if span["attributes"].get("eventic.correlation_id") != "case-7"
    } == set()


def test_each_span_hangs_below_what_caused_it(spans: list[dict[str, Any]]) -> None:
    by_id = {span["id"]: span for span in spans}

    def path(name: str) -> list[str]:
        found, span = [], named(spans, name)[0]
        while span is not None:
            found.append(span["name"])
            span = by_id.get(span["parent"])
        return found

    workflow = ["workflow traced_fulfil", "process traced_orders", "fastapi.endpoint", "POST /orders"]
    assert path("step traced_charge") == ["step traced_charge", *workflow]
    assert path("handler traced_receipt") == [
        "handler traced_receipt",
        "process queue_traced_order",
        "transaction traced_note",
        *workflow,
    ]
    assert path("step traced_weigh")[1:6] == [
        "item traced-lines",
        "process automation_traced_lines",
        "run traced-lines",
        "process eventic_runs",
        "transaction traced_lines",
    ]
    assert path("job traced-packing.traced_label")[1] == "process dag_traced_packing"


def test_spans_say_what_they_are_about(spans: list[dict[str, Any]]) -> None:
    (handler,) = named(spans, "handler traced_receipt")
    assert (
        handler["attributes"].items()
        >= {
            "eventic.record.class": "TracedOrder",
            "eventic.record.version": 1,
            "eventic.attempt": 1,
        }.items()
    )
    claim = next(
        span for span in named(spans, "process traced_orders") if span["attributes"]["eventic.run.id"] == "fulfil-1"
    )
    assert claim["kind"] == "CONSUMER"
    assert (
        claim["attributes"].items()
        >= {
            "messaging.destination.name": "traced_orders",
            "messaging.message.id": "fulfil-1",
            "eventic.attempt": 1,
            "eventic.app_version": "1",
        }.items()
    )
    (workflow,) = named(spans, "workflow traced_fulfil")
    assert workflow["attributes"]["eventic.run.id"] == "fulfil-1"


def test_an_error_is_the_status_of_its_span_and_of_no_other(spans: list[dict[str, Any]]) -> None:
    failed = sorted({span["name"] for span in spans if span["status"] == "ERROR"})
    assert failed == ["item traced-lines", "workflow traced_late"]
    assert sorted(span["status"] for span in named(spans, "item traced-lines")) == ["ERROR", "UNSET"]


def test_work_that_carries_a_trace_is_done_by_a_worker_without_the_sdk(
    spans: list[dict[str, Any]], module_url: str
) -> None:
    with psycopg.connect(libpq_url(module_url), autocommit=True) as connection:
        ((payload,),) = connection.execute("select inputs from dbos.workflow_input where workflow_uuid = %s", [LATER])
        assert f'"traceparent":"00-{spans[0]["trace"]}-' in payload
        connection.execute("update dbos.workflow_status set delay_until_epoch_ms = 0 where workflow_uuid = %s", [LATER])
        assert run("worker", module_url, "plain") == []
        ((status,),) = connection.execute("select status from dbos.workflow_status where workflow_uuid = %s", [LATER])
    assert status == "SUCCESS"


def test_without_the_sdk_nothing_of_it_is_imported_and_nothing_is_carried() -> None:
    code = """
import sys
from eventic_core.runtime import functions, tracing
from eventic_core.store.handlers import call_payload
with tracing.span("step", "x", run__id="y") as span:
    assert span is None
assert call_payload({"a": 1}) == '{"$":"call","v":{"a":1}}'
assert not [name for name in sys.modules if name.startswith("opentelemetry")], "imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_the_same_call_in_two_traces_is_the_same_call() -> None:
    plain = call_payload({"args": [1]})
    traced = call_payload({"args": [1], "traceparent": "00-1-2-01"})
    assert untraced(plain) == untraced(traced)
    assert untraced(plain) != untraced(call_payload({"args": [2]}))
    assert untraced("[1]") == [1]
