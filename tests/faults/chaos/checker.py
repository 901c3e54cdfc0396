"""The judge of a chaos run: reads the tables by plain SQL, the transitions that database triggers logged, and the effects log.

It imports nothing of the library and computes itself which instants were due. Numbers as I1.. are the invariants of the ledger.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

STEP = {
    "skip": 1,
    "queue": 1,
    "queue-all": 2,
    "cancel": 2,
    "allow": 1,
    "flaky": 1,
    "all": 1,
    "paused": 1,
    "timed": 2,
}
MOST_ATTEMPTS = {"queue": 2, "allow": 3, "flaky": 3, "by-hand": 3}
GIVEN_BACK = {"shutdown", "returned"}  # reasons of a pending run whose next start uses no further attempt
ONE_AT_A_TIME = ("skip", "queue", "queue-all", "cancel", "flaky", "all", "paused", "timed")

ALLOWED = {
    (None, "running"), (None, "pending"), (None, "skipped"), (None, "missed"),
    ("pending", "running"), ("pending", "missed"), ("pending", "cancelled"), ("pending", "skipped"),
    ("running", "succeeded"), ("running", "failed"), ("running", "cancelled"), ("running", "pending"),
}  # fmt: skip

STAMPED = re.compile(r"\d{4}-\d\d-\d\d ")
FOREIGN = re.compile(
    r" (celery|kombu)(\.\S+)?: "
)  # a broker that went away is critical to them, and has a traceback

SQLITE_LOG = """
CREATE TABLE chaos_log (seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL, run TEXT, old_status TEXT, new_status TEXT,
  old_attempt INTEGER, new_attempt INTEGER, old_owner TEXT, new_owner TEXT, new_reason TEXT);
CREATE TABLE chaos_jobs (seq INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT, old_until INTEGER, new_until INTEGER);
CREATE TRIGGER chaos_insert AFTER INSERT ON jobmanager_runs BEGIN
  INSERT INTO chaos_log (at, run, new_status, new_attempt, new_owner)
  VALUES ((julianday('now') - 2440587.5) * 86400, NEW.id, NEW.status, NEW.attempt, NEW.owner); END;
CREATE TRIGGER chaos_update AFTER UPDATE ON jobmanager_runs BEGIN
  INSERT INTO chaos_log (at, run, old_status, new_status, old_attempt, new_attempt, old_owner, new_owner, new_reason)
  VALUES ((julianday('now') - 2440587.5) * 86400, NEW.id, OLD.status, NEW.status, OLD.attempt, NEW.attempt, OLD.owner,
    NEW.owner, NEW.reason); END;
CREATE TRIGGER chaos_until AFTER UPDATE OF accounted_until ON jobmanager_jobs BEGIN
  INSERT INTO chaos_jobs (job, old_until, new_until) VALUES (NEW.id, OLD.accounted_until, NEW.accounted_until); END;
"""

POSTGRES_LOG = """
CREATE TABLE jobmanager.chaos_log (seq bigserial PRIMARY KEY, at float8, run text, old_status text, new_status text,
  old_attempt int, new_attempt int, old_owner text, new_owner text, new_reason text);
CREATE TABLE jobmanager.chaos_jobs (seq bigserial PRIMARY KEY, job text, old_until float8, new_until float8);
CREATE FUNCTION jobmanager.chaos_run() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO jobmanager.chaos_log (at, run, new_status, new_attempt, new_owner)
    VALUES (extract(epoch FROM clock_timestamp()), NEW.id, NEW.status, NEW.attempt, NEW.owner);
  ELSE
    INSERT INTO jobmanager.chaos_log
      (at, run, old_status, new_status, old_attempt, new_attempt, old_owner, new_owner, new_reason)
    VALUES (extract(epoch FROM clock_timestamp()), NEW.id, OLD.status, NEW.status, OLD.attempt, NEW.attempt, OLD.owner,
      NEW.owner, NEW.reason);
  END IF;
  RETURN NULL; END $$;
