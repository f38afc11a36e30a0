"""The application that a command works for: its module imported, its database connected.

Imports nothing heavier than Click before there is something to connect.
"""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from eventic_core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = "eventic-cli"


def load(target: str) -> None:
    """Import the module of an application.

    Args:
        target: `package.module`, or `package.module:attribute` where it must have the attribute.

    Raises:
        ConfigurationError: There is no such module, it cannot be imported, or it has no such attribute.
    """
    name, _, attribute = target.partition(":")
    directory = os.getcwd()  # noqa: PTH109 - sys.path holds strings; a console script lacks this entry
    if directory not in sys.path:
        sys.path.insert(0, directory)
    remedy = "Name one as package.module:app, as seen from the working directory."
    try:
        found: Any = importlib.import_module(name)
    except (ImportError, ValueError, TypeError) as error:  # the last two: of a name that is none
        if not isinstance(error, ImportError) and name.strip("."):
            raise
        message = f"The module {name!r} cannot be imported: {error}. {remedy}"
        raise ConfigurationError(message) from error
    for part in attribute.split(".") if attribute else ():
        try:
            found = getattr(found, part)
        except AttributeError as error:
            message = f"The module {name!r} has no {attribute!r}: {error}. {remedy}"
            raise ConfigurationError(message) from error


def connect(given: dict[str, Any], *, default_embedded: bool = False, again: bool = False) -> None:
    """Connect as the application that was imported declared; what is given wins, whatever it did itself already.

    Args:
        given: Settings of the command line, by name.
        default_embedded: Whether the embedded server is used when no database is named anywhere.
        again: Whether to connect anew if the application has, also if nothing is given.
    """
    from eventic_core.app import Eventic

    if Eventic._store is None:  # noqa: SLF001 - the command line is the facade's other half
        Eventic._init({**(Eventic._declared or {}), **given}, default_embedded=default_embedded)  # noqa: SLF001
    elif given or again:
        settings = Eventic.settings()
        own = {name: getattr(settings, name) for name in settings.model_fields_set - {"database_source"}}
        Eventic.shutdown()
        Eventic._init({**own, **given}, default_embedded=default_embedded)  # noqa: SLF001


@contextmanager
def connected(database_url: str | None, app: str | None = None, *, actor: str | None = None) -> Iterator[None]:
    """Connect for one command, which leaves the tables at the revision they are at, and act as `actor`.

    Args:
        database_url: Beats what the application names.
        app: Its module, imported first: what it defines, and the database it names, are the command's.
        actor: Stamped on what the command writes.

    Raises:
        ConfigurationError: The module cannot be imported, or names no database while none is given.
    """
    from eventic_core.app import Eventic

    if app is not None:
        load(app)
    given: dict[str, Any] = {} if database_url is None else {"database_url": database_url}
    if Eventic._store is None:  # noqa: SLF001
        named: dict[str, Any] = {"auto_migrate": False} if Eventic._declared else {"name": _NAME, "auto_migrate": False}  # noqa: SLF001
        given = {**named, **given}
    connect(given, default_embedded=True)
    try:
        with Eventic.acting(actor=actor):
            yield
    finally:
        Eventic.shutdown()
