"""The facts of one examination; each is queried when a check first needs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from jobmanager.backends.pg_cron.diagnostics.queries import (
    OWNER,
    SERVER,
    TICKER,
    Owner,
    Questions,
    Server,
    TickerRow,
)
from jobmanager.job import Job

if TYPE_CHECKING:
    from jobmanager.backends.pg_cron.backend import PgCronBackend

LISTED = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class EntrySeen:
    """One of our entries, or one that should be; `error` is how it last ended, if that was badly."""

    name: str
    schedule: str
    drift: str
    orphan: bool
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A foreign entry that calls our path; `secret` if one stands in its text."""

    id: int
    name: str | None
    secret: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PgCronSeen:
    """The view of pg_cron by the owner of our functions; `error` if the owner has no right to it."""

    error: str | None
    settings: dict[str, str]
    entries: list[EntrySeen]
    callers: list[Caller]
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysSeen:
    """How many keys sign, how many can be a bearer token, and since when there is more than one."""

    live: int
    bearers: int
    more_since: datetime | None


class Examination:
    """A backend, the declared jobs, and the facts from the database."""

    def __init__(self, backend: PgCronBackend, jobs: Sequence[Job], ask: Questions) -> None:
        self.backend = backend
        self.jobs = jobs
        self.ask = ask
        self._answers: dict[str, Any] = {}

    @property
    def is_elsewhere(self) -> bool:
        """Whether pg_cron is in another database than the jobs."""
        return self.backend.cron_database is not None

    @property
    def is_installed(self) -> bool:
        """Whether this role may use our functions and tables."""
        return bool(self.server.may_use) and self.owner is not None

    @property
    def owner_name(self) -> str:
        return self.server.role if self.owner is None else self.owner.name

    @property
    def settings(self) -> dict[str, str]:
        """Of the server, as far as this role or the owner may read them."""
        return {**self.server.settings, **self.pg_cron.settings}

    @property
    def server(self) -> Server:
        found = self._known("server", lambda: self.ask.one(Server, SERVER), None)
        assert found is not None  # noqa: S101 - it has no FROM, and without it no check is made
        return found

    @property
    def owner(self) -> Owner | None:
        return self._known("owner", lambda: self.ask.one(Owner, OWNER), None)

    @property
    def ticker(self) -> TickerRow | None:
        """How our namespace is reached; None where nothing is installed, or no process was started yet."""
        if not self.is_installed:
            return None
        return self._known("ticker", lambda: self.ask.one(TickerRow, TICKER, self.backend.namespace), None)

    @property
    def pg_cron(self) -> PgCronSeen:
        nothing = PgCronSeen(error=None, settings={}, entries=[], callers=[], bytes=0)
        return self._known("pg_cron", self._pg_cron, nothing)

    @property
    def keys(self) -> KeysSeen | None:
        return self._known("keys", self._keys, None)

    def _known(self, name: str, ask: Callable[[], T], otherwise: T) -> T:
        """Return the result. If the query fails, the first check that needs it reports that, and the next ones get `otherwise`."""
        if name not in self._answers:
            self._answers[name] = otherwise
            self._answers[name] = ask()
        found: T = self._answers[name]
        return found

    def _pg_cron(self) -> PgCronSeen:
        [seen] = self.ask.column("SELECT jobmanager.examined_entries(%s)", self.backend.run_path)
        return PgCronSeen(
            error=seen.get("error"),
            settings=seen["settings"],
            entries=[EntrySeen(**entry) for entry in seen.get("entries", ())],
            callers=[Caller(**caller) for caller in seen.get("callers", ())],
            bytes=seen.get("bytes", 0),
        )

    def _keys(self) -> KeysSeen:
        [seen] = self.ask.column("SELECT jobmanager.examined_keys(%s)", self.backend.namespace)
        since = seen["more_since"]
        return KeysSeen(
            live=seen["live"],
            bearers=seen["bearers"],
            more_since=None if since is None else datetime.fromisoformat(since),
        )


def some(names: Sequence[str]) -> str:
    """Return the first of them, and how many more there are."""
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def counted(number: int, noun: str, many: str | None = None) -> str:
    """`1 job`, `2 jobs`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {many or noun + 's'}"


def utc(moment: datetime) -> str:
    """`2026-11-23 01:00:00 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