CREATE FUNCTION jobmanager.chaos_job() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO jobmanager.chaos_jobs (job, old_until, new_until)
  VALUES (NEW.id, extract(epoch FROM OLD.accounted_until), extract(epoch FROM NEW.accounted_until));
  RETURN NULL; END $$;
CREATE TRIGGER chaos_run AFTER INSERT OR UPDATE ON jobmanager.runs FOR EACH ROW EXECUTE FUNCTION jobmanager.chaos_run();
CREATE TRIGGER chaos_job AFTER UPDATE OF accounted_until ON jobmanager.jobs FOR EACH ROW
  EXECUTE FUNCTION jobmanager.chaos_job();
"""


class Database:
    """Plain SQL on the ledger, the same for both stores; instants come back as seconds since 1970."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite:///")
        self._prefix = "jobmanager_" if self.is_sqlite else "jobmanager."

    def log_transitions(self) -> None:
        if self.is_sqlite:
            with closing(self._sqlite()) as database:
                database.executescript(SQLITE_LOG)
            return
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(POSTGRES_LOG)

    def rows(self, table: str, columns: Iterable[str], instants: Iterable[str] = ()) -> list[dict[str, Any]]:
        name = table if self.is_sqlite and table.startswith("chaos") else self._prefix + table
        instants = set(instants)
        wanted = []
        for column in (*columns, *instants):
            if column not in instants:
                wanted.append(column)
            elif self.is_sqlite:
                wanted.append(f"{column} / 1000000.0 AS {column}")
            else:
                wanted.append(f"extract(epoch FROM {column})::float8 AS {column}")
        query = f"SELECT {', '.join(wanted)} FROM {name}"
        if self.is_sqlite:
            with closing(self._sqlite()) as database:
                database.row_factory = sqlite3.Row
                return [dict(row) for row in database.execute(query)]
        import psycopg

        with psycopg.connect(self.url) as connection:
            cursor = connection.execute(query)
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, map(_plain, row), strict=True)) for row in cursor]

    def save(self, path: Path) -> None:
        """Write the rows that a history is read from, for people: the server goes when the run ends."""
        every = {
            "runs": self.rows("runs", RUN, RUN_INSTANTS),
            "jobs": self.rows("jobs", ("id", "state", "schedule_rev"), ("history_from", "accounted_until")),
            "instances": self.rows(
                "instances", ("id", "pid", "backend"), ("started_at", "seen_at", "dead_at")
            ),
            "log": self.rows("chaos_log", LOGGED),
            "watermarks": self.rows("chaos_jobs", ("seq", "job", "old_until", "new_until")),
        }
        path.write_text(json.dumps(every, indent=0))

    def _sqlite(self) -> sqlite3.Connection:
        return sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=10, isolation_level=None)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, UUID) else value


@dataclass
class Verdict:
    """What the judge found."""

    counts: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def add(self, name: str, text: str) -> None:
        """Note that the invariant `name` is broken."""
        self.violations.append(f"{name}: {text}")


RUN = ("id", "job_id", "status", "reason", "trigger", "attempt", "max_attempts", "owner", "turn", "ticks", "output", "error",
       "concurrency_key", "idempotency_key")  # fmt: skip
LOGGED = (
    "seq",
    "at",
    "run",
    "old_status",
    "new_status",
    "old_attempt",
    "new_attempt",
    "old_owner",
    "new_owner",
    "new_reason",
)
RUN_INSTANTS = ("scheduled_for", "first_for", "due_at", "started_at", "finished_at")


