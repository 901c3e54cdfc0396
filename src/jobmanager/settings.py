"""Settings: what may be configured, read once from a mapping. The resolver draws the conclusions."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, unquote, urlsplit

from jobmanager.clock import parse_duration
from jobmanager.errors import SettingsError

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
_TOKENS = (
    "qstash_token",
    "qstash_current_signing_key",
    "qstash_next_signing_key",
    "trigger_dev_api_key",
    "vercel_token",
    "mcp_key",
)
_WHOLLY_SECRET = frozenset(
    {"secret", "alerts_urls", "dashboard_users", "encryption_key", "heartbeat_url", *_TOKENS}
)
"""The settings of which nothing is shown."""
_SEVERAL = re.compile(r";(?=[a-z][a-z0-9+.-]*://)")
_ADDRESS = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?"
)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(:\d{1,5})?")
_TO_ENCODE = re.compile(r"[/?#@\[\]:\s]|%(?![0-9A-Fa-f]{2})")
_AMBIGUOUS = "the URL with user and password percent-encoded: @ as %40, / as %2F, ? as %3F, # as %23"
_USER = re.compile(
    r"[^\s:,\"']{1,100}:(?:viewer|operator|admin):scrypt\.1[0-9]\.[0-9]{1,2}\.[0-9]{1,2}\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"
)
_ORIGIN = re.compile(r"https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::[0-9]{1,5})?")
_TARGET = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)(?P<bits6>/[0-9]{1,3})?\]|(?P<bare>[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)|(?P<name>[A-Za-z0-9_.-]+))"
    r"(?P<bits>/[0-9]{1,3})?(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII,
)
_STANDARD = str.maketrans("-_", "+/")  # base64, from its spelling for URLs
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


def is_address(text: str) -> bool:
    """Return whether the text is an e-mail address of ASCII characters."""
    return _ADDRESS.fullmatch(text) is not None


def _address(text: str) -> str:
    if not is_address(text):
        raise ValueError("an e-mail address, such as ops@example.org")
    return text


def _addresses(value: Any) -> tuple[str, ...]:
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, (list, tuple)) or not given:
        raise ValueError("e-mail addresses, with , between")
    return tuple(_address(str(address).strip()) for address in given)


def _ping_url(url: str) -> str:
    if not is_ping_url(url):
        raise ValueError("an http or https URL, such as https://hc-ping.com/UUID")
    return url


def is_ping_url(url: str) -> bool:
    """Return whether the text is an http or https URL with a host."""
    return re.fullmatch(r"https?://[^\s/?#@\\]+(?:[/?][^\s#]*)?", url) is not None


def _smtp_url(url: str) -> str:
    """Spell the URL with its user and password percent-encoded; ValueError, which shows none of it, for any other URL."""
    if not re.fullmatch(r"(?:smtp|smtps|starttls)://.+", url):
        raise ValueError("smtps://user:password@host:465, starttls://host:587 or smtp://host:25")
    encoded = percent_encoded(url)
    host = re.split(r"[/?#]", encoded.partition("://")[2], maxsplit=1)[0].rpartition("@")[2]
    if not host or not _HOST.fullmatch(host):
        raise ValueError("smtps://user:password@host:465, starttls://host:587 or smtp://host:25")
    return encoded


def _locale(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*", text):
        raise ValueError("a locale, such as en or de-AT")
    return text


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


class Secret:
    """A text that shows itself to `get_secret_value()` alone."""

    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        """Return the text."""
        return self._text

    def __repr__(self) -> str:
        return f"Secret({HIDDEN!r})"

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)


def _secret(given: Any) -> Secret:
    # A secret of this module or of pydantic, or the text itself.
    read = getattr(given, "get_secret_value", None)
    whole = read() if callable(read) else given
    if not isinstance(whole, str) or not _is_unicode(whole):
        raise ValueError("text")
    texts = whole.split()
    if any({text[0], text[-1]} & set("\"'") for text in texts):
        raise ValueError("the secret without quotation marks: they would be part of the key")
    if not 1 <= len(texts) <= 2 or not all(map(_is_random_enough, texts)):
        raise ValueError(
            f"at least {SMALLEST_SECRET} random bytes, such as `openssl rand -base64 32` prints; "
            "two of them, with a blank between, while one is replaced"
        )
    return Secret(whole)


def _urls(given: Any) -> Secret:
    """Read URLs of Apprise: it alone knows its schemes, and each may hold a password anywhere."""
    read = getattr(given, "get_secret_value", None)
    whole = read() if callable(read) else given
    if not isinstance(whole, str) or not all("://" in url for url in whole.split()):
        raise ValueError("URLs that Apprise knows, such as slack://..., with a blank between")
    return Secret(whole)


def _token(given: Any) -> Secret:
    """Read what a service gives out as key or token: it alone knows its form."""
    read = getattr(given, "get_secret_value", None)
    whole = read() if callable(read) else given
    if not isinstance(whole, str) or not re.fullmatch(r"[!-~]{8,4096}", whole):
        raise ValueError("the text as the service shows it, without blanks")
    return Secret(whole)


def _task(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", name):
        raise ValueError("the id of a task, of letters, digits and ._-")
    return name


def _encryption_key(given: Any) -> Secret:
    read = getattr(given, "get_secret_value", None)
    whole = read() if callable(read) else given
    if not isinstance(whole, str) or not all(map(_is_encryption_key, whole.split(","))):
        raise ValueError(
            "32 random bytes in base64, such as `openssl rand -base64 32` prints; several with commas between"
        )
    return Secret(whole)


def _is_encryption_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text.strip().translate(_STANDARD), validate=True)) == SMALLEST_SECRET
    except ValueError:
        return False


@dataclass(frozen=True)
class AllowedTarget:
    """One entry of JOBMANAGER_WEBHOOK_ALLOW: a host or a network, and its port; None for all ports."""

    host: str | None = None
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    port: int | None = None


def _webhook_allow(text: str) -> str:
    _allowed_targets(text)
    return text


def _allowed_targets(text: str) -> tuple[AllowedTarget, ...]:
    return tuple(_allowed_target(entry.strip()) for entry in text.split(","))


def _allowed_target(entry: str) -> AllowedTarget:
    found = _TARGET.fullmatch(entry)
    if found is None or not 1 <= int(found["port"] or 1) <= 65_535:
        raise ValueError(
            "hosts and networks with commas between, such as crm.internal:8443,10.1.0.0/16,[fd00::/8]:443"
        )
    port = int(found["port"]) if found["port"] else None
    try:
        network = ipaddress.ip_network(
            (found["ipv6"] or found["bare"] or found["name"]) + (found["bits6"] or found["bits"] or "")
        )
        return AllowedTarget(network=network, port=port)
    except ValueError:
        if found["name"] is None or found["bits"] or re.fullmatch(r"[0-9.]+", found["name"]):
            raise ValueError(f"networks such as 10.1.0.0/16; {entry!r} is none") from None
        return AllowedTarget(host=found["name"].lower(), port=port)


def _is_random_enough(text: str) -> bool:
    plain = text.removeprefix("whsec_")
    placeholder = any(word in text.lower() for word in PLACEHOLDERS)
    return len(plain.encode()) >= SMALLEST_SECRET and len(set(plain)) >= 8 and not placeholder


def _dashboard_users(given: Any) -> Secret:
    read = getattr(given, "get_secret_value", None)
    whole: Any = read() if callable(read) else given
    words = whole.replace(",", " ").split() if isinstance(whole, str) else []
    if not words or not all(map(_USER.fullmatch, words)):
        raise ValueError("what `jobmanager dashboard-user NAME` prints; several users with blanks between")
    return Secret(whole)


def _origins(text: str) -> str:
    for origin in text.split(","):
        if not _ORIGIN.fullmatch(origin.strip()):
            raise ValueError("origins such as https://ops.example.com, with commas between and no path")
    return text


def _run_path(path: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", path) or {".", ".."} & set(path.split("/")):
        raise ValueError("a path such as /jobs/run, of letters, digits and ._~-")
    return path


def _has_units(value: object) -> bool:
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


# ---------------------------------------------------------------- kinds of values: each reads one, or says in a ValueError what it takes


def flag(value: Any) -> bool:
    """Read a bool, 0, 1, or a word for one."""
    word = value.lower() if isinstance(value, str) else value
    if not isinstance(word, (str, int, float)) or word not in {*_YES, *_NO}:
        raise ValueError("true or false")
    return word in _YES


_YES = (True, "true", "t", "yes", "y", "on", "1")
_NO = (False, "false", "f", "no", "n", "off", "0")


def text(value: Any) -> str:
    """Read a text that is not empty."""
    if not isinstance(value, str) or not value or not _is_unicode(value):
        raise ValueError("text")
    return value


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half a pair of surrogates
        return False
    return True


@dataclass(frozen=True)
class Text:
    """A text of a certain form."""

    check: Callable[[str], str]

    def __call__(self, value: Any) -> str:
        return self.check(text(value))


@dataclass(frozen=True)
class Word:
    """One of a few words."""

    words: Sequence[str]

    def __call__(self, value: Any) -> str:
        if not isinstance(value, str) or value not in self.words:
            *first, last = map(repr, self.words)
            raise ValueError(f"{', '.join(first)} or {last}")
        return value


@dataclass(frozen=True)
class Number:
    """A number above 0, or from 0 on where `zero` is set, up to `high`."""

    high: float
    zero: bool = False

    def bounded(self, number: float) -> float:
        """Return the number if it lies within the bounds."""
        if number < 0 or (number == 0 and not self.zero):
            raise ValueError("a number not below 0" if self.zero else "a number greater than 0")
        if number > self.high:
            raise ValueError(f"a number not above {self.high:.0f}")
        return number


class Whole(Number):
    """A whole number."""

    def __call__(self, value: Any) -> int:
        if isinstance(value, bool):
            raise ValueError("a number")  # noqa: TRY004 - one error for whatever is no such value
        try:
            number = int(value) if isinstance(value, str) else value
        except ValueError:
            number = None
        if not isinstance(number, (int, float)) or number != number // 1:
            raise ValueError("a whole number")
        return int(self.bounded(number))


class Days(Whole):
    """A whole number of days, or a text with units, such as 12w."""

    def __call__(self, value: Any) -> int:
        return super().__call__(parse_duration(value) / timedelta(days=1) if _has_units(value) else value)


class Seconds(Number):
    """A number of seconds, or a text with units, such as 5m."""

    def __call__(self, value: Any) -> float:
        if isinstance(value, bool):
            raise ValueError("a number")  # noqa: TRY004 - as above
        try:
            number = parse_duration(value).total_seconds() if _has_units(value) else value
            number = float(number) if isinstance(number, str) else number
        except ValueError:
            number = None
        if not isinstance(number, (int, float)):
            raise ValueError("a number of seconds, or a text such as 30s or 5m")  # noqa: TRY004 - as above
        if isinstance(number, float) and not math.isfinite(number):
            raise ValueError("a number of seconds")
        return float(self.bounded(number))


Kind = Callable[[Any], Any]


def _setting(*, default: Any, kind: Kind, meaning: str) -> Any:
    """Describe a field: its default, what it takes, and what it means. None is taken where it is the default."""
    return field(default=default, metadata={"kind": kind, "help": meaning})


@dataclass(frozen=True, kw_only=True, repr=False)
class Settings:
    """Everything that can be configured: validated and immutable.

    `Settings(...)` takes keyword arguments and reads no environment; `Settings.from_env()` reads the `JOBMANAGER_*` variables.
    Both raise SettingsError, one line with the variable, its value and what is allowed. Neither the secret nor a password
    in a URL appears in the error, in repr or in str. The page of settings describes each field.
    """

    disabled: bool = _setting(
        default=False, kind=flag, meaning="The kill switch: nothing fires or runs, whatever else is set"
    )
    backend: str | None = _setting(
        default=None, kind=text, meaning="Who keeps the time; the resolver decides if unset"
    )
    environment: str = _setting(
        default="development",
        kind=Text(_environment),
        meaning="`production` lets a configured remote backend be chosen",
    )
    database_url: str = _setting(
        default="sqlite:///jobmanager.db",
        kind=Text(_database_url),
        meaning="Where runs are kept; a relative file becomes absolute",
    )
    namespace: str = _setting(
        default="default", kind=Text(_namespace), meaning="Keeps systems apart that share a database"
    )
    app: str | None = _setting(default=None, kind=text, meaning="module:manager, for the command line")
    workers: int = _setting(
        default=10, kind=Whole(10_000), meaning="Threads that execute runs in this process"
    )
    coroutines: int = _setting(
        default=1000, kind=Whole(100_000), meaning="Coroutine handlers that run at once in this process"
    )
    lease_seconds: float = _setting(
        default=30, kind=Seconds(_YEAR), meaning="A heartbeat unchanged for so long means a dead process"
    )
    grace_seconds: float = _setting(
        default=60, kind=Seconds(_YEAR), meaning="A tick is on time if it is at most this late"
    )
    sweep_seconds: float = _setting(
        default=30, kind=Seconds(_YEAR), meaning="Time between two checks of the account"
    )
    drain_seconds: float = _setting(
        default=25, kind=Seconds(_YEAR, zero=True), meaning="How long running work may still take at stop"
    )
    watchdog: Literal["log", "exit", "off"] = _setting(
        default="log",
        kind=Word(("log", "exit", "off")),
        meaning="What happens when this process stands still: it is logged; with `exit` the process also ends, for a restart",
    )
    durability: Literal["strict", "relaxed"] = _setting(
        default="strict",
        kind=Word(("strict", "relaxed")),
        meaning="`relaxed` may lose the last moments to a power cut, never to a crash",
    )
    capture_logs: bool = _setting(default=True, kind=flag, meaning="Keep what a handler logs with its run")
    retention_days: int | None = _setting(
        default=None,
        kind=Days(36_500),
        meaning="Runs that ended earlier are purged, unless one of the next two says otherwise for them",
    )
    retention_days_succeeded: int | None = _setting(
        default=None,
        kind=Days(36_500),
        meaning="The same for runs that succeeded, were cancelled or skipped; 30 where nothing is set",
    )
    retention_days_failed: int | None = _setting(
        default=None,
        kind=Days(36_500),
        meaning="The same for runs that failed or were missed; 90 where nothing is set",
    )
    max_runs: int | None = _setting(
        default=None,
        kind=Whole(1_000_000_000),
        meaning="Of more runs in the store the oldest that have ended are purged",
    )
    retention_max_bytes: int | None = _setting(
        default=None,
        kind=Whole(1_000_000_000_000_000),
        meaning="Of more bytes in the store, as estimated from what is live, the oldest runs that have ended are purged",
    )
    audit_retention_days: int = _setting(
        default=365, kind=Days(36_500), meaning="Entries of the audit that are older are purged"
    )
    dashboard_users: Secret | None = _setting(
        default=None,
        kind=_dashboard_users,
        meaning="Who may log in with a password, as `jobmanager dashboard-user NAME` prints it",
    )
    mcp_key: Secret | None = _setting(
        default=None, kind=_token, meaning="The API key for whose holder `jobmanager mcp` reads and starts"
    )
    recent_auth_minutes: int = _setting(
        default=15, kind=Whole(10_000), meaning="How old a login may be for what cannot be undone"
    )
    trusted_origins: str | None = _setting(
        default=None,
        kind=Text(_origins),
        meaning="Other origins whose pages may send forms here, with commas between",
    )
    celery_broker_url: str | None = _setting(
        default=None, kind=Text(_broker_url), meaning="Where Celery's messages go"
    )
    celery_group_max: int = _setting(
        default=1, kind=Whole(100), meaning="Runs that may travel in one message, for many short jobs"
    )
    public_url: str | None = _setting(
        default=None, kind=Text(_public_url), meaning="Where the database reaches this application"
    )
    secret: Secret | None = _setting(
        default=None,
        kind=_secret,
        meaning="Signs and checks calls to the endpoint; two, with a blank between, while one is replaced",
    )
    auth: Literal["signature", "bearer"] = _setting(
        default="signature",
        kind=Word(("signature", "bearer")),
        meaning="How the database's calls prove that they are its own",
    )
    run_path: str = _setting(
        default="/jobs/run", kind=Text(_run_path), meaning="Path of the endpoint, below PUBLIC_URL"
    )
    wait: bool = _setting(
        default=False,
        kind=flag,
        meaning="Answer a call only when its runs have ended: for hosts that stop after the answer",
    )
    wait_seconds: float = _setting(
        default=25,
        kind=Seconds(_YEAR, zero=True),
        meaning="How long such a call goes on to begin what is due, and waits for what other threads execute",
    )
    pg_cron_url: str | None = _setting(
        default=None, kind=Text(_pg_cron_url), meaning="The database that has pg_cron, if not DATABASE_URL's"
    )
    pg_cron_transport: Literal["auto", "pg_net", "http", "notify"] = _setting(
        default="auto",
        kind=Word(("auto", "pg_net", "http", "notify")),
        meaning="How the database reaches this application; `auto` looks what it can do",
    )
    pg_cron_layout: Literal["auto", "dispatcher", "entries"] = _setting(
        default="dispatcher",
        kind=Word(("auto", "dispatcher", "entries")),
        meaning="One pg_cron entry for all jobs, or one for each; `auto` decides by their number",
    )
    ticker_layout: Literal["auto", "entries", "dispatcher"] = _setting(
        default="auto",
        kind=Word(("auto", "entries", "dispatcher")),
        meaning="One entry at an outside clock for each job, or one for all; `auto` takes one once no more are taken there",
    )
    qstash_token: Secret | None = _setting(
        default=None, kind=_token, meaning="QStash's token, with which this application writes its schedules"
    )
    qstash_url: str = _setting(
        default="https://qstash.upstash.io",
        kind=Text(_public_url),
        meaning="Where QStash's API is, if it is one of its regions",
    )
    qstash_current_signing_key: Secret | None = _setting(
        default=None, kind=_token, meaning="Verifies the calls of QStash"
    )
    qstash_next_signing_key: Secret | None = _setting(
        default=None, kind=_token, meaning="The key that QStash signs with after its next rotation"
    )
    trigger_dev_api_key: Secret | None = _setting(
        default=None,
        kind=_token,
        meaning="The secret key of an environment in Trigger.dev, with which this application writes its schedules",
    )
    trigger_dev_api_url: str = _setting(
        default="https://api.trigger.dev",
        kind=Text(_public_url),
        meaning="Where Trigger.dev's API is, if you host it yourself",
    )
    trigger_dev_enabled: bool = _setting(
        default=True, kind=flag, meaning="Whether Trigger.dev may be chosen where it is configured"
    )
    trigger_dev_task: str = _setting(
        default="jobmanager-tick",
        kind=Text(_task),
        meaning="The task of Trigger.dev that calls this application",
    )
    inngest_app_id: str | None = _setting(
        default=None,
        kind=Text(_task),
        meaning="The id of this application in Inngest; its keys are in Inngest's own variables",
    )
    vercel: bool = _setting(
        default=False,
        kind=flag,
        meaning="Whether this process runs on Vercel; unset: whether Vercel's own `VERCEL` is 1",
    )
    vercel_token: Secret | None = _setting(
        default=None,
        kind=_token,
        meaning="An access token that reads Vercel's Schedules; unset: `VERCEL_OIDC_TOKEN`, where a deployment has it",
    )
    vercel_api_url: str = _setting(
        default="https://vercel-schedules.com",
        kind=Text(_public_url),
        meaning="Where the API of Vercel's Schedules is",
    )
    vercel_team_id: str | None = _setting(default=None, kind=text, meaning="The team, for such a token")
    vercel_project_id: str | None = _setting(default=None, kind=text, meaning="The project, for such a token")
    webhook_allow: str | None = _setting(
        default=None,
        kind=Text(_webhook_allow),
        meaning="Internal hosts and networks that webhooks may reach, with commas between, each with a port or for all ports",
    )
    encryption_key: Secret | None = _setting(
        default=None,
        kind=_encryption_key,
        meaning="Encrypts the secrets of stored webhooks; several keys, with commas between and the newest first, while one is replaced",
    )

    alerts_email: tuple[str, ...] | None = _setting(
        default=None,
        kind=_addresses,
        meaning='Who is notified of jobs with `visibility="system"` and of what concerns no single job; several with , between',
    )
    alerts_urls: Secret | None = _setting(
        default=None,
        kind=_urls,
        meaning="URLs of Apprise for further services that are told the same, with a blank between (extra `notify`)",
    )
    alerts_on: Literal["failures", "ends"] = _setting(
        default="failures",
        kind=Word(("failures", "ends")),
        meaning="Whether ALERTS_EMAIL is told of failures only, or of every end of those jobs",
    )
    alerts_from: str | None = _setting(
        default=None, kind=Text(_address), meaning="The sender of e-mail; `jobmanager@localhost` if unset"
    )
    alerts_quiet: float = _setting(
        default=900,
        kind=Seconds(86_400, zero=True),
        meaning="After a message about a job and event further ones are gathered for so long and sent as one",
    )
    alerts_backlog: int | None = _setting(
        default=None,
        kind=Whole(1_000_000),
        meaning="More due runs that wait are told, once an hour; unset: none",
    )
    alerts_dead_letters: int | None = _setting(
        default=None,
        kind=Whole(1_000_000),
        meaning="More failed runs that nobody saw to are told, once an hour; unset: none",
    )
    heartbeat_url: str | None = _setting(
        default=None,
        kind=Text(_ping_url),
        meaning="Called by every look at the account that finds time kept: a service outside tells when no call comes",
    )
    smtp_url: str | None = _setting(
        default=None,
        kind=Text(_smtp_url),
        meaning="How e-mail is sent: `smtps://user:password@host:465`, `starttls://` or `smtp://`",
    )
    locale: str = _setting(
        default="en",
        kind=Text(_locale),
        meaning="The locale of messages where neither run, person nor job has one",
    )
    dashboard_url: str | None = _setting(
        default=None,
        kind=Text(_public_url),
        meaning="Where people reach the dashboard: messages link to its run pages",
    )

    if not TYPE_CHECKING:  # for a type checker the fields are the signature

        def __init__(self, **values: Any) -> None:
            for name in values:
                if name not in KINDS:
                    meant = _suggestion(name)
                    told = f"{name} is not a setting." + (f" Did you mean {meant}?" if meant else "")
                    raise SettingsError(told, name=name)
            for described in fields(self):
                name, value = described.name, values.get(described.name, described.default)
                try:
                    read = None if value is described.default is None else _read(name, value)
                except ValueError as refused:
                    told = f"{_told(name, value)} cannot be used: give {refused}."
                    # Not chained: the error of a URL may hold its password.
                    raise SettingsError(told, name=_variable(name)) from None
                object.__setattr__(self, name, read)

    @classmethod
    def from_env(
        cls, mapping: Mapping[str, str] = os.environ, *, defaults: Mapping[str, Any] | None = None
    ) -> Settings:
        """Build settings from the `JOBMANAGER_*` names of `mapping`, the environment by default, and else from `defaults`, by field.

        An empty value counts as unset, except for the secret. Raises SettingsError for a value that cannot be used and for a
        name that resembles a known one; `unknown_names` lists the others.
        """
        for name in cls.unknown_names(mapping):
            if meant := _suggestion(name.removeprefix(PREFIX).lower()):
                raise SettingsError(f"{name} is not a setting. Did you mean {_variable(meant)}?", name=name)
        texts = {field: mapping[_variable(field)].strip() for field in KINDS if _variable(field) in mapping}
        given: dict[str, Any] = {field: text for field, text in texts.items() if text or field == "secret"}
        if mapping.get("VERCEL") == "1":
            given.setdefault("vercel", "true")
        return cls(**{**(defaults or {}), **given})

    @classmethod
    def unknown_names(cls, mapping: Mapping[str, str] = os.environ) -> tuple[str, ...]:
        """List the `JOBMANAGER_*` names of `mapping` that are no setting, sorted."""
        known = {_variable(field) for field in KINDS}
        ours = (name for name in mapping if name.startswith(PREFIX) and not IGNORED.match(name))
        return tuple(sorted(name for name in ours if name not in known))

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
    def retention_succeeded(self) -> timedelta:
        """For how long runs are kept that ended without trouble."""
        return timedelta(days=self.retention_days_succeeded or self.retention_days or 30)

    @property
    def retention_failed(self) -> timedelta:
        """For how long runs are kept that failed or were missed."""
        return timedelta(days=self.retention_days_failed or self.retention_days or 90)

    @property
    def quiet(self) -> timedelta:
        return timedelta(seconds=self.alerts_quiet)

    @property
    def audit_retention(self) -> timedelta:
        return timedelta(days=self.audit_retention_days)

    @property
    def recent_auth(self) -> timedelta:
        return timedelta(minutes=self.recent_auth_minutes)

    @property
    def origins(self) -> tuple[str, ...]:
        """The trusted origins, as browsers write them."""
        return tuple(origin.strip().lower() for origin in (self.trusted_origins or "").split(",") if origin)

    @property
    def allowed_targets(self) -> tuple[AllowedTarget, ...]:
        """The internal targets that webhooks may reach."""
        return _allowed_targets(self.webhook_allow) if self.webhook_allow else ()

    @property
    def encryption_keys(self) -> tuple[str, ...]:
        """The keys that encrypt stored secrets, the newest first."""
        keys = self.encryption_key
        return tuple(key.strip() for key in keys.get_secret_value().split(",")) if keys else ()

    def secret_values(self) -> frozenset[str]:
        """Return every text to redact: the secrets, and the passwords in URLs, percent-encoded and decoded."""
        urls = [
            url
            for name in KINDS
            if name.endswith("_url") and (value := getattr(self, name))
            for url in _SEVERAL.split(value)
        ]
        written = {password for url in urls for password in (_taken_apart(url)[1], *_secret_parameters(url))}
        told = [] if self.alerts_urls is None else self.alerts_urls.get_secret_value().split()
        told += [] if self.heartbeat_url is None else [self.heartbeat_url]
        users = (
            ()
            if self.dashboard_users is None
            else self.dashboard_users.get_secret_value().replace(",", " ").split()
        )
        return frozenset(
            {
                *self.secrets,
                *self.encryption_keys,
                *(token.get_secret_value() for name in _TOKENS if (token := getattr(self, name))),
                *told,
                *(user.rpartition(".")[2] for user in users),
                *written,
                *map(unquote, written),
            }
            - {""}
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets that are valid now: none, one, or two during a rotation."""
        return tuple(self.secret.get_secret_value().split()) if self.secret else ()

    @property
    def run_url(self) -> str | None:
        """The URL that the database calls: `public_url` followed by `run_path`; None without a public URL."""
        return None if self.public_url is None else self.public_url + self.run_path

    @property
    def tick_path(self) -> str:
        """The path of `tick_url`, which is known without a public URL, too."""
        return f"{urlsplit(self.public_url or '').path}{self.run_path.rpartition('/')[0]}/tick"

    @property
    def tick_url(self) -> str | None:
        """The URL that an outside clock calls for all jobs, and with `/job` for one; None without a public URL."""
        return None if self.run_url is None else f"{self.run_url.rpartition('/')[0]}/tick"

    def shown(self) -> dict[str, Any]:
        """Return each setting by name, with passwords and the secret replaced by `***`."""
        return {name: _shown(name, getattr(self, name)) for name in KINDS}

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.shown().items())})"


