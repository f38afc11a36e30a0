"""JSON Schemas of payloads: what is valid, and every reason why something is not.

Owns the check of a schema and the check of a payload. Reads no records, and nothing from
the network or the disk: a schema that refers to another document is refused.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from eventic_core.errors import Invalid
from eventic_core.records.stored_form import json_form

if TYPE_CHECKING:
    from jsonschema_rs import Validator

_KEPT_VALIDATORS: Final = 256
"""Compiling takes longer than most checks; a process sees few schemas, and a compiled one takes some kilobytes."""
_MAX_MESSAGE_CHARACTERS: Final = 300


@dataclass(frozen=True, slots=True)
class SchemaViolation:
    """One reason why data does not fit: where, as keys and indexes from the top, and why."""

    loc: tuple[str | int, ...]
    message: str

    @property
    def path(self) -> str:
        """Where, as `address.lines.0`; empty for the data as a whole."""
        return ".".join(map(str, self.loc))

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.loc else self.message


@dataclass(frozen=True, slots=True)
class SchemaValidationResult:
    """Whether data fits a schema, and all reasons why not, in no particular order."""

    valid: bool
    errors: tuple[SchemaViolation, ...] = ()


class Schema:
    """A JSON Schema: Draft 7, or the draft its `$schema` names; equal to another with the same definition.

    Formats are checked in Draft 7 and older; from 2019-09 on they are annotations, as these drafts have it.

    Raises:
        Invalid: It is no dictionary, breaks the rules of its draft, or refers to another document.
    """

    __slots__ = ("_text", "_validator")

    def __init__(self, definition: dict[str, Any]) -> None:
        if not isinstance(cast("object", definition), dict):
            message = f"Invalid JSON Schema: it must be a dictionary, not {type(definition).__name__}."
            raise Invalid(message)
        try:
            self._text = json.dumps(definition, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            message = f"Invalid JSON Schema: JSON cannot hold it: {error}."
            raise Invalid(message) from error
        self._validator = _compiled(self._text)

    @property
    def definition(self) -> dict[str, Any]:
        """A copy of the definition."""
        found: dict[str, Any] = json.loads(self._text)
        return found

    def validate(self, data: Any) -> SchemaValidationResult:
        """Check data in the form it would be stored in: moments, UUIDs, decimals and models as their JSON.

        What JSON cannot hold (NaN, bytes, a set) is a reason too, whatever the schema says of it.
        """
        form, refused = json_form(data)
        return result([SchemaViolation(loc, what) for loc, what in refused] or self._violations(form))

    def _violations(self, data: Any) -> list[SchemaViolation]:
        try:
            return [
                SchemaViolation(tuple(error.instance_path), _shortened(error.message))
                for error in self._validator.iter_errors(data)
            ]
        except ValueError as error:  # what the validator cannot take in, such as half a surrogate pair
            return [SchemaViolation((), f"JSON cannot hold it: {error}")]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"Schema({_shortened(self._text)})"


def result(errors: list[SchemaViolation]) -> SchemaValidationResult:
    """Make the result of a check that found these."""
    return SchemaValidationResult(not errors, tuple(errors))


def json_violations(data: Any) -> list[SchemaViolation]:
    """Find what JSON cannot hold, or would give back as something else: NaN, bytes, sets, keys that are no text."""
    return [SchemaViolation(loc, what) for loc, what in json_form(data)[1]]


@functools.lru_cache(maxsize=_KEPT_VALIDATORS)
def _compiled(text: str) -> Validator:
    import jsonschema_rs

    cls = jsonschema_rs.validator_for if '"$schema":' in text and "$schema" in json.loads(text) else None
    try:
        return (cls or jsonschema_rs.Draft7Validator)(text, offline=True)
    except ValueError as error:
        raise Invalid(f"Invalid JSON Schema: {_reason(error)}") from error


def _reason(error: ValueError) -> str:
    """Say in a line what is wrong with a schema, and where in it."""
    path = ".".join(map(str, getattr(error, "instance_path", ())))
    line = _shortened(getattr(error, "message", "") or str(error).splitlines()[0])
    return f"{path}: {line}" if path else line


def _shortened(text: str) -> str:
    """Cut a message that quotes the data: one payload can be a megabyte."""
    return text if len(text) <= _MAX_MESSAGE_CHARACTERS else text[:_MAX_MESSAGE_CHARACTERS] + "..."
