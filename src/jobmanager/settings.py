"""Settings: what may be configured, read once from a mapping. The resolver draws the conclusions."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal
from urllib.parse import quote, unquote, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from jobmanager.clock import parse_duration
from jobmanager.errors import SettingsError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

PREFIX = "JOBMANAGER_"

# Our test suite's own switches, and what Kubernetes sets for a service that is called jobmanager.
IGNORED = re.compile(r"JOBMANAGER_TEST_|JOBMANAGER_REQUIRE_SERVERS$|.*_SERVICE_|.*_PORT")

SMALLEST_SECRET = 32
# Placeholders of templates and tutorials, also with something after them.
PLACEHOLDERS = (
    "your-secret",
    "your_secret",
    "yoursecret",
    "change-me",
    "change_me",
    "changeme",
    "placeholder",
    "example",
    "secret-key-here",
)
HIDDEN = "***"
MOST_SHOWN = 80

_SECRET_PARAMETER = re.compile(
    r"([?&][^=&]*(?:password|passwd|secret|token|key)[^=&]*)=([^&]*)", re.IGNORECASE
)
_SEVERAL = re.compile(r";(?=[a-z][a-z0-9+.-]*://)")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(:\d{1,5})?")
_TO_ENCODE = re.compile(r"[/?#@\[\]:\s]|%(?![0-9A-Fa-f]{2})")
_AMBIGUOUS = "the URL with user and password percent-encoded: @ as %40, / as %2F, ? as %3F, # as %23"
_YEAR = timedelta(days=366).total_seconds()


def _environment(name: str) -> str:
    lowered = name.lower()
    if lowered != "production" and (lowered == "prod" or get_close_matches(lowered, ["production"], 1, 0.8)):
        raise ValueError("'production' if that is meant, else a name that looks less like it")
    return lowered


def _namespace(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]{0,62}", name):
        raise ValueError("1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or a digit")
    return name


def _database_url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    if scheme == "memory" and not rest:
        return "memory://"
    if scheme == "sqlite" and re.fullmatch(r"/(?!:memory:)[^?]+", rest):
        path = os.path.abspath(unquote(rest[1:]))  # noqa: PTH100 - resolve() would follow links, absolute() keeps ".."
        return "sqlite:///" + re.sub(r"[%?#]", lambda sign: f"%{ord(sign[0]):02X}", path)
    if postgresql := _postgresql(url):
        return postgresql
    raise ValueError("sqlite:///file.db, postgresql://user@host/name or memory://")


def _pg_cron_url(url: str) -> str:
    if postgresql := _postgresql(url):
        return postgresql
    raise ValueError("postgresql://user@host/name")


def _postgresql(url: str) -> str | None:
    """Spell a PostgreSQL URL as SQLAlchemy does; None for any other URL, ValueError for hosts that are none."""
    named = re.fullmatch(r"postgres(?:ql)?(\+psycopg)?://(.+)", url)
    if named is None:
        return None
    hosts = re.split(r"[/?#]", percent_encoded(url).partition("://")[2], maxsplit=1)[0].rpartition("@")[2]
    if not all(map(_HOST.fullmatch, hosts.split(","))):
        raise ValueError("postgresql://user@host:5432/name, or several hosts as host1:5432,host2:5432")
    return f"postgresql{named[1] or ''}://{named[2]}"


def _broker_url(url: str) -> str:
    brokers = url.split(";")
    schemes = {broker.partition("://")[0] for broker in brokers}
    if not all(re.match(r"[a-z][a-z0-9+.-]*://", broker) for broker in brokers):
        raise ValueError("a broker's URL, such as redis://host:6379/0")
    if any(scheme.startswith("sentinel") for scheme in schemes):
        raise ValueError(
            "redis://host:6379/0 of the primary, or of a proxy before it: Sentinel is known to no part of this version"
        )
    if len(schemes) > 1:
        raise ValueError("brokers of one kind, with ; between")
    for broker in brokers:
        percent_encoded(broker)
    return url


def _public_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        plain = "@" not in parts.netloc and not parts.query and not parts.fragment
    except ValueError:  # a port or an address that is none
        whole = plain = False
    if not (whole and plain):
        raise ValueError("https://host/path without user, password or query")
    return url.rstrip("/")


def _secret(secret: SecretStr) -> SecretStr:
    texts = secret.get_secret_value().split()
    if any({text[0], text[-1]} & set("\"'") for text in texts):
        raise ValueError("the secret without quotation marks: they would be part of the key")
    if not 1 <= len(texts) <= 2 or not all(map(_is_random_enough, texts)):
        raise ValueError(
            f"at least {SMALLEST_SECRET} random bytes, such as `openssl rand -base64 32` prints; "
            "two of them, with a blank between, while one is replaced"
        )
    return secret


def _is_random_enough(text: str) -> bool:
    plain = text.removeprefix("whsec_")
    placeholder = any(word in text.lower() for word in PLACEHOLDERS)
    return len(plain.encode()) >= SMALLEST_SECRET and len(set(plain)) >= 8 and not placeholder


def _run_path(path: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", path) or {".", ".."} & set(path.split("/")):
        raise ValueError("a path such as /jobs/run, of letters, digits and ._~-")
    return path


def _read_seconds(value: Any) -> Any:
    """Return the seconds of a text with units, such as 5m; anything else as it is."""
    return parse_duration(value).total_seconds() if _has_units(value) else value


def _read_days(value: Any) -> Any:
    """Return the whole days of a text with units, such as 12w; anything else as it is."""
    if not _has_units(value):
        return value
    days = parse_duration(value) / timedelta(days=1)
    return int(days) if days.is_integer() else days


def _has_units(value: Any) -> bool:
    if (
        not isinstance(value, str)
        or not re.search(r"\d\s*[a-z]", value, re.IGNORECASE)
        or "e" in value.lower()
    ):
        return False
    try:
        parse_duration(value)
    except ValueError:
        return False
    return True


Seconds = Annotated[float, Field(gt=0, le=_YEAR, allow_inf_nan=False), BeforeValidator(_read_seconds)]


class Settings(BaseSettings):
    """Everything that can be configured: validated and immutable.

    `Settings(...)` takes keyword arguments and reads no environment; `Settings.from_env()` reads the `JOBMANAGER_*` variables.
    Both raise SettingsError, one line with the variable, its value and what is allowed. Neither the secret nor a password
    in a URL appears in the error, in repr or in str. The page of settings describes each field.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        frozen=True, extra="forbid", str_strip_whitespace=True, hide_input_in_errors=True
    )

    disabled: bool = Field(default=False, description="Nothing fires, whatever else is set")
    backend: str | None = Field(
        default=None, min_length=1, description="Who keeps the time; the resolver decides if unset"
    )
    environment: Annotated[str, AfterValidator(_environment)] = Field(
        default="development", description="`production` lets a configured remote backend be chosen"
    )
    database_url: Annotated[str, AfterValidator(_database_url)] = Field(
        default="sqlite:///jobmanager.db", description="Where runs are kept; a relative file becomes absolute"
    )
    namespace: Annotated[str, AfterValidator(_namespace)] = Field(
        default="default", description="Keeps systems apart that share a database"
    )
    app: str | None = Field(default=None, min_length=1, description="module:manager, for the command line")
    workers: int = Field(default=10, gt=0, le=10_000, description="Threads that execute runs in this process")
    coroutines: int = Field(
        default=1000, gt=0, le=100_000, description="Coroutine handlers that run at once in this process"
    )
    lease_seconds: Seconds = Field(
        default=30, description="A heartbeat unchanged for so long means a dead process"
    )
    grace_seconds: Seconds = Field(default=60, description="A tick is on time if it is at most this late")
    sweep_seconds: Seconds = Field(default=30, description="Time between two checks of the account")
    drain_seconds: Annotated[float, BeforeValidator(_read_seconds)] = Field(
        default=25,
        ge=0,
        le=_YEAR,
        allow_inf_nan=False,
        description="How long running work may still take at stop",
    )
    watchdog: Literal["log", "exit", "off"] = Field(
        default="log",
        description="What happens when this process stands still: it is logged; with `exit` the process also ends, for a restart",
    )
    durability: Literal["strict", "relaxed"] = Field(
        default="strict", description="`relaxed` may lose the last moments to a power cut, never to a crash"
    )
    capture_logs: bool = Field(default=True, description="Keep what a handler logs with its run")
    retention_days: Annotated[int, BeforeValidator(_read_days)] = Field(
        default=90, gt=0, le=36_500, description="Runs that ended earlier are purged"
    )
    celery_broker_url: Annotated[str, AfterValidator(_broker_url)] | None = Field(
        default=None, description="Where Celery's messages go"
    )
    celery_group_max: int = Field(
        default=1, ge=1, le=100, description="Runs that may travel in one message, for many short jobs"
    )
    public_url: Annotated[str, AfterValidator(_public_url)] | None = Field(
        default=None, description="Where the database reaches this application"
    )
    secret: Annotated[SecretStr, AfterValidator(_secret)] | None = Field(
        default=None,
        description="Signs and checks calls to the endpoint; two, with a blank between, while one is replaced",
    )
    auth: Literal["signature", "bearer"] = Field(
        default="signature", description="How the database's calls prove that they are its own"
    )
    run_path: Annotated[str, AfterValidator(_run_path)] = Field(
        default="/jobs/run", description="Path of the endpoint, below PUBLIC_URL"
    )
    wait: bool = Field(
        default=False,
        description="Answer a call only when its runs have ended: for hosts that stop after the answer",
    )
    pg_cron_url: Annotated[str, AfterValidator(_pg_cron_url)] | None = Field(
        default=None, description="The database that has pg_cron, if not DATABASE_URL's"
    )
    pg_cron_transport: Literal["auto", "pg_net", "http", "notify"] = Field(
        default="auto", description="How the database reaches this application; `auto` looks what it can do"
    )
    pg_cron_layout: Literal["auto", "dispatcher", "entries"] = Field(
        default="dispatcher",
        description="One pg_cron entry for all jobs, or one for each; `auto` decides by their number",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what Python would quietly take for something else: a bool for a number, bytes for a text, marks around a text."""
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and kind in (int, float):
            raise ValueError("a number")
        if isinstance(value, (bytes, bytearray)):
            raise ValueError("text")  # noqa: TRY004 - pydantic takes a ValueError
        if isinstance(value, str) and info.field_name != "secret":
            if any(ord(sign) < 32 or sign == "\x7f" for sign in value.strip()):
                raise ValueError("text without control characters")
            if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
                raise ValueError("the value without quotation marks around it")
        return value

    if not TYPE_CHECKING:  # for a type checker the fields are the signature

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]  # the next one shows when this one is repaired
                # Not chained: pydantic's error holds the input, which may be the secret.
                raise _settings_error(first) from None

    @classmethod
    def from_env(cls, mapping: Mapping[str, str] = os.environ) -> Settings:
        """Build settings from the `JOBMANAGER_*` names of `mapping`, the environment by default.

        An empty value counts as unset, except for the secret. Raises SettingsError for a value that cannot be used and for a
        name that resembles a known one; `unknown_names` lists the others.
        """
        for name in cls.unknown_names(mapping):
            if meant := _suggestion(name.removeprefix(PREFIX).lower()):
                raise SettingsError(f"{name} is not a setting. Did you mean {_variable(meant)}?", name=name)
        texts = {
            field: mapping[_variable(field)].strip()
            for field in cls.model_fields
            if _variable(field) in mapping
        }
        given: dict[str, Any] = {field: text for field, text in texts.items() if text or field == "secret"}
        return cls(**given)

    @classmethod
    def unknown_names(cls, mapping: Mapping[str, str] = os.environ) -> tuple[str, ...]:
        """List the `JOBMANAGER_*` names of `mapping` that are no setting, sorted."""
        known = {_variable(field) for field in cls.model_fields}
        ours = (name for name in mapping if name.startswith(PREFIX) and not IGNORED.match(name))
        return tuple(sorted(name for name in ours if name not in known))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the arguments only: `from_env` brings the environment in."""
        return (init_settings,)

    @property
    def is_production(self) -> bool:
        return self.environment == "production"

    @property
    def database_path(self) -> Path | None:
        """The absolute path of the SQLite file; None for another store."""
        scheme, _, rest = self.database_url.partition(":///")
        return Path(unquote(rest)) if scheme == "sqlite" else None

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.lease_seconds)

    @property
    def grace(self) -> timedelta:
        return timedelta(seconds=self.grace_seconds)

    @property
    def sweep(self) -> timedelta:
        return timedelta(seconds=self.sweep_seconds)

    @property
    def drain(self) -> timedelta:
        return timedelta(seconds=self.drain_seconds)

    @property
    def retention(self) -> timedelta:
        return timedelta(days=self.retention_days)

    def secret_values(self) -> frozenset[str]:
        """Return every text to redact: the secrets, and the passwords in URLs, percent-encoded and decoded."""
        urls = [
            url for field, value in self if field.endswith("_url") and value for url in _SEVERAL.split(value)
        ]
        written = {password for url in urls for password in (_taken_apart(url)[1], *_secret_parameters(url))}
        return frozenset({*self.secrets, *written, *map(unquote, written)} - {""})

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets that are valid now: none, one, or two during a rotation."""
        return tuple(self.secret.get_secret_value().split()) if self.secret else ()

    @property
    def run_url(self) -> str | None:
        """The URL that the database calls: `public_url` followed by `run_path`; None without a public URL."""
        return None if self.public_url is None else self.public_url + self.run_path

    def shown(self) -> dict[str, Any]:
        """Return each setting by name, with passwords and the secret replaced by `***`."""
        return {field: _shown(field, value) for field, value in self}

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return self.shown().items()


def _variable(field: str) -> str:
    return PREFIX + field.upper()


def _suggestion(field: str) -> str | None:
    return next(iter(get_close_matches(field, Settings.model_fields, n=1, cutoff=0.74)), None)


def _shown(field: str, value: object) -> object:
    if field == "secret" and value is not None:
        return HIDDEN
    if field.endswith("_url") and isinstance(value, str):
        return shown_url(value)
    return value


def key_of(secret: str) -> bytes:
    """Return the bytes that sign: decoded from base64 after `whsec_`, else those of the text itself."""
    prefix, written, encoded = secret.partition("whsec_")
    if not written or prefix:
        return secret.encode()
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        pass  # not chained: the error could show a piece of it
    raise SettingsError(
        "JOBMANAGER_SECRET begins with whsec_, but no base64 follows. Copy it whole, or leave the prefix out.",
        name="JOBMANAGER_SECRET",
    )


def percent_encoded(url: str) -> str:
    """Return the URL with user and password as a URL has them, whatever signs stand in them.

    Raise ValueError, which shows none of it, where the end of the password cannot be told.
    """
    scheme, sign, rest = url.partition("://")
    place, path = _end_of_user(rest)
    if place < 0:
        return url
    user, colon, password = rest[:place].partition(":")
    return f"{scheme}{sign}{_encoded(user)}{colon}{_encoded(password)}@{path}"


def _end_of_user(rest: str) -> tuple[int, str]:
    """Return the place of the @ that ends user and password, -1 without one, and what follows it."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path = rest.partition("?")[0][len(authority) :]
    place = authority.rfind("@")
    named = ":" in (authority[:place] if place >= 0 else authority)
    if place < 0 and named and "@" in rest and not all(map(_HOST.fullmatch, authority.split(","))):
        place = (authority + path if "@" in path else rest).rfind("@")
    elif named and "@" in path:
        raise ValueError(_AMBIGUOUS)
    return place, rest[place + 1 :]