def unrest(database: Database, since: float, living: Collection[int]) -> list[str]:
    """Return what is not yet as it must be at rest (I2, I12); empty when all is.

    `living` are the pids that exist. A row alone proves no life: a killed process has one until the others miss its beats.
    """
    owners = {
        row["id"]
        for row in database.rows("instances", ("id", "pid"), ("dead_at",))
        if row["dead_at"] is None and row["pid"] in living
    }
    found = [
        f"{row['id']} is accounted for only until {row['accounted_until']:.0f}"
        for row in database.rows("jobs", ("id", "schedule"), ("accounted_until",))
        if row["schedule"] != "none" and row["accounted_until"] < since
    ]
    runs = database.rows("runs", RUN, RUN_INSTANTS)
    held = {row["concurrency_key"] for row in runs if row["turn"] == "holds"}
    for run in runs:
        if run["status"] == "running" and run["owner"] not in owners:
            found.append(f"{run['job_id']} {run['id']} runs without a living owner")
        late = time.time() - run["due_at"]
        free = run["turn"] != "waits" or run["concurrency_key"] not in held
        if run["status"] == "pending" and late > 3 and free:
            found.append(f"{run['job_id']} {run['id']} is due since {late:.1f} s and nobody takes it")
    return found


def check(database: Database, effects: Path, *, disturbed: set[int], grace: float) -> Verdict:
    """Judge a history whose processes have all ended; `disturbed` are the pids that were killed or stopped.

    A process that noted a stall of its own was disturbed too: by a machine that had no time for it.
    """
    verdict = Verdict()
    events = [json.loads(line) for line in effects.read_text().splitlines()]
    runs = {row["id"]: row for row in database.rows("runs", RUN, RUN_INSTANTS)}
    instances = database.rows("instances", ("id", "pid"), ("dead_at",))
    for run in runs.values():
        for name in ("output", "error"):
            if isinstance(run[name], str):
                run[name] = json.loads(run[name])
    given_back = Counter(
        (row["run"], row["new_attempt"])
        for row in database.rows("chaos_log", ("run", "new_status", "new_attempt", "new_reason"))
        if row["new_status"] == "pending" and row["new_reason"] in GIVEN_BACK
    )
    starts = _check_starts(verdict, events, runs, given_back)
    _check_account(verdict, database, runs)
    _check_outcomes(verdict, events, runs, starts)
    _check_transitions(verdict, database, runs, grace)
    _check_intervals(verdict, events, {row["id"]: row for row in instances}, database, runs)
    stalled = {event["pid"] for event in events if event["event"] == "stalled"}
    verdict.counts["stalled"] = len(stalled)
    _check_burials(verdict, instances, runs, disturbed | stalled)
    _check_keys(verdict, events, runs)
    return verdict


def _check_starts(
    verdict: Verdict, events: list[dict[str, Any]], runs: dict[str, Any], given_back: Counter[tuple[str, int]]
) -> Counter[tuple[str, int]]:
    starts = Counter((event["run"], event["attempt"]) for event in events if event["event"] == "start")
    verdict.counts["starts"] = sum(starts.values())
    verdict.counts.update(f"starts by {event.get('role')}" for event in events if event["event"] == "start")
    for (run, attempt), count in starts.items():
        if count > 1 + given_back[run, attempt]:
            verdict.add("I4", f"attempt {attempt} of {run} started {count} times")
    ticks = defaultdict(set)
    for event in events:
        if event["event"] == "start":
            if event["tick"] is not None:
                ticks[event["job"], event["tick"]].add(event["run"])
            row = runs.get(event["run"])
            if row is None:
                verdict.add("I5", f"{event['job']} {event['run']} started and has no row")
            elif event["attempt"] > row["attempt"]:
                verdict.add(
                    "I5", f"{event['run']} started attempt {event['attempt']}, the row knows {row['attempt']}"
                )
        if event["event"] == "seen" and event["seen"] is False:
            verdict.add("I5", f"{event['run']} had no durable row when its handler began")
    for (job, tick), by in ticks.items():
        if len(by) > 1:
            verdict.add("I4", f"tick {tick} of {job} was started by {len(by)} runs")
    return starts


