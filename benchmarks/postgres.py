"""PostgreSQL for benchmarks: a server of our own that waits for the disk at every commit, gone afterwards."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))


def installed() -> bool:
    """True if there is a server to start, and a driver to reach it."""
    import importlib.util

    server = any(Path("/usr/lib/postgresql").glob("*/bin/postgres")) or shutil.which("postgres")
    return bool(server) and importlib.util.find_spec("psycopg") is not None


@contextmanager
def fresh_databases(*, synchronous: str = "FULL") -> Iterator[Callable[[], str]]:
    """A server, and what makes an empty database on it and answers its URL. With `OFF` commits do not wait for the disk."""
    import psycopg
    from tests.servers import FreshDatabases, Postgres

    server = Postgres(fsync=True)
    try:
        server.start()
        if synchronous == "OFF":
            with psycopg.connect(server.url, autocommit=True) as connection:
                connection.execute("ALTER ROLE postgres SET synchronous_commit = off")
        yield FreshDatabases(server.url).make
    finally:
        server.remove()
