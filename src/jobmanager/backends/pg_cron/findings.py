"""What is wrong with the database that keeps the time, or will be: for `jobmanager doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from jobmanager.backends.base import Found
from jobmanager.job import Job

if TYPE_CHECKING:
    from jobmanager.backends.pg_cron.backend import PgCronBackend


def examine(backend: PgCronBackend, jobs: Sequence[Job]) -> Iterator[Found]:
    """What there is to say about this backend's database and how these jobs use it."""
    yield Found(level="note", text=f"{len(jobs)} jobs are kept by {backend.database.shown}")
