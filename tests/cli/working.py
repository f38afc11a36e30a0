"""A worker process of one of the applications here, for tests of commands that somebody has to act on."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def working(application: str, url: str, folder: Path) -> Iterator[None]:
    """Have a worker at work, which at the end must have had no error that nobody caught."""
    command = [sys.executable, "-m", "eventic_core", "worker", application, "--database-url", url]
    bare = {key: value for key, value in os.environ.items() if not key.startswith("EVENTIC_")}
    log = folder / "stderr"
    with log.open("w") as errors:
        worker = subprocess.Popen(
            [*command, "--drain-seconds", "5"], cwd=Path(__file__).parent, env=bare, stderr=errors
        )
    try:
        yield
    finally:
        worker.terminate()
        worker.wait(timeout=100)
    assert "Traceback" not in log.read_text()