def _check_account(verdict: Verdict, database: Database, runs: dict[str, Any]) -> None:
    covered: dict[str, Counter[int]] = defaultdict(Counter)
    for run in runs.values():
        if run["scheduled_for"] is None:
            continue
        job, last = run["job_id"], int(run["scheduled_for"])
        first = last if run["first_for"] is None else int(run["first_for"])
        instants = [moment for moment in range(first, last + 1) if moment % STEP[job] == 0]
        if len(instants) != run["ticks"] or run["scheduled_for"] % STEP[job]:
            verdict.add("I1", f"{job} {run['id']} says {run['ticks']} ticks for {first}..{last}")
        covered[job].update(instants)
    for job in database.rows("jobs", ("id", "schedule"), ("history_from", "accounted_until")):
        if job["schedule"] == "none":
            continue
        step, first, last = STEP[job["id"]], int(job["history_from"]), int(job["accounted_until"])
        expected = {moment for moment in range(first + 1, last + 1) if moment % step == 0}
        verdict.counts["ticks"] += len(expected)
        holes = sorted(expected - covered[job["id"]].keys())
        if holes:
            verdict.add("I2", f"{job['id']} has {len(holes)} holes, the first {holes[0]}")
        for moment, count in covered[job["id"]].items():
            if count > 1:
                verdict.add("I1", f"{job['id']} covers {moment} {count} times")
            if moment <= first:
                verdict.add("I3", f"{job['id']} has a row for {moment}, before it existed")


def _check_outcomes(
    verdict: Verdict, events: list[dict[str, Any]], runs: dict[str, Any], starts: Counter[tuple[str, int]]
) -> None:
    ends = {(event["run"], event["attempt"]): event for event in events if event["event"] == "end"}
    for run in runs.values():
        verdict.counts[run["status"]] += 1
        mine = (run["id"], run["attempt"])
        end = ends.get(mine)
        if run["status"] == "running":
            verdict.add("I12", f"{run['job_id']} {run['id']} runs, and nobody lives")
        if run["status"] in ("skipped", "missed") and any(started == run["id"] for started, _ in starts):
            verdict.add("I7", f"{run['id']} is {run['status']} and was started")
        if run["attempt"] > MOST_ATTEMPTS.get(run["job_id"], 1):
            verdict.add("I4", f"{run['job_id']} {run['id']} has {run['attempt']} attempts")
        if run["status"] == "succeeded":
            if end is None or end["how"] != "returned":
                verdict.add("I7", f"{run['id']} succeeded, and attempt {run['attempt']} never returned")
            elif run["output"] != {"nonce": end["nonce"]}:
                verdict.add("G5", f"{run['id']} carries the output of another attempt: a zombie wrote")
        error = run["error"] or {}
        raised = end is not None and end["how"] == "raised" and end["nonce"] in error.get("message", "")
        if (error.get("kind"), error.get("type")) == ("exception", "RuntimeError") and not raised:
            verdict.add("G5", f"{run['id']} carries the failure of another attempt: a zombie wrote")
        if error.get("kind") == "crashed":
            verdict.counts["crashed"] += 1
        if (
            run["started_at"] is not None
            and run["started_at"] < run["due_at"] - 0.001
            and run["status"] != "pending"
        ):
            verdict.add("I6", f"{run['id']} started {run['due_at'] - run['started_at']:.3f} s early")


