"""The value of a context variable inside a block: what every `with` that says "meanwhile" is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from contextvars import ContextVar, Token

T = TypeVar("T")


class Setting(Generic[T]):
    """Set a variable for a block, which is given the value; for one use.

    A class, because a generator costs five times as much, and some of these surround every item of a batch.
    """

    __slots__ = ("_token", "_value", "_variable")

    def __init__(self, variable: ContextVar[T], value: T) -> None:
        self._variable = variable
        self._value = value

    def keep(self) -> None:
        """Set it for the rest of this context, which somebody made for that: `contextvars.copy_context().run(...)`."""
        self._variable.set(self._value)

    def __enter__(self) -> T:
        self._token: Token[T] = self._variable.set(self._value)
        return self._value

    def __exit__(self, *_: object) -> Literal[False]:
        self._variable.reset(self._token)
        return False
