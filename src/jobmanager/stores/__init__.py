"""Where jobs and runs are kept: RunStore, and the store that a database URL names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobmanager.errors import MissingExtraError

if TYPE_CHECKING:
    from jobmanager.clock import Clock
    from jobmanager.settings import Settings
    from jobmanager.stores.base import RunStore


def store_for(settings: Settings, clock: Clock) -> RunStore:
    """Return the store of JOBMANAGER_DATABASE_URL, not yet connected; only the chosen one is imported.

    MissingExtraError if PostgreSQL is named and its driver is not installed.
    """
    if settings.database_url == "memory://":
        from jobmanager.stores.sql.memory import MemoryStore  # noqa: PLC0415 - SQLAlchemy is loaded when a store is made

        return MemoryStore(clock=clock, grace=settings.grace)
    path = settings.database_path
    if path is None:
        return _postgres(settings, clock)
    from jobmanager.stores.sql.sqlite import SqliteStore  # noqa: PLC0415

    return SqliteStore(path, clock=clock, grace=settings.grace, durability=settings.durability)


def _postgres(settings: Settings, clock: Clock) -> RunStore:
    try:
        import psycopg  # noqa: F401, PLC0415
    except ImportError as error:  # not there, or without the C library it needs
        raise MissingExtraError(
            f"JOBMANAGER_DATABASE_URL names PostgreSQL, which needs the package psycopg ({error}). "
            "Install jobmanager-backends[postgres].",
            extra="postgres",
        ) from error
    from jobmanager.stores.sql.postgres import PostgresStore  # noqa: PLC0415

    return PostgresStore(
        settings.database_url, clock=clock, grace=settings.grace, durability=settings.durability
    )
