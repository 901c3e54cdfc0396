"""Our tables made together with Django's, where `MIGRATE_WITH_DJANGO` asks for it."""

from __future__ import annotations

from typing import Any

from jobmanager.contrib.django.current import configured, current
from jobmanager.stores.sql.store import SqlStore


def on_post_migrate(*, using: str, verbosity: int = 1, app_config: Any = None, **_: object) -> None:
    """Bring the tables to today's version after Django has migrated the database beside which they are kept; once for all applications."""
    if using != (configured().database or "default") or app_config.label != "jobmanager":
        return
    store = current().store
    if isinstance(store, SqlStore):
        before = store.schema.upgrade()
        after = store.schema.version()
        if verbosity and before != after:
            print(f"  The tables of jobmanager are of version {after}.")  # noqa: T201 - as migrate itself does
