"""What tests share that pull the plug: a Postgres that is stopped as a power cut would."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

SECONDS = 100


def restart(data: Path) -> None:
    """Stop Postgres as a power cut would; its keeper starts it again."""
    before = postmaster(data)
    os.kill(before, signal.SIGQUIT)
    deadline = time.monotonic() + SECONDS
    while postmaster(data) in (before, 0):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def postmaster(data: Path) -> int:
    """Give the server's process, 0 while there is none."""
    try:
        return int((data / "postmaster.pid").read_text().split()[0])
    except (FileNotFoundError, IndexError):
        return 0
