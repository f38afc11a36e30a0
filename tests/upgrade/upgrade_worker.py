"""A worker of either release: `upgrade_worker.py <database URL> [plant]`, of the release that PYTHONPATH finds first.

It says of which release it is once it has launched; with `plant` it then makes data and work, and says what must come
of it. It ends with its stdin.
"""

from __future__ import annotations

import json
import sys

import upgrade_load as load

from eventic_core import Eventic, __version__


def say(what: object) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201 - what the test waits for


def plant() -> dict[str, object]:
    """Make data of all kinds, and begin work."""
    with Eventic.acting(actor="ann", reason="the old days"):
        note = load.UpgradeNote(name="kept")
        note.value = 7
        gone = load.UpgradeNote(name="gone")
        gone.delete()
    load.UpgradeKey(code="k-1")
    load.UpgradeNote(name="bad")
    load.UPGRADE_TICKS.schedule("every second", overlap="allow")
    return {"kept": str(note.id), "gone": str(gone.id), "expected": sorted(load.start("planted"))}


def main() -> None:
    from eventic_core.runtime import presence

    presence.TAKE_OVER_SECONDS = 0.5
    if hasattr(presence, "BEAT_SECONDS"):  # this release judges by beats, quickly here
        from eventic_core.runtime import takeover

        presence.BEAT_SECONDS, takeover.STALLED_SECONDS = 0.2, 2.0
    Eventic.init(name="upgrade", database_url=sys.argv[1], pool_size=4)
    Eventic.launch()
    say(__version__)
    if sys.argv[2:] == ["plant"]:
        say(plant())
    sys.stdin.read()
    Eventic.shutdown()


if __name__ == "__main__":
    main()