def _encoded(text: str) -> str:
    return quote(text, safe="") if _TO_ENCODE.search(text) else text


def shown_url(url: str) -> str:
    """Return the URL, or several with ; between, with each password, and parameters that look like one, replaced by `***`."""
    several = _SEVERAL.split(url)
    if len(several) > 1:
        return ";".join(map(shown_url, several))
    user, password, rest = _taken_apart(url)
    shown = f"{user}:{HIDDEN}@{rest}" if password else url
    return _SECRET_PARAMETER.sub(rf"\1={HIDDEN}", shown)


def _taken_apart(url: str) -> tuple[str, str, str]:
    """Return scheme and user, the password as it is written, and what follows its @; where its end cannot be told, the last @."""
    scheme, sign, rest = url.partition("://")
    try:
        place, _ = _end_of_user(rest)
    except ValueError:
        place = rest.rfind("@")
    user, _, password = rest[: max(place, 0)].partition(":")
    return f"{scheme}{sign}{user}", password, rest[place + 1 :]


def _secret_parameters(url: str) -> list[str]:
    return [found[2] for found in _SECRET_PARAMETER.finditer(url)]


_ALLOWED = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number of seconds, or a text such as 30s or 5m",
    "finite_number": "a number of seconds",
    "string": "text",
    "literal_error": "{expected}",
    "greater_than": "a number greater than {gt:g}",
    "greater_than_equal": "a number not below {ge:g}",
    "less_than_equal": "a number not above {le:.0f}",
    "value_error": "{error}",
}


