"""Rounds of work and faults, drawn by a seed, and what the oracles say: `campaign.py --seed 7 --minutes 10`.

A round enqueues a burst of every kind of work from some threads, lets faults happen meanwhile, and then waits until
nothing is left to do. Workers are real processes, the server is an embedded one of the campaign's own.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `killing` is; pytest has put it there already

import chaos_load as load
import psycopg
from faults import Faults, Workers, connect, execute
from oracles import ALONE, ALWAYS, WHEN_QUIET, Ends, changed, ends, problems

from eventic_core import Eventic, later
from eventic_core.errors import Conflict, RunNotFound, StoreUnavailable
from eventic_core.runtime import runs

T = TypeVar("T")
QUIET_SECONDS = 120
ITEMS = 60
Told = Callable[[str], object]


def persist(work: Callable[..., T], /, *args: Any, **options: Any) -> T:
    """Do something that may be done twice, until Postgres answers."""
    while True:
        try:
            return work(*args, **options)
        except StoreUnavailable:
            time.sleep(0.1)


class Campaign:
    """Work, faults and oracles over one database.

    Args:
        url: The database, of a server that may be killed.
        data: The server's data directory.
        folder: For the workers' log.
        seed: Chooses the work, the faults and their moments; threads and processes have their own will beside it.
        told: Called with a line about each thing that happens.
    """

    def __init__(self, url: str, data: Path, folder: Path, *, seed: int, told: Told) -> None:
        self.chance = random.Random(seed)
        self.url = url
        self.told = told
        self.workers = Workers(url, folder / "workers.log")
        self.faults = Faults(self.workers, data, self.chance)
        self.expected: set[str] = set()
        self.entered: dict[UUID, int] = {}
        self.raised = 0
        self.found: list[str] = []
        self.ended: Ends = {}
        os.environ["CHAOS_URL"] = url

    def begin(self, workers: int = 3) -> None:
        """Connect, and start the workers."""
        Eventic.init(name="driver", database_url=self.url, pool_size=5)
        execute(self.url, load.SCHEMA)
        for _ in range(workers):
            self.workers.start()
        self.workers.ready()
        self.counter = load.ChaosCounter(name="counter").id
        self.schedule = load.CHAOS_TICKS.schedule("every second", overlap="allow")

    def round(self, number: int, faults: int, chosen: list[str] | None = None) -> None:
        """Do one round; what is wrong is added to `found`."""
        threads = [
            threading.Thread(target=act, args=(f"r{number}", random.Random(self.chance.random())))
            for act in (self._stories, self._ledger, self._plain, self._automation, self._dag, self._cancels)
        ]
        persist(self._tick)
        for thread in threads:
            thread.start()
        for count in range(faults):
            time.sleep(self.chance.uniform(0.1, 1.0))
            fault = getattr(self.faults, chosen[count]) if chosen else self.faults.draw()
            self.told(f"round {number}: {fault.__name__}")
            fault()
            self.workers.replace_dead()
            self.check(ALWAYS)
        for thread in threads:
            thread.join()
        persist(self._tick_no_more)
        self._settle()
        self.check(WHEN_QUIET | ALWAYS)
        self._check_expected()
        self.told(f"round {number}: {len(self.ended)} runs have ended, {len(self.found)} problems")

    def end(self) -> None:
        """Stop the workers, and look once more."""
        codes = self.workers.end()
        if any(codes):
            self.found.append(f"workers that were told to stop ended with {codes}")
        time.sleep(0.5)  # the server's processes of their sessions
        self.check(ALONE | WHEN_QUIET | ALWAYS)

    def close(self) -> None:
        self.workers.kill_all()
        Eventic.shutdown()

    def check(self, oracles: dict[str, str]) -> None:
        """Ask oracles, and whether what had ended has stayed so."""
        while True:
            try:
                with connect(self.url) as connection:
                    now = ends(connection)
                    self.found += changed(self.ended, now)
                    self.ended = now
                    self.found += problems(connection, oracles)
            except psycopg.OperationalError:
                time.sleep(0.1)
            else:
                return

    def _settle(self) -> None:
        """Wait until nothing is under way but what always is."""
        deadline = time.monotonic() + QUIET_SECONDS
        what = {name: WHEN_QUIET[name] for name in ("work is left over", "a run of items or jobs has not ended")}
        while True:
            self.workers.replace_dead()
            with connect(self.url) as connection:
                left = problems(connection, what)
            if not left:
                return
            if time.monotonic() > deadline:
                return  # the oracles are about to say so
            time.sleep(0.2)

    def _check_expected(self) -> None:
        """Check that nothing is lost, and nothing there that nobody asked for."""
        made = {each.name for each in load.ChaosMade.where().all()}
        self.found += [f"lost: {name}" for name in sorted(self.expected - made)]
        for ledger, count in self.entered.items():
            if (entries := load.ChaosLedger.hydrate(ledger).entries) != list(range(count)):
                self.found.append(f"{count} were entered in order, but there are {entries}")
        if (value := load.ChaosCounter.hydrate(self.counter).value) != self.raised:
            self.found.append(f"the counter was raised {self.raised} times but is {value}")

    # -- work

    def _tick(self) -> None:
        if self.schedule.refresh() or self.schedule.paused:
            self.schedule.resume()

    def _tick_no_more(self) -> None:
        if self.schedule.refresh() or not self.schedule.paused:
            self.schedule.pause()

    def _stories(self, label: str, chance: random.Random) -> None:
        """Runs with steps, each enqueued more than once, some of them delayed; of both kinds and versions."""
        for number in range(12):
            run = f"{label}-story-{number}"
            call, delay = chance.choice([load.story, load.story, load.async_story]), chance.choice([0.0, 0.0, 1.0])
            for _ in range(chance.choice([1, 1, 2])):
                persist(load.queue.enqueue, call, run, run_id=run, delay_seconds=delay)
            time.sleep(chance.uniform(0, 0.2))

    def _ledger(self, label: str, chance: random.Random) -> None:
        """Work for one key, which is done in the order in which it was enqueued."""
        ledger = persist(named, load.ChaosLedger, f"{label} ledger").id
        for number in range(15):
            persist(load.queue.enqueue, load.enter, ledger, number, run_id=f"{label}-enter-{number}")
            self.entered[ledger] = number + 1
            time.sleep(chance.uniform(0, 0.1))

    def _plain(self, label: str, chance: random.Random) -> None:
        """Records written by plain code, and calls that run later."""
        for number in range(10):
            item = persist(named, load.ChaosItem, f"{label} plain {number}")
            persist(item.bump)
            counter = persist(load.ChaosCounter.hydrate, self.counter)
            persist(counter.raise_by_one)
            self.raised += 1
            if number % 3 == 0:
                self._later(counter)
            time.sleep(chance.uniform(0, 0.2))

    def _later(self, counter: load.ChaosCounter) -> None:
        persist(later, counter.raise_by_one)
        self.raised += 1

    def _automation(self, label: str, chance: random.Random) -> None:
        batch = persist(lambda: load.chaos_import.batch(label, ({"of": label, "number": n} for n in range(ITEMS))))
        persist(lambda: load.chaos_import.start(batch))
        self.expected |= {f"imported {label} {number}" for number in range(ITEMS)}

    def _dag(self, label: str, chance: random.Random) -> None:
        run = persist(load.CHAOS_DAG.start)
        self.expected |= {f"{what} {run.id}" for what in ("root", "gathered")}
        self.expected |= {f"mapped {run.id} {number}" for number in range(load.ELEMENTS)}

    def _cancels(self, label: str, chance: random.Random) -> None:
        """Runs that are cancelled about when they end, some of them twice."""
        for number in range(6):
            run = f"{label}-cancelled-{number}"
            persist(load.queue.enqueue, load.story, run, run_id=run)
            time.sleep(chance.uniform(0, 0.3))
            for _ in range(chance.choice([1, 2])):
                try:
                    persist(runs.cancel, run)
                except (Conflict, RunNotFound):
                    break


def named(cls: type[T], name: str) -> T:
    """Make a record unless an attempt of which nothing was heard has made it."""
    found = cls.where(name=name).first()  # type: ignore[attr-defined]
    return found or cls(name=name)  # type: ignore[no-any-return, call-arg]


def say(line: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run for some minutes; gives 1 if anything was found."""
    from eventic_core.store.embedded import start_embedded

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument(
        "--folder", type=Path, required=True, help="for the server and the log; user nobody must reach it"
    )
    asked = parser.parse_args()
    say(f"seed {asked.seed}, {asked.minutes:g} minutes, in {asked.folder}")
    server = start_embedded(asked.folder)
    campaign = Campaign(server.url, server.data_dir, asked.folder, seed=asked.seed, told=say)
    until = time.monotonic() + asked.minutes * 60
    number = 0
    try:
        campaign.begin()
        while time.monotonic() < until and not campaign.found:
            number += 1
            campaign.round(number, faults=campaign.chance.randint(1, 4))
        campaign.end()
    finally:
        campaign.close()
        server.release()
    for line in campaign.found:
        say(line)
    say(f"seed {asked.seed}: {number} rounds, {len(campaign.ended)} runs, {len(campaign.found)} problems")
    return 1 if campaign.found else 0


if __name__ == "__main__":
    sys.exit(main())
