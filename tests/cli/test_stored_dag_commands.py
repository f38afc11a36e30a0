"""`eventic dag run` of DAGs that are stored as records, of a tenant or of none."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from eventic_core import Eventic
from eventic_core.cli import main
from eventic_core.jobs import DagRun, DagRunRepository, Job, dag, job

pytestmark = pytest.mark.usefixtures("bare_environment")


@job(name="sdc seed")
def seed(count: int = 1) -> int:
    return count


@pytest.fixture
def url(migrated_url: str) -> str:
    """A database with two stored DAGs of a name, and one that is declared as well."""
    Eventic.init(name="tests", database_url=migrated_url)
    for client_id in ("acme", None):
        Job(name="sdc seed", dag="sdc stored", client_id=client_id)
    dag("sdc both", seed).stored()
    Eventic.shutdown()
    return migrated_url


def run(url: str, *words: str) -> Result:
    return CliRunner().invoke(main, ["dag", "run", *words, "--database-url", url], prog_name="eventic")


def test_a_stored_dag_is_run_as_the_tenant_has_it(url: str) -> None:
    first, second = run(url, "sdc stored", "count=4", "--client", "acme"), run(url, "sdc stored")
    assert (first.exit_code, second.exit_code) == (0, 0), first.output + second.output
    Eventic.init(name="tests", database_url=url)
    try:
        (found,) = DagRunRepository().list("acme")
        assert (str(found.id), found.parameters) == (first.output.strip(), {"count": 4})
        assert [str(one.id) for one in DagRunRepository().list()] == [second.output.strip()]
    finally:
        Eventic.shutdown()


def test_a_declared_dag_is_run_as_it_is_stored_if_that_is_asked_for(url: str) -> None:
    results = run(url, "sdc both", "--client", "acme"), run(url, "sdc both", "--stored")
    assert [result.exit_code for result in results] == [0, 0], [result.output for result in results]
    Eventic.init(name="tests", database_url=url)
    try:
        declared, stored = (DagRun.hydrate(result.output.strip()) for result in results)
        assert (declared.client_id, stored.client_id) == ("acme", None)
        Job.where(dag="sdc both").all()[0].update(name="renamed", function="sdc seed")
        assert list(stored.states()) == ["sdc seed"]
    finally:
        Eventic.shutdown()


def test_a_dag_that_is_nowhere_is_named(url: str) -> None:
    for words, message in (
        (("sdc none",), "No DAG 'sdc none' is declared"),
        (("sdc stored", "--client", "other"), "No DAG 'sdc stored' is declared"),
        (("sdc both", "--stored", "--client", "other"), "No job is stored with client_id='other', dag='sdc both'"),
    ):
        result = run(url, *words)
        assert result.exit_code != 0
        assert message in result.output