def _settings_error(problem: ErrorDetails) -> SettingsError:
    """Build the error for one of pydantic's findings."""
    field, kind = str(problem["loc"][0]), problem["type"]
    if kind == "extra_forbidden":
        meant = _suggestion(field)
        return SettingsError(
            f"{field} is not a setting." + (f" Did you mean {meant}?" if meant else ""), name=field
        )
    allowed = _ALLOWED.get(kind) or _ALLOWED.get(kind.partition("_")[0]) or problem["msg"]
    told = _told(field, problem["input"])
    return SettingsError(
        f"{told} cannot be used: give {allowed.format(**problem.get('ctx', {}))}.", name=_variable(field)
    )


def _told(field: str, value: object) -> str:
    """Write `NAME=value` if the value may be shown; an invalid URL may hide a password anywhere after its scheme."""
    if field == "secret":
        return _variable(field)
    if field.endswith("_url"):
        scheme = re.match(r"[a-z][a-z0-9+.-]*(?=://)", value) if isinstance(value, str) else None
        return f"{_variable(field)}={scheme[0]}://..." if scheme else _variable(field)
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - the sentence about a wrong value must not fail over the value
        text = f"<{type(value).__name__}>"
    return f"{_variable(field)}={text if len(text) <= MOST_SHOWN else f'{text[:MOST_SHOWN]}...'}"
