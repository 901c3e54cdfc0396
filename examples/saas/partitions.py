"""The events of the application, a table for each month: made ahead, and dropped whole when they take too much room."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, delete, func, select, text

from . import data

EVENT = "x" * 80


def name_of(moment: datetime) -> str:
    """Return the name of the table of a month."""
    return f"events_{moment:%Y_%m}"


def months(moment: datetime, count: int) -> list[datetime]:
    """Return the first days of `count` months, beginning with the moment's."""
    whole = moment.year * 12 + moment.month - 1
    first = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return [first.replace(year=n // 12, month=n % 12 + 1) for n in range(whole, whole + count)]


def create(db: Connection, month: datetime) -> bool:
    """Create the table of a month; False if it was there."""
    name = name_of(month)
    db.execute(text(f"CREATE TABLE IF NOT EXISTS {name} (id INTEGER PRIMARY KEY, payload TEXT NOT NULL)"))
    return data.add_new(db, data.partitions, {"name": name, "bytes": 0})


def names(db: Connection) -> Sequence[str]:
    """Return the names of all tables, the oldest first."""
    return db.scalars(select(data.partitions.c.name).order_by(data.partitions.c.name)).all()


def fill(db: Connection, name: str, events: int) -> None:
    """Add events to a table, and count their size."""
    found = db.scalar(text(f"SELECT coalesce(max(id), 0) FROM {name}"))  # noqa: S608 - our own name
    rows = [{"id": found + n, "payload": EVENT} for n in range(1, events + 1)]
    db.execute(text(f"INSERT INTO {name} VALUES (:id, :payload)"), rows)  # noqa: S608
    size = data.partitions.c.bytes + events * len(EVENT)
    db.execute(data.partitions.update().where(data.partitions.c.name == name).values(bytes=size))


def size(db: Connection) -> int:
    """Return how many bytes all events take."""
    return int(db.scalars(select(func.coalesce(func.sum(data.partitions.c.bytes), 0))).one())


def drop(db: Connection, name: str) -> None:
    """Drop a table with its events. Twice is safe."""
    db.execute(text(f"DROP TABLE IF EXISTS {name}"))
    db.execute(delete(data.partitions).where(data.partitions.c.name == name))
