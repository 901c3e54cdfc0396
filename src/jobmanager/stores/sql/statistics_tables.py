"""The two tables of the counts by the hour: what the runs of each hour came to, and which hours are to be counted again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from jobmanager.stores.statistics import BUCKETS

LENGTHS = ("duration", "lateness")


def statistics_tables(
    table: Callable[..., sa.Table], instant: type[sa.types.TypeEngine[Any]], some_rows: str
) -> tuple[sa.Table, sa.Table]:
    """Return the tables `stats` and `stats_hours`, made by `table`; `some_rows` is the dialect's word for a partial index."""
    # By the hour in which ids were made, and by the hour of the instants; `purged` runs have no row any more.
    stats = table(
        "stats",
        sa.Column("made_in", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("job_id", sa.Text, primary_key=True),
        sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("status", sa.Text, primary_key=True),
        sa.Column("purged", sa.Boolean, primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        *(column for name in LENGTHS for column in _lengths(name)),
    )
    sa.Index(f"{stats.name}_hour", stats.c.hour)
    sa.Index(f"{stats.name}_job", stats.c.job_id, stats.c.hour)
    hours = table(
        "stats_hours",
        sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("turn", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("counted_at", instant),
        sa.Column("took", sa.Float, nullable=False, server_default="0"),
        sa.Column("settled", sa.Boolean, nullable=False, server_default=sa.false()),
    )
    unsettled: dict[str, Any] = {some_rows: ~hours.c.settled}
    sa.Index(f"{stats.name}_unsettled", hours.c.hour, **unsettled)
    return stats, hours


def _lengths(name: str) -> list[sa.Column[Any]]:
    """Return the columns for lengths of time: their sum in seconds, the longest, and how many fell into each bucket."""
    seconds: list[sa.Column[Any]] = [
        sa.Column(f"{name}_{of}", sa.Float, nullable=False) for of in ("sum", "longest")
    ]
    return seconds + [sa.Column(column, sa.BigInteger, nullable=False) for column in histogram_columns(name)]


def histogram_columns(name: str) -> list[str]:
    """Return the names of the columns that count lengths in buckets."""
    return [f"{name}_{bucket:02}" for bucket in range(BUCKETS)]
