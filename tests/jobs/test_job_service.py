"""The service and the repository of jobs: each tenant's own, and all of them only by that name."""

from __future__ import annotations

import pickle
from typing import Any
from uuid import uuid4

import pytest

from eventic_core import (
    DuplicateKey,
    Eventic,
    EventicError,
    InvalidRecord,
    InvalidSchedule,
    RecordNotFound,
    UnknownRule,
)
from eventic_core.automation import EntityNotFoundError, RepositoryError
from eventic_core.jobs import DEFAULT_PRIORITY, Job, JobCreate, JobNotFound, JobRepository, JobService


@pytest.fixture(autouse=True)
def url(eventic: str) -> str:
    return eventic


@pytest.fixture
def service() -> JobService:
    return JobService()


def test_a_job_is_made_and_read(service: JobService) -> None:
    made = service.create_job("load", "acme", "0 2 * * *", retries=2)
    assert (made.name, made.client_id, made.schedule, made.retries) == ("load", "acme", "0 2 * * *", 2)
    assert (made.priority, made.rule, made.is_active, made.version) == (DEFAULT_PRIORITY, "all_success", True, 0)
    assert service.get_job(made.id, "acme") == service.get_job(str(made.id), "acme") == made
    assert Job.hydrate(made.id).name == "load"
    assert made.updated_at is not None
    assert made.model_dump(mode="json")["rule"] == "all_success"


def test_a_job_takes_every_field(service: JobService) -> None:
    made = service.create_job("load", dag="nightly", rule="always", parameters={"day": 1}, timeout_seconds=9)
    assert (made.dag, made.rule, made.parameters, made.timeout_seconds) == ("nightly", "always", {"day": 1}, 9)


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ({"priority": -1}, InvalidRecord, "priority"),
        ({"retries": -1}, InvalidRecord, "retries"),
        ({"name": ""}, InvalidRecord, "name"),
        ({"name": 5}, InvalidRecord, "name"),
        ({"retries": "many"}, InvalidRecord, "retries"),
        ({"clinet_id": "acme"}, InvalidRecord, "clinet_id"),
        ({"rule": "sometimes"}, UnknownRule, "sometimes"),
        ({"schedule": "99 * * * *"}, InvalidSchedule, "99"),
        ({"zone": "Mars/Olympus"}, InvalidSchedule, "Mars"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_stored(
    service: JobService, values: dict[str, Any], error: type[EventicError], words: str
) -> None:
    with pytest.raises(error, match=words):
        service.create_job(**{"name": "load", **values})
    assert JobRepository().list_all_tenants() == []


def test_a_name_is_taken_once_for_each_tenant(service: JobService) -> None:
    for client in (None, "acme", "other"):
        service.create_job("load", client)
        with pytest.raises(DuplicateKey):
            service.create_job("load", client)


def test_the_job_of_another_tenant_is_not_found(service: JobService) -> None:
    ours, nobodys = service.create_job("load", "acme"), service.create_job("load")
    for job_id, client in (
        (ours.id, "other"),
        (ours.id, None),
        (nobodys.id, "acme"),
        (uuid4(), "acme"),
        ("no id", None),
    ):
        assert JobRepository().get(job_id, client) is None
        with pytest.raises(JobNotFound, match=str(job_id)) as caught:
            service.get_job(job_id, client)
        assert caught.value.job_id == job_id
    assert service.get_job(nobodys.id).client_id is None


def test_a_deleted_job_is_not_found(service: JobService) -> None:
    made = service.create_job("load", "acme")
    Job.hydrate(made.id).deactivate()
    with pytest.raises(JobNotFound):
        service.get_job(made.id, "acme")
    assert service.list_jobs("acme") == []


def test_not_found_is_in_the_tree_and_survives_pickling() -> None:
    error = JobNotFound("x")
    assert isinstance(error, (EntityNotFoundError, RecordNotFound, KeyError))
    assert (error.http_status, error.code, error.entity_name) == (404, "job_not_found", "Job")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.job_id, str(again)) == (JobNotFound, "x", str(error))


def test_jobs_are_listed_for_one_tenant_unless_all_are_asked_for_by_name(service: JobService) -> None:
    for client in ("acme", None, "other", "acme"):
        service.create_job(f"job {len(JobRepository().list_all_tenants())}", client)
    assert [job.name for job in service.list_jobs("acme")] == ["job 0", "job 3"]
    assert [job.name for job in service.list_jobs()] == ["job 1"]
    assert [job.name for job in service.list_jobs(None)] == ["job 1"]
    assert service.list_jobs("nobody") == []
    assert len(JobRepository().list_all_tenants()) == 4


def test_a_list_comes_in_pages(service: JobService) -> None:
    for number in range(5):
        service.create_job(f"job {number}", "acme")
    names = [job.name for job in service.list_jobs("acme", limit=2, offset=2)]
    assert names == ["job 2", "job 3"]
    assert service.list_jobs("acme", limit=0) == service.list_jobs("acme", offset=9) == []
    assert len(service.list_jobs("acme", limit=None)) == 5
    assert len(JobRepository().list_all_tenants(limit=3)) == 3
    with pytest.raises(RepositoryError):
        service.list_jobs("acme", limit=-1)
    with pytest.raises(RepositoryError):
        JobRepository().list("acme", offset=-1)


def test_a_repository_takes_part_in_an_open_unit_of_work() -> None:
    jobs = JobRepository()
    with pytest.raises(ZeroDivisionError), Eventic.unit_of_work():
        made = jobs.create(JobCreate(name="load", client_id="acme"))
        assert jobs.get(made.id, "acme") is made
        assert jobs.list("acme") == [made]
        raise ZeroDivisionError
    assert jobs.list("acme") == []
