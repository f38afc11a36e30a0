"""Runs of DAGs and tenants: whose a run is, and that lists show those of one unless all are asked for by name."""

from __future__ import annotations

import pytest

from eventic_core import Eventic
from eventic_core.automation import RepositoryError
from eventic_core.jobs import DagRun, DagRunRepository, Job, dag, job, stored_dag

RUNS = DagRunRepository()


@pytest.fixture(autouse=True)
def url(eventic: str) -> str:
    return eventic


@job(name="tenants job")
def work() -> int:
    return 1


WORK = dag("tenants: work", work)
OTHER = dag("tenants: other", work)


def ids(runs: list[DagRun]) -> list[str]:
    return [str(run.id) for run in runs]


def test_a_run_is_the_tenant_s_it_is_started_for() -> None:
    run = WORK.start(client_id="acme")
    assert (run.client_id, DagRun.hydrate(run.id).client_id) == ("acme", "acme")
    assert WORK.start().client_id is None


def test_a_run_of_a_stored_dag_is_its_tenant_s() -> None:
    for client_id in ("acme", "other", None):
        Job(name="tenants job", dag="tenants: stored", client_id=client_id)
        assert stored_dag("tenants: stored", client_id).start().client_id == client_id


def test_a_run_is_found_by_its_tenant_only() -> None:
    mine, nobodys = WORK.start(client_id="acme"), WORK.start()
    assert RUNS.get(mine.id, "acme") == mine
    assert RUNS.get(str(mine.id), "other") is None
    assert RUNS.get(mine.id) is None
    assert RUNS.get(nobodys.id) == nobodys
    assert RUNS.get(nobodys.id, "acme") is None
    assert RUNS.get("01a20000-0000-7000-8000-000000000000", "acme") is None


def test_lists_are_of_one_tenant_the_latest_first_unless_all_are_asked_for_by_name() -> None:
    first, second = WORK.start(client_id="acme"), OTHER.start(client_id="acme")
    other, nobodys = WORK.start(client_id="other"), WORK.start()
    assert ids(RUNS.list("acme")) == ids([second, first])
    assert ids(RUNS.list("other")) == ids([other])
    assert ids(RUNS.list()) == ids([nobodys])
    assert ids(RUNS.list_all_tenants()) == ids([nobodys, other, second, first])
    assert RUNS.list("nobody") == []


def test_lists_are_of_one_dag_if_that_is_asked_for_and_in_pages() -> None:
    runs = [(WORK if number % 2 else OTHER).start(client_id="acme") for number in range(6)]
    work = [run for run in reversed(runs) if run.dag == WORK.name]
    assert ids(RUNS.list("acme", dag=WORK.name)) == ids(work)
    assert ids(RUNS.list("acme", dag=WORK.name, limit=1, offset=1)) == ids(work[1:2])
    assert ids(RUNS.list_all_tenants(dag=OTHER.name, limit=None)) == ids(runs[4::-2])
    assert RUNS.list("acme", limit=0) == []
    for page in ({"limit": -1}, {"offset": -1}):
        with pytest.raises(RepositoryError):
            RUNS.list("acme", **page)
        with pytest.raises(RepositoryError):
            RUNS.list_all_tenants(**page)


def test_a_run_is_found_in_the_unit_of_work_that_starts_it() -> None:
    with Eventic.unit_of_work():
        run = WORK.start(client_id="acme")
        assert RUNS.get(run.id, "acme") is run
        assert ids(RUNS.list("acme")) == ids([run])
