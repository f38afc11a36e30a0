"""Every setting of the package, and the one order in which the database URL is looked for.

Owns the environment variables, the forms of a database URL and the names DBOS accepts. Opens no connection and imports
neither SQLAlchemy nor DBOS.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import yaml
from dotenv import dotenv_values
from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from eventic_core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

PREFIX: Final = "EVENTIC_"
EMBEDDED: Final = "embedded"  # in place of a database URL: the embedded server
NOWHERE: Final = "nowhere"  # the source of a database URL that no place names
_URL_VARIABLES: Final = ("EVENTIC_DATABASE_URL", "DATABASE_URL", "DBOS_DATABASE_URL")
_DBOS_CONFIG: Final = "dbos-config.yaml"
URL_PLACES: Final = ("argument", *_URL_VARIABLES, _DBOS_CONFIG)  # the first that has one wins

_SCHEME = re.compile(r"\s*(?:postgres|postgresql|postgresql\+psycopg)://", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<=://)([^:/?#@]*):.*@", re.DOTALL)
_NO_PORT = re.compile(r"(?<=://)([^:/?#]*):(?!\d{1,5}(?:[/?]|$)).*", re.DOTALL)  # without a host: a password
_SECRET_PARAMETER = re.compile(r"((?:^|[?&\s])(?:ssl)?password\s*=)[^&#]*", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_NAME_MIN, _NAME_MAX = 3, 256
_UPPER = BeforeValidator(lambda value: str(value).upper())
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], _UPPER]


class Settings(BaseSettings):
    """The settings of one application; an argument wins over the environment, the environment over `.env`.

    Each field is read from `EVENTIC_<FIELD>`, the database URL also from the other `URL_PLACES`. An argument of `None`
    and an empty variable count as not given. A bad value, an unknown argument or variable is a ConfigurationError.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str = Field(
        default="eventic", min_length=1, description="The application; `slug` gives the form DBOS accepts."
    )
    database_url: SecretStr | None = Field(default=None, description="`postgresql+psycopg://...` or `embedded`.")
    database_source: str = Field(default=NOWHERE, description="The place the database URL came from.")
    app_version: str = Field(
        default="1", min_length=1, description="Runs stay with workers of the version they began in."
    )
    checkpoints: Literal["statement", "datasource"] = Field(
        default="statement", description="How a run's writes are put on record: in one statement, or DBOS's datasource."
    )
    dispatcher: Literal["own", "dbos"] = Field(
        default="own", description="Who finds work: one dispatcher for all queues, or DBOS's thread for each."
    )
    drain_seconds: float = Field(default=30.0, ge=0, description="How long stopping waits for work that runs.")
    auto_migrate: bool = Field(default=True, description="Whether starting brings the tables up to date.")
    pool_size: int = Field(default=10, ge=1, description="Connections kept by one process.")
    statement_timeout_seconds: float | None = Field(default=None, gt=0, description="Limit of one statement.")
    reconnect_seconds: float = Field(default=30.0, ge=0, description="How long a call waits for a lost Postgres.")
    max_record_bytes: int = Field(default=1_048_576, ge=1, description="Largest JSON of one version.")
    max_body_bytes: int = Field(default=1_048_576, ge=1, description="Largest body of a request to the app.")
    api_tokens: SecretStr | None = Field(
        default=None, description="Who may call the package's routes: `name:role:token`, several with commas between."
    )
    blocking_in_loop: bool = Field(default=False, description="Whether blocking calls may run in an event loop.")
    embedded_directory: Path = Field(default=Path(".eventic"), description="Where the embedded server keeps its data.")
    log_level: LogLevel | None = Field(default=None, description="Level of the package's loggers, if to be set.")

    def __init__(self, **values: Any) -> None:
        given = {key: value for key, value in values.items() if value is not None}
        found = _from_environment(_environment(), fields=set(type(self).model_fields))
        url = given.pop("database_url", None)
        resolved, source = resolve_database_url(url.get_secret_value() if isinstance(url, SecretStr) else url)
        if resolved is not None:
            given |= {"database_url": resolved, "database_source": source}
        try:
            super().__init__(**(found | given))
        except ValidationError as error:
            raise ConfigurationError(_explain(error, given)) from None

    @classmethod
    def settings_customise_sources(cls, *_: Any, init_settings: Any, **__: Any) -> tuple[Any, ...]:  # type: ignore[override]
        """Read nothing behind `__init__`, which knows where each value came from."""
        return (init_settings,)