KINDS: Mapping[str, Kind] = {described.name: described.metadata["kind"] for described in fields(Settings)}
"""The kind of each setting, by the setting's name."""


def _read(name: str, value: Any) -> Any:
    """Read a value as its setting takes it; ValueError, which says what that is.

    Refuse for all of them what Python would quietly take for something else: bytes for a text, marks around a text.
    """
    if isinstance(value, (bytes, bytearray)):
        raise ValueError("text")  # noqa: TRY004 - one error for whatever is no such value
    if isinstance(value, str) and name != "secret":
        value = value.strip()
        if any(ord(sign) < 32 or sign == "\x7f" for sign in value):
            raise ValueError("text without control characters")
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            raise ValueError("the value without quotation marks around it")
    return KINDS[name](value)


def _variable(field: str) -> str:
    return PREFIX + field.upper()


def _suggestion(field: str) -> str | None:
    return next(iter(get_close_matches(field, KINDS, n=1, cutoff=0.74)), None)


def _shown(field: str, value: object) -> object:
    if field in _WHOLLY_SECRET and value is not None:
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


def _told(field: str, value: object) -> str:
    """Write `NAME=value` if the value may be shown; an invalid URL may hide a password anywhere after its scheme."""
    if field in _WHOLLY_SECRET:
        return _variable(field)
    if field.endswith("_url"):
        scheme = re.match(r"[a-z][a-z0-9+.-]*(?=://)", value) if isinstance(value, str) else None
        return f"{_variable(field)}={scheme[0]}://..." if scheme else _variable(field)
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - the sentence about a wrong value must not fail over the value
        text = f"<{type(value).__name__}>"
    return f"{_variable(field)}={text if len(text) <= MOST_SHOWN else f'{text[:MOST_SHOWN]}...'}"
