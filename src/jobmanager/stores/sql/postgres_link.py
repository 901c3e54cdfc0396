"""How PostgreSQL is reached, directly or through a pooler, and what its errors mean for whoever called."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa
from psycopg.pq import TransactionStatus

from jobmanager.errors import (
    ConfigurationError,
    SchemaError,
    StoreError,
    StoreUnavailableError,
    UnreadableRowError,
)
from jobmanager.settings import HIDDEN, percent_encoded, shown_url
from jobmanager.stores.sql.postgres_deadline import (
    LONGEST_CHANGE,
    PROBE_DEADLINE,
    STATEMENT_DEADLINE,
    BoundedConnection,
)
from jobmanager.stores.sql.postgres_instants import read_plain_values
from jobmanager.stores.sql.postgres_json import to_json
from jobmanager.stores.sql.unreadable import json_from

if TYPE_CHECKING:
    from sqlalchemy.pool import ConnectionPoolEntry

LIMITS = {"statement_timeout": "5s", "lock_timeout": "3s", "idle_in_transaction_session_timeout": "5s"}
READABLE = {"datestyle": "ISO", "intervalstyle": "postgres"}
"""How the driver has times and intervals written, whatever the server, the database or the role prefers."""
SEARCH_PATH = "pg_catalog, pg_temp"
"""Where unqualified functions, operators and types are looked up: any role may plant some in `public`, to run with our rights."""

IDLE_LONG = 5.0  # seconds after which a kept connection is asked whether it still lives

PINNED = f"-c search_path={SEARCH_PATH.replace(' ', '')}"
"""The startup option that pins it; the last one of a name wins."""

POOLER_OPTIONS = ("jobmanager_pooler", "pgbouncer")
DEADLINE_OPTION = "jobmanager_deadline"
USUAL_POOLER_PORT = 6543
POOLER_HOST = re.compile(r"(^|[.-])(pooler|pgbouncer|supavisor)\b")


class StoreTakenError(StoreError):
    """A unique index refused the row."""


@dataclass(frozen=True)
class Link:
    """A database URL, taken apart: where to connect, and whether a transaction pooler stands before it.

    A pooler gives each transaction another session, so nothing may be kept in one: no prepared statements, and the time
    limits travel with each transaction instead of with the connection.
    """

    url: sa.URL = field(repr=False)
    pooled: bool
    relaxed: bool = False
    deadline: float = STATEMENT_DEADLINE

    @classmethod
    def of(cls, text: str, *, relaxed: bool = False) -> Link:
        """Take a URL apart; `?jobmanager_deadline=` says the seconds after which a silent connection is given up.

        Recognised as pooled: `?jobmanager_pooler=true` (or `pgbouncer=true`), port 6543, a host called pooler or pgbouncer.
        """
        url = _url(text).set(drivername="postgresql+psycopg")
        said = [str(url.query[name]) for name in POOLER_OPTIONS if name in url.query]
        looks = url.port == USUAL_POOLER_PORT or bool(POOLER_HOST.search(url.host or ""))
        pooled = said[0].lower() in ("true", "1", "yes", "on") if said else looks
        deadline = _seconds(str(url.query.get(DEADLINE_OPTION, STATEMENT_DEADLINE)))
        return cls(url.difference_update_query([*POOLER_OPTIONS, DEADLINE_OPTION]), pooled, relaxed, deadline)

    @property
    def shown(self) -> str:
        """The URL without secrets."""
        text = self.url.set(drivername="postgresql").render_as_string(hide_password=False)
        return shown_url(text)

    @property
    def settings(self) -> dict[str, str]:
        return {**LIMITS, **READABLE, **({"synchronous_commit": "off"} if self.relaxed else {})}

    @property
    def begin(self) -> str:
        """The statement that begins a transaction; through a pooler it carries the search path and the limits, in the same round trip."""
        local = (f"; SET LOCAL {name} = '{value}'" for name, value in self.settings.items())
        return f"BEGIN; SET LOCAL search_path = {SEARCH_PATH}{''.join(local)}" if self.pooled else "BEGIN"

    def engine(self, monotonic: Callable[[], float]) -> sa.Engine:
        """Make connections in autocommit mode: few are kept, none is waited for without a bound, none trusted for ever."""
        engine = sa.create_engine(
            self.url.difference_update_query(["options"]),
            isolation_level="AUTOCOMMIT",
            execution_options={"preserve_rowcount": True},
            pool_size=3,
            max_overflow=17,
            pool_timeout=5,
            pool_use_lifo=True,
            pool_reset_on_return=None,  # what failed was rolled back already, or its connection given up
            hide_parameters=True,  # they hold payloads
            json_serializer=to_json,
            json_deserializer=json_from,
            use_native_hstore=False,
            connect_args=self._connect_args(),
        )
        _Trust(monotonic, self.deadline, pinned=not self.pooled).watch(engine)
        return engine

    def _connect_args(self) -> dict[str, Any]:
        wanted: dict[str, Any] = {
            "connect_timeout": 5,
            "keepalives": 1,
            "keepalives_idle": 15,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 15_000,
            "client_encoding": "utf8",
            "fallback_application_name": "jobmanager",
        }
        given = {name: value for name, value in wanted.items() if name not in self.url.query}
        if self.pooled:
            return {**given, "prepare_threshold": None}
        ours = " ".join(f"-c {name}={value}" for name, value in self.settings.items())
        theirs = self.url.query.get("options", "")
        said = theirs if isinstance(theirs, str) else " ".join(theirs)
        return {**given, "options": f"{ours} {said} {PINNED}"}

    @contextmanager
    def told(self) -> Iterator[None]:
        """Errors of the driver as ours: StoreUnavailableError if the same call may succeed later, else StoreError."""
        try:
            yield
        except sa.exc.DBAPIError as error:
            raise self._ours(error.orig) from _harmless(error)
        except psycopg.Error as error:
            raise self._ours(error) from _harmless(error)
        except sa.exc.TimeoutError as error:
            raise StoreUnavailableError(
                f"{self.shown}: all connections of this process are in use."
            ) from error

    def _ours(self, error: BaseException | None) -> StoreError:
        state = getattr(error, "sqlstate", None)
        diagnosis = getattr(error, "diag", None)
        # Only the first line: what follows may be the row that was refused, with its payload.
        said = getattr(diagnosis, "message_primary", None) or str(error).strip().partition("\n")[0]
        lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        if (
            isinstance(error, psycopg.DataError) and state is None
        ):  # the driver's own: a value that Python has not
            return UnreadableRowError(f"{self.shown}: {said}")
        kind, advice = _verdict(state, said, lost=lost)
        if self.url.password:
            said = said.replace(str(self.url.password), HIDDEN)
        return kind(f"{self.shown}: {said}" + (f": {advice}" if advice else ""))


class _Trust:
    """Which kept connections are used without a question.

    A server that was restarted, or a firewall that forgot, must not fail the first call after a quiet hour; and when one
    connection has fallen silent, the others of its time must not cost a deadline each, one after another.
    """

    def __init__(self, monotonic: Callable[[], float], deadline: float, *, pinned: bool) -> None:
        self._monotonic = monotonic
        self._deadline = deadline
        self._pinned = pinned
        self._silences = 0

    def watch(self, engine: sa.Engine) -> None:
        """Look at each connection of the engine when it is made, given back and taken."""
        for event, listener in (
            ("do_connect", self._connect),
            ("connect", self._connected),
            ("checkin", self._given_back),
            ("checkout", self._taken),
        ):
            sa.event.listen(engine, event, listener)

    def _connect(
        self, _dialect: Any, _entry: Any, args: Sequence[Any], options: Mapping[str, Any]
    ) -> BoundedConnection:
        driver = BoundedConnection.connect(*args, **options)
        driver.deadline = min(PROBE_DEADLINE, self._deadline)
        driver.on_silence = self._fell_silent
        read_plain_values(driver)
        return driver

    def _connected(self, driver: BoundedConnection, entry: ConnectionPoolEntry) -> None:
        if self._pinned:
            _refuse_unpinned(driver)
        driver.deadline = self._deadline
        entry.info["silences"] = self._silences

    def _given_back(self, driver: BoundedConnection | None, entry: ConnectionPoolEntry) -> None:
        entry.info["idle_since"] = self._monotonic()
        if driver is not None:
            driver.deadline = self._deadline

    def _taken(self, driver: BoundedConnection, entry: ConnectionPoolEntry, _proxy: object) -> None:
        if entry.info.get("silences") != self._silences:
            raise sa.exc.DisconnectionError("made before another connection fell silent")
        now = self._monotonic()
        if now - entry.info.get("idle_since", now) > IDLE_LONG:
            try:
                driver.deadline = min(PROBE_DEADLINE, self._deadline)
                driver.execute("SELECT 1")
                driver.deadline = self._deadline
            except psycopg.Error as error:
                raise sa.exc.DisconnectionError from error

    def _fell_silent(self) -> None:
        self._silences += 1


def _refuse_unpinned(driver: BoundedConnection) -> None:
    """Raise StoreError if what stands between has swallowed our startup options, as a pooler may be told to."""
    found = driver.execute("SHOW search_path").fetchone()
    if found is None or found[0].replace(" ", "") != SEARCH_PATH.replace(" ", ""):
        driver.close()
        raise StoreError(f"the search path of the session is {found and found[0]!r}, not ours: {_POOLER}")


def _url(text: str) -> sa.URL:
    """Take apart what libpq would: several hosts, which SQLAlchemy knows as parameters only, and any sign in a password."""
    encoded = percent_encoded(text)
    parts = re.fullmatch(r"([^:]+://(?:[^@/]*@)?)([^/?#]*)(.*)", encoded, re.DOTALL)
    if parts is None or "," not in parts[2]:
        return sa.make_url(encoded)
    hosts = [
        host.rpartition(":") if re.search(r":\d*$", host) else (host, "", "") for host in parts[2].split(",")
    ]
    return sa.make_url(parts[1] + parts[3]).update_query_dict(
        {
            "host": ",".join(name.strip("[]") for name, _, _ in hosts),
            "port": ",".join(port or "5432" for _, _, port in hosts),
        }
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < LONGEST_CHANGE:
        raise ConfigurationError(f"{DEADLINE_OPTION}={text} is no number of seconds; 8 is the default.")
    return seconds


def be_patient(connection: sa.Connection) -> None:
    """Let statements on this connection take long, until it is given back."""
    driver: Any = driver_of(connection)
    driver.deadline = LONGEST_CHANGE


def driver_of(connection: sa.Connection) -> psycopg.Connection[Any]:
    """Return the driver's connection: SQLAlchemy's share of a statement is not needed where each is counted."""
    driver: Any = connection.connection.driver_connection
    return driver  # type: ignore[no-any-return]


def roll_back(connection: sa.Connection, driver: psycopg.Connection[Any]) -> None:
    """Leave no transaction behind; a connection that cannot even do that is given up."""
    try:
        if driver.info.transaction_status is not TransactionStatus.IDLE:
            driver.execute("ROLLBACK")
    except psycopg.Error:
        pass
    if driver.closed or driver.info.transaction_status is not TransactionStatus.IDLE:
        connection.invalidate()


# ---------------------------------------------------------------- what errors mean

_POOLER = "that is a transaction pooler; add ?jobmanager_pooler=true to JOBMANAGER_DATABASE_URL."
_GRANT = (
    "let the owner of the database run `jobmanager db upgrade`, and grant this role usage of the schema jobmanager "
    "and everything on its tables and sequences."
)

# Temporary, by SQLSTATE or its first two letters: connection, rollback, resources, intervention, system.
_AWAY: dict[str, str] = {
    "40P01": "two transactions waited for each other; it is tried again.",
    "40": "a concurrent transaction was in the way; it is tried again.",
    "55P03": "another transaction holds the lock; it is tried again.",
    "57014": f"it took longer than {LIMITS['statement_timeout']}; is the database overloaded or locked?",
    "25006": "the server is read-only; JOBMANAGER_DATABASE_URL must name the primary, with room on its disk.",
    "25P03": "this process stood still inside a transaction; it is tried again.",
    "53100": "its disk is full; free some space, nothing is lost that was committed.",
    "53300": "it has no connection left; raise max_connections, or put a pooler before it.",
    "57P": "the server is restarting or was told to end the connection; it is tried again.",
    "08": "the connection was lost; it is tried again.",
    "53": "the server is short of something; it is tried again.",
    "58": "the server has trouble with its files; its log says more.",
}
_REFUSED: dict[str, tuple[type[StoreError], str]] = {
    "28": (StoreError, "correct user and password in JOBMANAGER_DATABASE_URL, or the server's pg_hba.conf."),
    "3D000": (StoreError, "create the database (createdb), or correct its name in JOBMANAGER_DATABASE_URL."),
    "23505": (StoreTakenError, ""),
    "42501": (StoreError, _GRANT),
    "42P01": (SchemaError, "its tables are not ours or not whole; `jobmanager db check` says more."),
    "42703": (SchemaError, "its tables are not ours or not whole; `jobmanager db check` says more."),
    "3F000": (SchemaError, "its tables are not there; `jobmanager db upgrade` makes them."),
    "26000": (StoreError, _POOLER),
    "42P05": (StoreError, _POOLER),
}
# A refused connection has no SQLSTATE, only the server's words.
_REFUSED_WORDS: tuple[tuple[str, str], ...] = (
    (r"unsupported startup parameter", _POOLER),
    (r"authentication failed|no password supplied|no pg_hba.conf entry", _REFUSED["28"][1]),
    (r"role .* does not exist|not permitted to log in", _REFUSED["28"][1]),
    (r"database .* does not exist", _REFUSED["3D000"][1]),
    (
        r"invalid connection option|invalid .* value|missing \"=\"",
        "correct the part after ? in JOBMANAGER_DATABASE_URL.",
    ),
    (
        r"certificate|SSL",
        "correct sslmode and sslrootcert in JOBMANAGER_DATABASE_URL, or the server's certificate.",
    ),
)


def _verdict(state: str | None, said: str, *, lost: bool) -> tuple[type[StoreError], str]:
    """Return the error to raise, and what to do about it."""
    for length in (5, 3, 2) if state else ():
        if (prefix := str(state)[:length]) in _AWAY:
            return StoreUnavailableError, _AWAY[prefix]
        if prefix in _REFUSED:
            return _REFUSED[prefix]
    for words, advice in _REFUSED_WORDS if state is None else ():
        if re.search(words, said):
            return StoreError, advice
    if lost and state is None:
        return StoreUnavailableError, "is it running, and can this host reach it? It is tried again."
    return StoreError, ""


def _harmless(error: Exception) -> Exception | None:
    """Return the cause, unless its text may hold the row that was refused."""
    state = getattr(getattr(error, "orig", error), "sqlstate", None) or ""
    return None if state.startswith(("22", "23")) else error
