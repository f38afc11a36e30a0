"""How a process that does background work ends: the signals that tell it to, its drain, and that it ends at all.

Imports nothing heavier than Click before there is something to drain.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, Final, Self

import click

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_HEAR_SECONDS: Final = 0.2
"""Between looks for a signal: one that another thread received does not wake the main thread, which handles it."""
_LEAVE_SECONDS: Final = 2.0
"""How long the interpreter may take to end after the drain: threads that still work hold it up."""


class Ending:
    """The signals: the first one begins the end, the second one is it."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def began(self) -> bool:
        """Tell whether there was a signal."""
        return self._asked.is_set()

    def listen(self) -> None:
        """Hear the signals from now on."""
        for number in SIGNALS:
            signal.signal(number, self._hear)

    def wait(self, is_asked: Callable[[], bool] = lambda: False) -> None:
        """Wait for the first, or until `is_asked` says that there is another reason to end."""
        while not self._asked.wait(_HEAR_SECONDS) and not is_asked():
            pass

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if self.began():
            os._exit(128 + number)
        self._asked.set()


def drain() -> None:
    """Stop the workers of this process and disconnect, and say so."""
    from eventic_core.app import Eventic

    began = time.monotonic()
    click.echo("Stopping: what runs is waited for.", err=True)
    with ThreadPoolExecutor(1, thread_name_prefix="eventic-stop") as aside:  # so that a second signal is heard
        stopping = aside.submit(Eventic.shutdown)
        while not stopping.done():
            wait([stopping], timeout=_HEAR_SECONDS)
    stopping.result()
    click.echo(f"Stopped after {time.monotonic() - began:.1f} s.", err=True)


def leave(code: int = 0) -> None:
    """End soon, also if work goes on whose time to drain is over: somebody else does it again."""

    def end() -> None:
        time.sleep(_LEAVE_SECONDS)
        os._exit(code)

    threading.Thread(target=end, name="eventic-leave", daemon=True).start()
