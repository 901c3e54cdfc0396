"""The conditions of a view: which jobs and runs a principal sees. A job with an unknown visibility is hidden."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import sqlalchemy as sa

from jobmanager.access.view import View
from jobmanager.stores.sql.tables import Tables

Condition = sa.ColumnElement[bool]


KEPT = 64
"""Views of which conditions are kept: making them takes a good part of the time of the small statements that they stand in."""


@lru_cache(maxsize=KEPT)
def jobs_seen(tables: Tables, seen: View | None, *, whole: bool = False) -> Sequence[Condition]:
    """Return the conditions that a job is seen; with `whole` that all of its runs are."""
    if seen is None:
        return ()
    c = tables.jobs.c
    kinds = [
        "team",
        *(["system"] if seen.system else []),
        *(["project"] if not whole or seen.scopes is None else []),
    ]
    return c.namespace == seen.namespace, c.visibility.in_(kinds)


@lru_cache(maxsize=KEPT)
def runs_seen(tables: Tables, seen: View | None, *, whole: bool = False) -> Sequence[Condition]:
    """Return the conditions that a run is seen; with `whole` that all runs of its job are, as a sum over them shows each."""
    if seen is None:
        return ()
    jobs, runs = tables.jobs, tables.runs
    wanted = [jobs.c.id == runs.c.job_id, *jobs_seen(tables, seen, whole=whole)]
    if seen.scopes is not None and not whole:
        keys = [jobs.c.id.concat(f"/{scope}") for scope in sorted(seen.scopes)]
        wanted.append((jobs.c.visibility != "project") | runs.c.concurrency_key.in_(keys))
    return (sa.select(jobs.c.id).where(*wanted).correlate(runs).exists(),)


def run_id_seen(tables: Tables, seen: View | None, run_id: str) -> list[Condition]:
    """Return the conditions that the run of this id, whose attempts or lines are asked for, is seen."""
    if seen is None:
        return []
    run = sa.select(tables.runs.c.id).where(tables.runs.c.id == run_id, *runs_seen(tables, seen))
    return [run.exists()]
