"""Types by name: `module:Qualname`, the same in every process that imported the module.

Owns naming and finding. Never imports: a name out of a table picks among what is loaded, it cannot run code.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from eventic_core.errors import NotRegistered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MAIN = ("__main__", "__mp_main__")


def type_name(cls: type) -> str:
    """Name a type as `module:Qualname`; one of the running script by the name the script has when imported."""
    module = main_name() if cls.__module__ in _MAIN else cls.__module__
    return f"{module}:{cls.__qualname__}"


def main_name() -> str:
    """Give the name under which another process imports this process's script; `__main__` if there is none."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return _stem(file) if file else "__main__"


@lru_cache(maxsize=4)
def _stem(file: str) -> str:
    return Path(file).stem


def unfindable(cls: type) -> tuple[str, str] | None:
    """Say why no other process finds a type by its name, and the remedy; `None` if one would."""
    if "<locals>" in cls.__qualname__:
        problem = f"is a {cls.__name__}, which is defined inside a function, where no other process finds it"
        return problem, "Define it at the top level of a module."
    if "[" in cls.__qualname__:
        problem = f"is a {cls.__name__}, a parametrised generic, which has no name of its own"
        return problem, f"Define a class at the top level of a module: class Named({cls.__name__}): ..."
    if not any(found is cls for found in _found(type_name(cls))):
        problem = f"is a {cls.__name__}, but {type_name(cls)} is not that class"
        return problem, "Define it at the top level of a module, under its own name."
    return None


def find_type(name: str, accepts: Callable[[type], bool], kind: str) -> type:
    """Find a type by its name among the modules that are loaded; the running script's own win.

    Args:
        name: As `type_name` gives it.
        accepts: Tells whether the type is of the right kind.
        kind: The word for that kind in the message.

    Raises:
        NotRegistered: No loaded module holds the type, or it is of another kind.
    """
    for found in _found(name):
        if accepts(found):
            return found
        message = f"{name!r} is not of the kind {kind} in this process. Import the code that wrote it in the worker."
        raise NotRegistered(message)
    message = f"The {kind} {name!r} is not known in this process. Import its module in the worker."
    raise NotRegistered(message)


def _found(name: str) -> Iterator[type]:
    module, _, qualname = name.partition(":")
    own = main_name()
    for known in ("__main__", module) if module == own else (module,):
        if known == "__main__" and own != module:  # written by a script or session that had no name
            continue
        found = _inside(sys.modules.get(known), qualname)
        if isinstance(found, type):
            yield found


def _inside(module: object, qualname: str) -> object:
    found = module
    for part in qualname.split("."):
        if isinstance(found, ModuleType):
            # Neither a module's __getattr__ nor a lazy module's loader runs.
            namespace = ModuleType.__getattribute__(found, "__dict__")
        elif isinstance(found, type):
            namespace = vars(found)
        else:
            return None
        found = namespace.get(part)
    return None if isinstance(found, ModuleType) else found
