"""The hot path on PostgreSQL as text: one statement opens and ends any number of runs, and says which.

A batch travels as one JSON document: building it costs a third of what the driver needs for as many arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from jobmanager.run import KEEPS_ATTEMPT, Ending, Run
from jobmanager.stores.sql.columns import (
    ACCEPTED,
    BECOMES,
    ENDED,
    INSTANT,
    OPENED,
    TO_PENDING,
    ended_values,
    opened_row,
)
from jobmanager.stores.sql.postgres_json import to_json
from jobmanager.stores.sql.tables import micros


def _one(columns: dict[str, str]) -> str:
    """One row, a parameter per column."""
    return "SELECT " + ", ".join(f"%({name})s::{kind} AS {name}" for name, kind in columns.items())


def many(columns: dict[str, str], parameter: str) -> str:
    """Many rows from one JSON document; instants travel as microseconds."""
    shown = ", ".join(
        f"timestamptz 'epoch' + {name}::float8 * interval '1 microsecond' AS {name}"
        if kind == INSTANT
        else name
        for name, kind in columns.items()
    )
    kinds = ", ".join(f"{name} {'bigint' if kind == INSTANT else kind}" for name, kind in columns.items())
    return f"SELECT {shown} FROM json_to_recordset(%({parameter})s::json) AS j({kinds})"


def _open(rows: str) -> str:
    """Every guard, under a share of the job's lock: a change of the job waits for us, or we look again after it.

    Locks are taken in one order everywhere, or two processes that bring the same ticks would wait for each other.
    """
    return f"""
INSERT INTO jobmanager.runs ({", ".join(OPENED)}, ticks)
SELECT {", ".join(f"t.{name}" for name in OPENED)}, 1
  FROM ({rows}) t JOIN jobmanager.jobs j ON j.id = t.job_id
 WHERE CASE WHEN t.scheduled_for IS NULL THEN j.state IN ('active', 'paused')
       ELSE j.state = 'active' AND j.schedule_rev = t.schedule_rev AND j.accounted_until < t.scheduled_for
        AND t.due_at <= clock_timestamp() AND t.due_at > clock_timestamp() - %(grace)s
        AND (t.expires_at IS NULL OR t.expires_at >= clock_timestamp()) END
   AND (t.owner IS NULL OR EXISTS (SELECT FROM jobmanager.instances i WHERE i.id = t.owner AND i.dead_at IS NULL))
 ORDER BY t.job_id, t.concurrency_key, t.scheduled_for, t.idempotency_key, t.id
   FOR SHARE OF j
ON CONFLICT DO NOTHING RETURNING id"""


# An announced row becomes the run it was announced for. The guards are those of opening one, but for what was right already.
# Rows are found by id alone: the planner takes all that is pending for one row, and would go through it for each of ours.
# Who holds and who waits are asked for apart: each has its own index, and with both in one question every run would be read.
ACCEPT = f"""WITH v AS ({many(ACCEPTED, "opens")}),
 open AS (SELECT v.* FROM v JOIN jobmanager.jobs j ON j.id = v.job_id
   WHERE j.state = 'active' AND v.due_at <= clock_timestamp() AND v.due_at > clock_timestamp() - %(grace)s
     AND (v.expires_at IS NULL OR v.expires_at >= clock_timestamp())
     AND (v.owner IS NULL OR EXISTS (SELECT FROM jobmanager.instances i WHERE i.id = v.owner AND i.dead_at IS NULL))
     AND (v.turn IS NULL OR NOT EXISTS (SELECT FROM jobmanager.runs h WHERE h.concurrency_key = v.concurrency_key AND h.turn = 'holds')
       AND NOT EXISTS (SELECT FROM jobmanager.runs h WHERE h.concurrency_key = v.concurrency_key AND h.turn = 'waits'))
   ORDER BY v.job_id FOR SHARE OF j)
UPDATE jobmanager.runs r SET {", ".join(f"{name} = v.{name}" for name in BECOMES)}, accepted_at = clock_timestamp()
 FROM open v WHERE r.id = v.id AND r.status || '' = 'pending' AND r.accepted_at IS NULL RETURNING r.id::text"""

FENCE = "r.id = v.id AND r.owner = v.owner AND r.starts = v.starts AND r.status = 'running'"
END = """
UPDATE jobmanager.runs r SET status = v.status, reason = v.reason, output = v.output, error = v.error,
 progress = v.progress, started_at = v.started_at, finished_at = v.finished_at, turn = NULL"""
LOG = """
INSERT INTO jobmanager.run_logs (run_id, attempt, lines)
SELECT v.id, v.attempt, v.lines FROM v JOIN ended USING (id) WHERE v.lines IS NOT NULL"""

OPEN_ONE = f"WITH opened AS ({_open(_one(OPENED))}) SELECT id::text FROM opened"
OPEN_MANY = f"WITH opened AS ({_open(many(OPENED, 'opens'))}) SELECT id::text FROM opened"
END_ONE = f"""WITH v AS ({_one(ENDED)}),
 ended AS ({END} FROM v WHERE {FENCE} RETURNING r.id), logged AS ({LOG})
SELECT id::text FROM ended"""
END_MANY = f"""WITH v AS ({many(ENDED, "endings")} ORDER BY id),
 ended AS ({END} FROM v WHERE {FENCE} RETURNING r.id), logged AS ({LOG})
SELECT id::text FROM ended"""
# Asking for the number of opened rows makes them all be opened before the first is ended.
OPEN_AND_END = f"""WITH opened AS ({_open(many(OPENED, "opens"))}),
 v AS ({many(ENDED, "endings")} ORDER BY id),
 ended AS ({END} FROM v WHERE {FENCE} AND (SELECT count(*) FROM opened) >= 0 RETURNING r.id), logged AS ({LOG})
