"""A class, a record, a change: two versions."""

from __future__ import annotations

from eventic_core import Eventic, Record


class Todo(Record):
    text: str
    done: bool = False


def main() -> None:
    Eventic.init(name="hello")

    item = Todo(text="Learn")
    print(f"version {item.version}: {item.text}")

    item.text = "Ship v1"
    print(f"version {item.version}: {item.text}")

    first = Todo.hydrate(item.id, version=0)
    print(f"version {first.version} is still there: {first.text}")

    Eventic.shutdown()


if __name__ == "__main__":
    main()
