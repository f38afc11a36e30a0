"""Branches: which of the nodes directly after a branch are followed, and which are skipped for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventic_core.errors import InvalidBranch

if TYPE_CHECKING:
    from eventic_core.graph.dag import Dag


def chosen(dag: Dag, branch: str, value: object) -> tuple[str, ...]:
    """Read what a branch returned: the name of a node directly after it, or a list of names; an empty one follows none.

    Returns:
        The names in the DAG's order, each once.

    Raises:
        InvalidBranch: It is neither, or names another node; lists the possible ones.
        UnknownJob: The DAG has no such branch.
    """
    possible = dag.downstream(branch)
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple | set | frozenset):
        message = f"Branch {branch!r} returned {value!r}, which is no choice. {_advice(possible)}"
        raise InvalidBranch(message)
    direct = frozenset(possible)
    wrong = [name for name in names if not isinstance(name, str) or name not in direct]
    if wrong:
        message = f"Branch {branch!r} chose {wrong[0]!r}, which does not come directly after it. {_advice(possible)}"
        raise InvalidBranch(message)
    named = frozenset(names)
    return tuple(node for node in possible if node in named)


def not_chosen(dag: Dag, branch: str, value: object) -> tuple[str, ...]:
    """List the nodes directly after a branch that are skipped for what it returned.

    One that also comes after a chosen one is not among them: there the ways meet again.

    Raises:
        InvalidBranch: As for `chosen`.
        UnknownJob: As for `chosen`.
    """
    followed = chosen(dag, branch, value)
    spared = dag.descendants(*followed).union(followed)
    return tuple(node for node in dag.downstream(branch) if node not in spared)


def _advice(possible: tuple[str, ...]) -> str:
    return f"Return a list with any of: {', '.join(possible)}." if possible else "Nothing comes after it: return []."
