"""Instants as PostgreSQL sends them: it has years beyond 9999, years before Christ and infinity, Python has none of them."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.adapt import Buffer, Loader
from psycopg.pq import Format

from jobmanager.stores.sql.unreadable import Unreadable

_TIMESTAMPTZ = psycopg.adapters.types["timestamptz"].oid
_LOADER = psycopg.adapters.get_loader(_TIMESTAMPTZ, Format.TEXT)


class InstantLoader(Loader):
    """Reads an instant as the driver does; what it refuses becomes a marker, and the other rows are read."""

    def __init__(self, oid: int, context: Any = None) -> None:
        super().__init__(oid, context)
        assert _LOADER is not None  # noqa: S101 - the driver always has one for this type
        self._load = _LOADER(oid, context).load

    def load(self, data: Buffer) -> Any:
        """Return an aware datetime, or the marker."""
        try:
            return self._load(data)
        except (psycopg.DataError, ValueError, OverflowError):
            return Unreadable(bytes(data).decode())


def read_any_instant(connection: psycopg.Connection[Any]) -> None:
    """Let this connection read every instant that PostgreSQL has."""
    connection.adapters.register_loader("timestamptz", InstantLoader)
