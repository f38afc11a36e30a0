"""Async twins, and what blocks in an event loop is refused by name."""

from __future__ import annotations

import asyncio

import pytest

from eventic_core import BlockingInLoop, Eventic, Record, ScopeError, VersionConflict, evented


class Job(Record, class_type="AsyncJob"):
    name: str
    count: int = 0
    log: list[str] = []

    async def work(self) -> str:
        self.count += 1
        await asyncio.sleep(0)
        self.log.append("worked")
        return "done"

    async def fail(self) -> None:
        self.count = 99
        await asyncio.sleep(0)
        raise RuntimeError

    @evented(retry=20)
    async def bump(self) -> None:
        self.count += 1

    def rename(self) -> None:
        self.name += "!"


pytestmark = pytest.mark.usefixtures("eventic")


def test_async_twins_do_what_the_blocking_ones_do() -> None:
    async def main() -> None:
        job = await Job.create_async(name="a")
        await job.update_async(name="b")
        assert (job.version, (await Job.hydrate_async(job.id)).name) == (1, "b")
        draft = Job.model_validate({"name": "draft"})
        await draft.save_async()
        assert sorted(j.name for j in await Job.where().all_async()) == ["b", "draft"]
        assert await Job.where(name="b").count_async() == 1
        first = await Job.where().order_by(Job.fields.name).first_async()
        assert first is not None
        assert first.name == "b"
        page = await Job.where().page_async(1)
        assert len(page.items) == 1
        await job.revert_async(0)
        await job.refresh_async()
        assert job.name == "a"
        await job.delete_async()
        back = await Job.restore_async(job.id)
        assert back.name == "a"
        assert (await Job.as_of(draft.stamp.recorded_at).hydrate_async(draft.id)).name == "draft"
        assert len(await Job.create_many_async([{"name": "x"}, {"name": "y"}])) == 2

    asyncio.run(main())


def test_async_edit_and_method_are_one_version() -> None:
    async def main() -> None:
        job = await Job.create_async(name="a")
        async with job.edit(reason="both"):
            job.name = "b"
            await asyncio.sleep(0)
            job.log.append("x")
        assert (job.version, job.stamp.reason) == (1, "both")
        assert await job.work() == "done"
        assert (job.version, job.log, job.stamp.reason) == (2, ["x", "worked"], "work")
        with pytest.raises(RuntimeError):
            await job.fail()
        assert (job.count, job.version) == (1, 2)
        async with job.edit():
            job.rename()
        assert (await Job.hydrate_async(job.id)).name == "b!"

    asyncio.run(main())


def test_async_unit_of_work_is_all_or_nothing_and_reads_its_own() -> None:
    async def main() -> None:
        a, b = await Job.create_async(name="a"), await Job.create_async(name="b")
        async with Eventic.unit_of_work():
            a.name = "a2"
            assert (await Job.hydrate_async(a.id)) is a
            assert [j.name for j in await Job.where(name="a2").all_async()] == ["a2"]
            (await Job.hydrate_async(b.id)).count = 5
        assert (await Job.hydrate_async(b.id)).count == 5
        with pytest.raises(ZeroDivisionError):
            async with Eventic.unit_of_work():
                a.name = "a3"
                await Job.create_async(name="c")
                assert await Job.where().count_async() == 3
                raise ZeroDivisionError
        assert (a.name, await Job.where().count_async()) == ("a2", 2)

    asyncio.run(main())


def test_async_transaction_decorates() -> None:
    @Eventic.transaction()
    async def make(name: str) -> Job:
        job = await Job.create_async(name=name)
        job.count = 3
        return job

    job = asyncio.run(make("a"))
    assert (job.version, Job.hydrate(job.id).count, job.stamp.reason) == (0, 3, "make")


def test_async_retry_loses_no_update() -> None:
    async def main() -> int:
        job = await Job.create_async(name="a")
        twins = [await Job.hydrate_async(job.id) for _ in range(8)]
        await asyncio.gather(*(twin.bump() for twin in twins))
        return (await Job.hydrate_async(job.id)).count

    assert asyncio.run(main()) == 8


def test_blocking_calls_in_a_loop_name_the_async_one_and_do_nothing() -> None:
    job = Job(name="a")

    async def main() -> None:
        for attempt, name in [
            (lambda: Job(name="b"), "create_async"),
            (lambda: setattr(job, "name", "b"), "update_async"),
            (lambda: job.rename(), "async with"),
            (lambda: job.edit().__enter__(), "async with edit"),
            (lambda: Eventic.unit_of_work().__enter__(), "async with"),
            (lambda: Job.hydrate(job.id), "hydrate_async"),
            (lambda: Job.where().all(), "all_async"),
            (lambda: Job.where().count(), "count_async"),
            (lambda: list(Job.where()), "all_async"),
            (lambda: job.history(), "to_thread"),
            (lambda: job.delete(), "delete_async"),
            (lambda: job.refresh(), "refresh_async"),
            (lambda: Job.create_many([]), "create_many_async"),
        ]:
            with pytest.raises(BlockingInLoop, match=name):
                attempt()

    asyncio.run(main())
    assert (job.name, job.version, Job.where().count()) == ("a", 0, 1)


def test_blocking_is_allowed_when_asked_for(migrated_url: str) -> None:
    Eventic.shutdown()
    Eventic.init(name="notebook", database_url=migrated_url, blocking_in_loop=True)

    async def main() -> int:
        job = Job(name="a")
        job.name = "b"
        return Job.hydrate(job.id).version

    assert asyncio.run(main()) == 1


def test_child_task_does_not_write_into_its_parents_scope() -> None:
    async def child(job: Job) -> None:
        await job.update_async(name="intruder")

    async def main() -> None:
        job = await Job.create_async(name="a")
        async with job.edit():
            job.count = 1
            with pytest.raises(ScopeError, match="scope of"):
                await asyncio.create_task(child(job))
            free = await asyncio.create_task(Job.create_async(name="free"))
            assert free.version == 0
        assert (job.version, job.name, job.count) == (1, "a", 1)

    asyncio.run(main())


def test_async_conflict_restores_memory() -> None:
    async def main() -> None:
        job = await Job.create_async(name="a")
        other = await Job.hydrate_async(job.id)
        await other.update_async(name="b")
        with pytest.raises(VersionConflict):
            async with job.edit():
                job.log.append("x")
        assert (job.log, job.version) == ([], 0)

    asyncio.run(main())


def test_cancelled_commit_leaves_memory_and_table_agreeing() -> None:
    async def main() -> None:
        job = await Job.create_async(name="a")
        task = asyncio.create_task(job.update_async(name="b"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await Job.hydrate_async(job.id)).name == job.name

    asyncio.run(main())
