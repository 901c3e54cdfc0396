"""What is wrong with the database that keeps the time, or will be: for `jobmanager doctor`. What explains most comes first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from jobmanager.backends.base import Found
from jobmanager.backends.pg_cron.diagnostics import calls as call_findings
from jobmanager.backends.pg_cron.diagnostics import entries as entry_findings
from jobmanager.backends.pg_cron.diagnostics import server as server_findings
from jobmanager.backends.pg_cron.diagnostics import transport as link_findings
from jobmanager.backends.pg_cron.diagnostics.context import Case, some
from jobmanager.backends.pg_cron.diagnostics.queries import Questions, Ticker
from jobmanager.errors import JobManagerError
from jobmanager.job import Job
from jobmanager.settings import shown_url

if TYPE_CHECKING:
    from jobmanager.backends.pg_cron.backend import PgCronBackend

CHECKS = {**server_findings.CHECKS, **entry_findings.CHECKS, **link_findings.CHECKS, **call_findings.CHECKS}


def examine(backend: PgCronBackend, jobs: Sequence[Job]) -> Iterator[Found]:
    """What there is to say about this backend's database and how these jobs use it."""
    ask = Questions(backend.database)
    try:
        case = Case(backend, jobs, ask)
        try:
            case.server  # noqa: B018 - asked here, so that one sentence says it if nothing can be asked
        except JobManagerError as error:
            fix = "Start the database, see whether this host reaches it, or correct JOBMANAGER_DATABASE_URL."
            yield Found(
                level="failing", text=f"The database that keeps the time cannot be used: {error}", fix=fix
            )
            return
        for subject, look in CHECKS.items():
            yield from _guarded(subject, look, case)
    finally:
        ask.close()


def going_on(backend: PgCronBackend) -> Iterator[Found]:
    """That the database keeps the time of this application, which leaves that to another backend now."""
    ask = Questions(backend.database)
    try:
        case = Case(backend, (), ask)
        ticker, entries = case.ticker, case.pg_cron.entries if case.is_installed else []
    except JobManagerError:
        return  # who cannot be asked is told of as the store
    finally:
        ask.close()
    names = [entry.name for entry in entries if not entry.drift]
    if ticker is not None and (names or case.is_elsewhere):
        yield Found(
            level="warning",
            text=f"pg_cron still keeps the time of namespace {backend.namespace!r}, {_told(ticker)}: {some(names) or 'from another database'}.",
            fix="jobmanager pg-cron uninstall; or set JOBMANAGER_BACKEND=pg_cron, if it is to go on.",
        )


def _told(ticker: Ticker) -> str:
    """Who hears of what is due."""
    if ticker.transport == "notify" or ticker.url is None:
        return "and announces what is due"
    return f"and calls {shown_url(ticker.url)}"


def _guarded(subject: str, look: Callable[[Case], Iterator[Found]], case: Case) -> Iterator[Found]:
    """What a check finds; one that fails is a finding, and keeps the others from nothing."""
    try:
        yield from look(case)
    except (JobManagerError, OSError, ValueError) as error:
        told = f"{subject} could not be looked at: {error}".rstrip(".")
        yield Found(level="warning", text=f"{told}.", fix="Look at it by hand, or ask again.")
