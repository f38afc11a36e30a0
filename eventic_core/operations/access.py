"""Who may do what: roles, principals, and the bearer tokens by which they are told.

Pure: knows no request and no setting, and keeps digests only.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from eventic_core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME: Final = re.compile(r"[\w.@+-]{1,100}")
_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})", re.IGNORECASE)
_SHORTEST: Final = 16
_LONGEST: Final = 1024
_FORM: Final = (
    "Write NAME:ROLE:TOKEN, several with commas between: the role is read, operate or admin, the token at least "
    f"{_SHORTEST} characters or sha256: and its digest in hex."
)


class Role(StrEnum):
    """What somebody may do; each may do what those before it may.

    `READ` sees lists and metrics; `OPERATE` pauses, resumes, cancels and retries; `ADMIN` also does what cannot be
    taken back: drain, discard, erase, purge.
    """

    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"

    def allows(self, needed: Role) -> bool:
        """Tell whether it is the role needed, or one that may more."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who was told from others.

    Attributes:
        name: Stamped as actor on what they do.
        role: What they may do.

    Raises:
        ConfigurationError: The name is empty, or has more than letters, digits and `._@+-`, or the role is none.
    """

    name: str
    role: Role

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            message = "A principal's name is 1 to 100 letters, digits and any of ._@+-; this one is not."
            raise ConfigurationError(message)
        if self.role not in list(Role):
            message = f"The role of {self.name} is none of {', '.join(Role)}."
            raise ConfigurationError(message)
        object.__setattr__(self, "role", Role(self.role))


class Tokens:
    """The tokens that are known, as digests."""

    def __init__(self, principals: Mapping[bytes, Principal]) -> None:
        self._principals = dict(principals)

    def __bool__(self) -> bool:
        return bool(self._principals)

    def __repr__(self) -> str:
        return f"Tokens({', '.join(f'{one.name}:{one.role}' for one in self._principals.values())})"

    @staticmethod
    @lru_cache(maxsize=8)
    def parse(text: str) -> Tokens:
        """Read the setting `api_tokens`; an empty one gives none.

        Raises:
            ConfigurationError: An entry is not of the form, or two share a token; shows none.
        """
        principals: dict[bytes, Principal] = {}
        for number, entry in enumerate(filter(None, (part.strip() for part in text.split(","))), start=1):
            digest, principal = _read(entry, number)
            if digest in principals:
                message = f"The setting api_tokens has one token twice, the second time as entry {number}."
                raise ConfigurationError(message)
            principals[digest] = principal
        return Tokens(principals)

    def find(self, presented: str) -> Principal | None:
        """Find whose token it is, in a time that does not depend on how much of it is right."""
        if len(presented) > _LONGEST:
            return None
        digest = hashlib.sha256(presented.encode()).digest()
        found = None
        for known, principal in self._principals.items():
            if hmac.compare_digest(known, digest):
                found = principal
        return found

    def find_in_header(self, authorization: str | None) -> Principal | None:
        """Find whose token an `Authorization: Bearer ...` header holds; `None` for any other."""
        scheme, _, token = (authorization or "").partition(" ")
        return self.find(token.strip()) if scheme.lower() == "bearer" else None


def _read(entry: str, number: int) -> tuple[bytes, Principal]:
    name, _, rest = entry.partition(":")
    role, _, token = rest.partition(":")
    if not _NAME.fullmatch(name) or role not in list(Role) or not _SHORTEST <= len(token) <= _LONGEST:
        message = f"Entry {number} of the setting api_tokens cannot be used. {_FORM}"
        raise ConfigurationError(message)
    if digest := _DIGEST.fullmatch(token):
        return bytes.fromhex(digest[1]), Principal(name, Role(role))
    if token.lower().startswith("sha256:"):
        message = f"Entry {number} of the setting api_tokens has a digest that is not 64 hexadecimal digits. {_FORM}"
        raise ConfigurationError(message)
    return hashlib.sha256(token.encode()).digest(), Principal(name, Role(role))
