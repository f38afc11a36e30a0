"""A short campaign: one round of every kind of work under faults of a fixed seed; `make chaos` runs long ones."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from campaign import Campaign
from faults import ALL, Faults

SEED = 11
FAULTS = ["kill_a_worker", "restart_postgres", "exhaust_connections", "cut_off_while_stopped"]


@pytest.mark.timeout(600)
def test_nothing_is_lost_or_done_twice_whatever_happens(own_server: tuple[str, Path], tmp_path: Path) -> None:
    url, data = own_server
    told: list[str] = []
    campaign = Campaign(url, data, tmp_path, seed=SEED, told=told.append)
    try:
        campaign.begin()
        campaign.round(1, len(FAULTS), chosen=FAULTS)
        campaign.end()
        assert campaign.found == [], (told, campaign.workers.log.read_text()[-5000:])
    finally:
        campaign.close()


def test_a_seed_draws_the_same_faults_again() -> None:
    def drawn(seed: int) -> list[str]:
        workers: object = None
        faults = Faults.__new__(Faults)
        faults.workers, faults.chance = workers, random.Random(seed)  # type: ignore[assignment]
        return [faults.draw().__name__ for _ in range(50)]

    assert drawn(SEED) == drawn(SEED) != drawn(SEED + 1)
    assert set(FAULTS) <= {fault.__name__ for fault in ALL}
