"""Worker processes of `fleet_worker`, on this host or another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

PROGRAM = Path(__file__).with_name("fleet_worker.py")


class Fleet:
    """Worker processes on one database, what they noted outside of it, and what is held up."""

    def __init__(self, url: str, marks: Path) -> None:
        marks.touch()
        self.url = url
        self.marks = marks
        self.processes: list[subprocess.Popen[str]] = []

    def start(
        self, url: str = "", *, command: Sequence[str] = (sys.executable, str(PROGRAM)), **variables: str
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*command, url or self.url],
            env={**os.environ, "FLEET_MARKS": str(self.marks), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "launched\n"
        return process

    def hold(self, about: str) -> Path:
        """Have work about this take until the file is removed."""
        held = Path(f"{self.marks}.{about}")
        held.touch()
        return held

    def begun(self, about: str) -> list[int]:
        lines = self.marks.read_text().splitlines()
        return [int(line.split()[1]) for line in lines if line.split()[0] == f"begun-{about}"]

    def stop(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()
