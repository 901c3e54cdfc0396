"""The tables, functions and triggers of this backend: their text, and the release of it that a database has."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

import psycopg
from psycopg import sql

MADE_AT_ONCE = 0x6A6F626D  # the advisory lock for making or changing tables, the store's included
STAMP = "jobmanager.fire(text,timestamptz)"
EDITION = (
    1  # one more with every published change: of two processes that differ, the newer one's functions stay
)

# What a role needs that runs the application and owns nothing: the store's tables, and the functions meant for it.
_GRANTS = """
GRANT USAGE ON SCHEMA jobmanager TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON {store} TO {role};
GRANT USAGE ON SEQUENCE jobmanager.run_logs_seq_seq TO {role};
GRANT SELECT ON jobmanager.schedules, jobmanager.plans, jobmanager.calls, jobmanager.run_calls, jobmanager.tickers,
  jobmanager.parked, jobmanager.epoch TO {role};
GRANT EXECUTE ON FUNCTION {functions} TO {role};
"""
OF_THE_STORE = (
    "meta", "jobs", "runs", "attempts", "run_logs", "instances", "declarations", "roles", "keepers", "audit", "keys",
    "notifications", "stats", "stats_hours", "webhooks", "once", "run_steps", "requests", "events", "jobmanager_alembic",
)  # fmt: skip
FUNCTIONS_OF_THE_STORE = (
    "row_id", "fault_of_cron", "presentable", "handlers_of", "supersede", "turn_of", "create_job", "enqueue", "send_event",
)  # fmt: skip
FOR_THE_APPLICATION = (
    "sync_entries(text)", "list_entries()", "entry_outcomes()", "stats()", "set_active(text, boolean, text)", "unschedule(text)", "purge_orphans()",
    "remove_entries()", "drift(text, text[], text, date)", "put_plans(jsonb, jsonb)", "go_on(text)",
    "put_ticker(text, text, text, text, text, int)", "announced_runs(text)", "is_signed(text, text, text)",
    "entry_name(text)", "next_tick(text, timestamptz)", "examined_keys(text)", "examined_entries(text)",
    "forget_ticker(text)", "key_count(text)", "note(text, text, text)", "ring(text)",
    "run_due()", "create_job(text, text, text, text, jsonb, text, text)",
    "enqueue(text, jsonb, int, interval, int, text, text, text)",
    "send_event(text, jsonb, text, text, text, text)",
)  # fmt: skip


@cache
def script() -> str:
    """All of it as SQL that may be run again."""
    folder = files("jobmanager.backends.pg_cron") / "sql"
    names = sorted(item.name for item in folder.iterdir() if item.name.endswith(".sql"))
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)


@cache
def release() -> str:
    """Return what identifies this text among those of other versions: its edition, and a digest of it."""
    return f"{EDITION}.{hashlib.sha256(script().encode()).hexdigest()[:10]}"


def is_older(found: str | None) -> bool:
    """Return whether this version replaces the release. It does not replace a newer edition: in a rolling deployment both are at work."""
    edition = (found or "").partition(".")[0]
    return found != release() and not (edition.isdigit() and int(edition) > EDITION)


def installed(connection: psycopg.Connection[Any]) -> str | None:
    """Return the release that the database has; None if it has none."""
    row = connection.execute("SELECT obj_description(to_regprocedure(%s), 'pg_proc')", (STAMP,)).fetchone()
    return None if row is None else row[0]


def install(connection: psycopg.Connection[Any]) -> bool:
    """Make them, or bring them up to date, inside the caller's transaction; False if they are today's already."""
    if not is_older(installed(connection)):
        return False
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (MADE_AT_ONCE,))
    if not is_older(installed(connection)):
        return False
    connection.execute(stamped().encode())
    return True


def stamped() -> str:
    """Return the script with its release, as one transaction needs it: what `--sql` prints."""
    return f"SET LOCAL search_path = pg_catalog, pg_temp;\n{script()}\nCOMMENT ON FUNCTION {STAMP} IS '{release()}';\n"


def grants(role: str) -> str:
    """Return the statements that let a role run the application without owning anything."""
    name = sql.Identifier(role).as_string(None)
    tables = ", ".join(f"jobmanager.{table}" for table in OF_THE_STORE)
    functions = ", ".join(f"jobmanager.{function}" for function in FOR_THE_APPLICATION)
    return _GRANTS.format(role=name, store=tables, functions=functions).lstrip()