def resolve_database_url(argument: str | None = None) -> tuple[str | None, str]:
    """Find the database URL in the first of `URL_PLACES` that has one.

    Returns:
        What `normalise_url` gives, `"embedded"` or `None`; and the place, `"nowhere"` for `None`.
    """
    environment = _environment()
    for place, value in [("argument", argument), *((name, environment.get(name)) for name in _URL_VARIABLES)]:
        if value is not None and value.strip():
            return _accept(value, place), place
    configured = _configured_url(environment)
    return (None, NOWHERE) if configured is None else (_accept(configured, _DBOS_CONFIG), _DBOS_CONFIG)


def normalise_url(url: str) -> str:
    """Rewrite a Postgres URL to `postgresql+psycopg://...`, which SQLAlchemy 2.0 and 2.1 read alike; refuse others."""
    scheme = _SCHEME.match(url)
    if scheme is None:
        remedy = "Write postgresql://user:password@host:5432/name."
        raise ConfigurationError(f"The database URL {safe_url(url)!r} is not one of Postgres. {remedy}")
    rest = url[scheme.end() :].strip()
    if not _is_readable(f"postgresql://{rest}"):
        remedy = "Percent-encode special characters in user and password, and name one host with a numeric port."
        raise ConfigurationError(f"The database URL {safe_url(url)!r} cannot be read. {remedy}")
    return f"postgresql+psycopg://{rest}"


def libpq_url(url: str) -> str:
    """Rewrite a Postgres URL to the `postgresql://...` that libpq, psycopg and DBOS read; refuse others."""
    return "postgresql://" + normalise_url(url).partition("://")[2]


def safe_url(url: str) -> str:
    """Hide every password in a URL, however malformed it is, so that it can be shown."""
    hidden = _SECRET_PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url.strip()))
    return hidden if "@" in hidden else _NO_PORT.sub(r"\1:***", hidden)


def slug(name: str) -> str:
    """Turn any name into one DBOS accepts: 3 to 256 characters of `a-z`, `0-9`, `-` and `_`.

    Letters lose accents and case; a run of other characters becomes one hyphen, none at the ends. A short name gets
    `-app` appended; a long one is cut and ends in a hash of the whole, so that two stay apart. A slug is its own slug.
    A name of which no letter or digit survives is a ConfigurationError.
    """
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold())
    plain = "".join(character for character in folded if not unicodedata.combining(character))
    text = re.sub(r"[^a-z0-9_]+", "-", plain).strip("-")
    if not text.replace("_", "").replace("-", ""):
        raise ConfigurationError(f"The name {name!r} has no letter or digit of a-z and 0-9. Choose one that has.")
    if len(text) < _NAME_MIN:
        return f"{text}-app"
    if len(text) > _NAME_MAX:
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return f"{text[: _NAME_MAX - 9].rstrip('-')}-{digest}"
    return text


def _environment() -> dict[str, str]:
    """Merge `.env` of the working directory with the real variables, which win."""
    return {key: value for key, value in dotenv_values(".env").items() if value is not None} | dict(os.environ)


def _from_environment(environment: Mapping[str, str], *, fields: set[str]) -> dict[str, str]:
    known = {f"{PREFIX}{field.upper()}": field for field in fields - {"database_source"}}
    for key in sorted(environment.keys() - known.keys() - {"EVENTIC_APP"}):
        if key.startswith(PREFIX) and not key.startswith("EVENTIC_TEST_"):
            raise ConfigurationError(f"The variable {key} is no setting. {_nearest(key, known)}")
    return {known[key]: environment[key] for key in known if environment.get(key) and key not in _URL_VARIABLES}


def _configured_url(environment: Mapping[str, str]) -> str | None:
    """Read `system_database_url` of dbos-config.yaml; one with an unset variable counts as absent."""
    try:
        content = yaml.safe_load(Path(_DBOS_CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = type(error).__name__  # its text may quote a password
        raise ConfigurationError(f"{_DBOS_CONFIG} in the working directory cannot be read ({reason}).") from None
    value = content.get("system_database_url") if isinstance(content, dict) else None
    if not isinstance(value, str) or not all(environment.get(name) for name in _VARIABLE.findall(value)):
        return None
    return _VARIABLE.sub(lambda match: environment[match[1]], value).strip() or None


def _is_readable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return not parts.fragment and parts.netloc.count("@") <= 1 and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _accept(value: str, place: str) -> str:
    if value.strip() == EMBEDDED:
        return EMBEDDED
    try:
        return normalise_url(value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error.message} It came from: {place}.") from None


def _explain(error: ValidationError, given: Mapping[str, Any]) -> str:
    problem = error.errors(include_input=False, include_url=False)[0]
    field = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        return f"The argument {field} is no setting. {_nearest(field, Settings.model_fields)}"
    place = f"argument {field}" if field in given else f"variable {PREFIX}{field.upper()}"
    return f"The {place} does not fit: {problem['msg']}."


def _nearest(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]}?" if near else f"The settings are {', '.join(sorted(known))}."
