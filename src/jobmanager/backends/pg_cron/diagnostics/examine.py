"""Findings about the database that keeps the time, for `jobmanager doctor`, those that explain most first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from jobmanager.backends.base import Found
from jobmanager.backends.pg_cron.diagnostics import calls as call_findings
from jobmanager.backends.pg_cron.diagnostics import entries as entry_findings
from jobmanager.backends.pg_cron.diagnostics import server as server_findings
from jobmanager.backends.pg_cron.diagnostics import transport as link_findings
from jobmanager.backends.pg_cron.diagnostics.context import Examination, some
from jobmanager.backends.pg_cron.diagnostics.queries import KEEPER, Questions, TickerRow
from jobmanager.errors import JobManagerError
from jobmanager.job import Job
from jobmanager.settings import shown_url

if TYPE_CHECKING:
    from jobmanager.backends.pg_cron.backend import PgCronBackend

CHECKS = {**server_findings.CHECKS, **entry_findings.CHECKS, **link_findings.CHECKS, **call_findings.CHECKS}


def examine(backend: PgCronBackend, jobs: Sequence[Job]) -> Iterator[Found]:
    """Yield the findings about this backend's database and how these jobs use it."""
    ask = Questions(backend.database)
    try:
        exam = Examination(backend, jobs, ask)
        try:
            exam.server  # noqa: B018 - asked here, so that one sentence says it if nothing can be asked
        except JobManagerError as error:
            fix = "Start the database, see whether this host reaches it, or correct JOBMANAGER_DATABASE_URL."
            yield Found(
                level="failing", text=f"The database that keeps the time cannot be used: {error}", fix=fix
            )
            return
        for subject, look in CHECKS.items():
            yield from _guarded(subject, look, exam)
    finally:
        ask.close()


def going_on(backend: PgCronBackend) -> Iterator[Found]:
    """Yield a finding if the database still keeps the time of this application, which has chosen another backend."""
    ask = Questions(backend.database)
    try:
        exam = Examination(backend, (), ask)
        ticker, entries = exam.ticker, exam.pg_cron.entries if exam.is_installed else []
        keepers = ask.column(KEEPER, backend.namespace) if ticker is not None else []
    except JobManagerError:
        return  # a database that cannot be queried is a finding about the store
    finally:
        ask.close()
    names = [entry.name for entry in entries if not entry.drift]
    if ticker is None or not (names or exam.is_elsewhere):
        return
    left = some(names) or "from another database"
    if keepers and keepers[0] != backend.name:
        yield Found(
            level="note",
            text=f"pg_cron still has entries of namespace {backend.namespace!r} ({left}); they do nothing while backend "
            f"{keepers[0]!r} keeps its time.",
            fix="jobmanager pg-cron uninstall, if pg_cron is not to keep it again.",
        )
    else:
        yield Found(
            level="warning",
            text=f"pg_cron still keeps the time of namespace {backend.namespace!r}, {_told(ticker)}: {left}.",
            fix="jobmanager pg-cron uninstall; or set JOBMANAGER_BACKEND=pg_cron, if it is to go on.",
        )


def _told(ticker: TickerRow) -> str:
    """Return how the application learns of due jobs."""
    if ticker.transport == "notify" or ticker.url is None:
        return "and announces what is due"
    return f"and calls {shown_url(ticker.url)}"


def _guarded(
    subject: str, look: Callable[[Examination], Iterator[Found]], exam: Examination
) -> Iterator[Found]:
    """Yield what a check finds; a check that fails is a finding, and the others go on."""
    try:
        yield from look(exam)
    except (JobManagerError, OSError, ValueError) as error:
        said = f"{subject} could not be looked at: {error}".rstrip(".")
        yield Found(level="warning", text=f"{said}.", fix="Look at it by hand, or ask again.")