def _check_transitions(verdict: Verdict, database: Database, runs: dict[str, Any], grace: float) -> None:
    reason_of: dict[str, str | None] = {}
    for row in sorted(database.rows("chaos_log", LOGGED), key=lambda row: row["seq"]):
        before, after, run = row["old_status"], row["new_status"], runs.get(row["run"])
        kept = reason_of.get(row["run"]) in GIVEN_BACK  # the start goes on with the attempt of the last one
        reason_of[row["run"]] = row["new_reason"]
        if before == after:
            changed = (row["old_attempt"], row["old_owner"]) != (row["new_attempt"], row["new_owner"])
            paused = after == "skipped" and run is not None and run["reason"] == "paused"
            if changed or (before not in ("pending", "running") and not paused):
                verdict.add("I9", f"{row['run']} was changed while it was {after}")
        elif (before, after) not in ALLOWED:
            verdict.add("I9", f"{row['run']} went from {before} to {after}")
        elif after == "running" and row["new_attempt"] - (row["old_attempt"] or 0) not in (
            {0, 1} if kept else {1}
        ):
            verdict.add("I4", f"{row['run']} went from attempt {row['old_attempt']} to {row['new_attempt']}")
        if before == "running" and after == "pending":
            verdict.counts["again"] += 1
        if (
            before is None
            and run is not None
            and run["trigger"] == "schedule"
            and run["scheduled_for"] is not None
        ):
            late = row["at"] - run["scheduled_for"]
            # A lock wait or a stalled transaction may add up to five seconds after the guard said yes.
            if late > grace + 5:
                verdict.add("I14", f"{run['id']} was opened {late:.1f} s late as on time")
    for row in database.rows("chaos_jobs", ("job", "old_until", "new_until")):
        if row["new_until"] < row["old_until"]:
            verdict.add("I10", f"the watermark of {row['job']} fell")


def _check_intervals(
    verdict: Verdict,
    events: list[dict[str, Any]],
    instances: dict[str, Any],
    database: Database,
    runs: dict[str, Any],
) -> None:
    """I8: handlers of one key meet only if the earlier one's process was declared dead."""
    columns = ("seq", "run", "new_status", "new_attempt", "new_owner")
    owner_of = {
        (row["run"], row["new_attempt"]): row["new_owner"]
        for row in database.rows("chaos_log", columns)
        if row["new_status"] == "running"
    }
    for job in ONE_AT_A_TIME:
        current: dict[tuple[str, int], int] = {}
        for event in (event for event in events if event.get("job") == job):
            who = (event["run"], event["attempt"])
            if event["event"] == "end":
                current.pop(who, None)
            elif event["event"] == "start":
                for other in current:
                    owner = instances.get(owner_of.get(other) or "")
                    if owner is None or owner["dead_at"] is None:
                        verdict.add("I8", f"{job}: {who} began while {other} ran in a living process")
                current[who] = event["mono"]


def _check_burials(
    verdict: Verdict, instances: list[dict[str, Any]], runs: dict[str, Any], disturbed: set[int]
) -> None:
    pid_of = {row["id"]: row["pid"] for row in instances}
    for run in runs.values():
        if (run["error"] or {}).get("kind") == "crashed" and pid_of.get(run["owner"]) not in disturbed:
            verdict.add(
                "I13",
                f"{run['job_id']} {run['id']} of healthy process {pid_of.get(run['owner'])} was taken over",
            )


def _check_keys(verdict: Verdict, events: list[dict[str, Any]], runs: dict[str, Any]) -> None:
    answers = defaultdict(set)
    for event in events:
        if event["event"] == "triggered":
            answers[event["key"]].add(event["run"])
    for key, found in answers.items():
        if len(found) > 1:
            verdict.add("key", f"{key} was answered with {len(found)} runs")
        for run in found - runs.keys():
            verdict.add("key", f"{key} was answered with {run}, which has no row")


def faults_in(log: str) -> list[str]:
    """Return what the log of the processes must not have: a traceback, or worse. Celery's own do not count."""
    found: list[str] = []
    last = ""
    for line in log.splitlines():
        if line.startswith("Fatal Python error") or (" CRITICAL " in line and not FOREIGN.search(line)):
            found.append(line)
        elif line.startswith("Traceback") and not FOREIGN.search(last):
            found.append(f"a process raised after: {last}")
        last = line if STAMPED.match(line) else last
    return found[:3]


def lines(verdict: Verdict) -> Iterator[str]:
    """The violations, for people."""
    yield from verdict.violations[:40]
    if len(verdict.violations) > 40:
        yield f"... and {len(verdict.violations) - 40} more"
