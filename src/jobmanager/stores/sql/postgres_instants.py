"""Values as PostgreSQL sends them. Its instants have years beyond 9999, years before Christ and infinity; Python has none of them."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import psycopg
from psycopg.adapt import Buffer, Loader
from psycopg.pq import Format
from psycopg.types.string import TextLoader

from jobmanager.stores.sql.unreadable import Unreadable

_TIMESTAMPTZ = psycopg.adapters.types["timestamptz"].oid
_LOADER = psycopg.adapters.get_loader(_TIMESTAMPTZ, Format.TEXT)
_READ: dict[bytes, Any] = {}
MOST_READ = 16_384


class InstantLoader(Loader):
    """Reads an instant as the driver does, in UTC; what it refuses becomes a marker, and the other rows are read.

    What was read is kept, since many jobs share an instant, and pages are read again: the text tells its distance to UTC.
    """

    def __init__(self, oid: int, context: Any = None) -> None:
        super().__init__(oid, context)
        assert _LOADER is not None  # noqa: S101 - the driver always has one for this type
        self._load = _LOADER(oid, context).load

    def load(self, data: Buffer) -> Any:
        """Return an aware datetime, or the marker."""
        raw = bytes(data)
        found = _READ.get(raw)
        return self._read(raw) if found is None else found

    def _read(self, raw: bytes) -> Any:
        try:
            read = self._load(raw).astimezone(UTC)
        except (psycopg.DataError, ValueError, OverflowError):
            return Unreadable(raw.decode())
        if len(_READ) >= MOST_READ:
            _READ.clear()
        _READ[raw] = read
        return read


def read_plain_values(connection: psycopg.Connection[Any]) -> None:
    """Let this connection read every instant that PostgreSQL has, and ids as the texts that they are everywhere else."""
    connection.adapters.register_loader("timestamptz", InstantLoader)
    connection.adapters.register_loader("uuid", TextLoader)