SELECT id::text FROM opened UNION ALL SELECT id::text FROM ended"""

# An array, not a list of any length: one statement, prepared once.
THESE = "SELECT r.* FROM jobmanager.runs r WHERE r.id = ANY(CAST(:ids AS uuid[])) ORDER BY r.due_at, r.id"
OURS = """SELECT id::text, status, owner, starts, accepted_at, started_at FROM jobmanager.runs WHERE id = ANY(%(ids)s::uuid[])"""
RETRY = f"""WITH open AS
 (SELECT id FROM jobmanager.jobs WHERE id = %(job_id)s
   AND (state IN ('active', 'paused') OR (%(rests)s AND state = 'disabled')) FOR SHARE)
UPDATE jobmanager.runs r SET {TO_PENDING}, due_at = %(retry_at)s, reason = %(kept)s, attempt = CASE WHEN %(returned)s AND r.attempt = 1 AND NOT EXISTS
  (SELECT FROM jobmanager.attempts a WHERE a.run_id = r.id) THEN 0 ELSE r.attempt END
 FROM open WHERE r.job_id = open.id AND r.id = %(id)s AND r.owner = %(owner)s AND r.starts = %(starts)s
   AND r.status = 'running' AND r.cancel_requested_at IS NULL"""
CANCEL_REQUESTED = """SELECT cancel_requested_at IS NOT NULL FROM jobmanager.runs
 WHERE id = %(id)s AND owner = %(owner)s AND starts = %(starts)s AND status = 'running'"""

ALIVE = "EXISTS (SELECT FROM jobmanager.instances i WHERE i.id = :owner AND i.dead_at IS NULL)"
KEPT = ", ".join(f"'{reason}'" for reason in sorted(KEEPS_ATTEMPT))
START = f"""status = 'running', starts = r.starts + 1, owner = :owner, started_at = clock_timestamp(), reason = NULL,
 attempt = greatest(1, r.attempt + CASE WHEN r.reason IN ({KEPT}) THEN 0 ELSE 1 END)"""
NOBODY_HOLDS = """NOT EXISTS
 (SELECT FROM jobmanager.runs h WHERE h.concurrency_key = r.concurrency_key AND h.turn = 'holds')"""


def claim(*, these: bool) -> str:
    """Lock what is due in its order, past what others hold; start all but those that wait for their key, and name these.

    A waiting run can meet a holder that has not committed yet, so it is started in a statement of its own: CLAIM_WAITING.
    """
    return f"""
WITH due AS MATERIALIZED (
  SELECT r.id, r.turn, r.concurrency_key, r.priority, r.due_at
    FROM jobmanager.runs r JOIN jobmanager.jobs j ON j.id = r.job_id
   WHERE r.status = 'pending' AND r.due_at <= clock_timestamp() AND r.accepted_at IS NOT NULL
     {"AND r.id = ANY(CAST(:run_ids AS uuid[]))" if these else ""}
     AND j.namespace = :namespace AND j.state IN ('active', 'paused') AND r.job_id <> ALL(CAST(:unknown AS text[]))
     AND (NOT EXISTS (SELECT 1 FROM jobmanager.instances i WHERE i.id = :owner AND i.declares IS NOT NULL) OR r.job_id IN
       (SELECT jsonb_array_elements_text(d.job_ids) FROM jobmanager.instances i
         JOIN jobmanager.declarations d ON d.digest = i.declares WHERE i.id = :owner))
     AND (r.expires_at IS NULL OR r.expires_at >= clock_timestamp() OR r.attempt > 0)
     AND (r.turn IS DISTINCT FROM 'waits' OR {NOBODY_HOLDS})
     AND {ALIVE}
   ORDER BY r.priority DESC, r.due_at, r.id LIMIT :limit FOR UPDATE OF r SKIP LOCKED),
taken AS (
  UPDATE jobmanager.runs r SET {START} FROM due
   WHERE r.id = due.id AND due.turn IS DISTINCT FROM 'waits' RETURNING r.*)
SELECT due.id AS due_id, due.turn AS due_turn, due.concurrency_key AS due_key, taken.*
  FROM due LEFT JOIN taken ON taken.id = due.id ORDER BY due.priority DESC, due.due_at, due.id"""


CLAIM_WAITING = f"""
UPDATE jobmanager.runs r SET {START}, turn = 'holds' FROM jobmanager.jobs j
 WHERE r.id = CAST(:run_id AS uuid) AND r.status = 'pending' AND r.turn = 'waits' AND j.id = r.job_id
   AND j.state IN ('active', 'paused') AND {NOBODY_HOLDS} AND {ALIVE} RETURNING r.*"""


# ---------------------------------------------------------------- rows


def open_one(run: Run) -> dict[str, Any]:
    """Return the parameters of OPEN_ONE."""
    payload = None if run.payload is None else to_json(run.payload)
    return {**_named(opened_row(run, _as_it_is)), "payload": payload}


def open_many(runs: Sequence[Run]) -> str:
    """Return the document of OPEN_MANY."""
    return to_json([_named(opened_row(run, micros)) for run in runs])


def end_one(ending: Ending) -> dict[str, Any]:
    """Return the parameters of END_ONE."""
    values = ended_values(ending, _as_it_is)
    for name in ("output", "error", "progress", "lines"):
        values[name] = None if values[name] is None else to_json(values[name])
    return values


def end_many(endings: Sequence[Ending]) -> str:
    """Return the document of END_MANY."""
    return to_json([ended_values(ending, micros) for ending in endings])


def _named(row: list[Any]) -> dict[str, Any]:
    return dict(zip(OPENED, row, strict=True))


def _as_it_is(moment: datetime | None) -> datetime | None:
    return moment
