"""The fixed statements, one file each: purpose, locks and index in its head comment."""

from __future__ import annotations

from importlib.resources import files


def statement(name: str, **parts: str) -> str:
    """Give a statement without its comments, with `{name}` parts filled in."""
    text = files(__name__).joinpath(f"{name}.sql").read_text("utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    return "\n".join(lines).format(**parts) if parts else "\n".join(lines)


COLUMNS = statement("columns")
