"""PostgreSQL on a clock that a test moves: what a session of ours reads as the server's time is the test's."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from jobmanager.clock import Clock
from jobmanager.stores.sql.postgres import PostgresStore

ASKED = "clock_timestamp()"


def postgres_on(url: str, clock: Clock) -> PostgresStore:
    """Return a store whose statements find the time of `clock` where they ask the server for its own."""
    store = PostgresStore(url, clock=clock)

    def connected(driver: Any, _entry: object) -> None:
        class Moved(driver.cursor_factory):  # type: ignore[misc]
            def execute(self, query: Any, *values: Any, **options: Any) -> Any:
                text = query.decode() if isinstance(query, bytes) else query
                if isinstance(text, str) and ASKED in text:
                    query = text.replace(ASKED, f"timestamptz '{clock.now().isoformat()}'")
                return super().execute(query, *values, **options)

        driver.cursor_factory = Moved

    sa.event.listen(store.database._engine, "connect", connected)
    return store
