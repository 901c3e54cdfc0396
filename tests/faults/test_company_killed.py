"""The reference application live, on Celery and on pg_cron, whose processes are killed at random: nothing is lost, no mail is sent twice.

JOBMANAGER_TEST_LIVE_SECONDS says for how long; ten minutes of each:

    JOBMANAGER_TEST_LIVE_SECONDS=600 pytest -m faults -s -n 0 tests/faults/test_company_killed.py
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from psycopg.rows import dict_row
from tests.servers import free_port

from jobmanager import JobManager, Settings

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the examples are no part of the installed package

from examples.saas import data, demo, jobs, outbox, seed, services  # noqa: E402
from examples.saas.fakes import Fakes  # noqa: E402
from tests.company_days import mails_of  # noqa: E402

pytestmark = [pytest.mark.faults, pytest.mark.servers, pytest.mark.timeout(3_600)]

SECONDS = float(os.environ.get("JOBMANAGER_TEST_LIVE_SECONDS", "75"))
LEASE = 5
GROUND = seed.Amounts(users=200, sessions=400, invitations=100, logs=2_000, error_logs=100, mails=40)
# So few mails that a busy machine sends them faster than they come, with most of its workers just killed.
A_SECOND = seed.Amounts(
    users=0, sessions=2, invitations=2, push_subscriptions=0, logs=10, error_logs=1, ai_requests=2, activities=4, conversions=0,
    mails=2,
)  # fmt: skip

PATIENCE = 900.0  # an attempt to send mails may take four minutes, and there are three
LEFT = """SELECT id, NULL AS scheduled_for, 'not accounted' AS status, 0 AS attempt, NULL AS owner FROM jobmanager.jobs
 WHERE schedule <> 'none' AND accounted_until < %s AND next_due_at <= %s
UNION ALL SELECT job_id, scheduled_for, status, attempt, owner::text FROM jobmanager.runs
 WHERE status IN ('pending', 'running') AND scheduled_for <= %s"""

WEB = ("uvicorn", "examples.saas.app:app", "--log-level", "warning", "--port")
CREWS: Mapping[str, Mapping[str, tuple[Sequence[str], int]]] = {
    "celery": {
        "web": (WEB, 1),
        "beat": (("jobmanager", "beat"), 2),
        "worker": (("jobmanager", "worker", "--concurrency", "2"), 2),
    },
    "pg_cron": {"web": (WEB, 2)},
}


@dataclass
class Crew:
    """The processes of the application, as compose/ has them: how many of each, their commands, and what became of them."""

    roles: Mapping[str, tuple[Sequence[str], int]]
    env: Mapping[str, str]
    folder: Path
    living: dict[int, tuple[str, subprocess.Popen[bytes]]] = field(default_factory=dict)
    killed: Counter[str] = field(default_factory=Counter)
    fallen: list[str] = field(default_factory=list)
    started: int = 0
    _logs: dict[int, Path] = field(default_factory=dict)

    def fill(self) -> None:
        """Start what is missing; one that ended by itself is on record."""
        for pid, (role, process) in list(self.living.items()):
            if process.poll() is not None:
                self.fallen.append(f"{role} {pid} ended with {process.returncode}")
                self._gone(pid)
        for role, (_, count) in self.roles.items():
            for _ in range(count - sum(1 for name, _ in self.living.values() if name == role)):
                self._start(role)

    def _start(self, role: str) -> None:
        words = list(self.roles[role][0])
        if role == "web":
            words.append(str(free_port()))
        self.started += 1
        path = self.folder / f"{role}-{self.started}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=ROOT,
                env=dict(self.env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.living[process.pid] = role, process
        self._logs[process.pid] = path

    def kill_one(self, chance: random.Random) -> None:
        """Kill -9 one of them with all its children, or one child of a worker alone; now and then one that is still coming up."""
        up = sorted(pid for pid in self.living if self._is_up(pid))
        if not up:
            return
        pid = chance.choice(up if chance.random() < 0.9 else sorted(self.living))
        role, process = self.living[pid]
        children: list[psutil.Process] = []
        if role == "worker" and chance.random() < 0.4:
            with suppress(psutil.Error):
                children = psutil.Process(pid).children()
        if children:
            with suppress(psutil.Error):
                chance.choice(children).kill()
                self.killed["child of a worker"] += 1
            return
        if process.poll() is None:
            os.killpg(pid, signal.SIGKILL)
            process.wait(30)
            self.killed[role] += 1
            self._gone(pid)

    def _is_up(self, pid: int) -> bool:
        words = " ready." if self.living[pid][0] == "worker" else "store="
        return words in self._logs[pid].read_text(errors="replace")

    def _gone(self, pid: int) -> None:
        self.living.pop(pid)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # children that outlived it

    def end(self) -> None:
        """End all, in order if they do."""
        for _, process in self.living.values():
            process.terminate()
        for pid, (_, process) in list(self.living.items()):
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            self._gone(pid)


@contextmanager
def visitors(chance: random.Random) -> Iterator[None]:
    """While this lasts, people use the application."""
    closed = threading.Event()

    def visit() -> None:
        while not closed.wait(1):
            with data.transaction() as db:
                seed.populate(db, A_SECOND, chance, data.now())

    thread = threading.Thread(target=visit)
    thread.start()
    try:
        yield
    finally:
        closed.set()
        thread.join()


def pace(backend: str) -> dict[str, dict[str, Any]]:
    """The jobs of the demo, every few seconds; by the minute where the backend knows no seconds."""
    changes = demo.at_a_pace_to_be_watched()
    if backend == "pg_cron":
        for words in changes.values():
            words.update({"cron": "* * * * *"} if "cron" in words else {"every": 60})
    return changes


@pytest.mark.parametrize("backend", ["celery", "pg_cron"])
def test_nothing_is_lost_and_no_mail_is_sent_twice(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(int(os.environ.get("JOBMANAGER_TEST_LIVE_SEED", "7")))
    store = request.getfixturevalue("pg_cron_url" if backend == "pg_cron" else "postgres_url")
    settings = {
        "backend": backend,
        "database_url": store,
        "app": "examples.saas.jobs:jobs",
        "lease_seconds": LEASE,
        "sweep_seconds": 2,
        **(
            {"pg_cron_transport": "notify"}
            if backend == "pg_cron"
            else {"celery_broker_url": request.getfixturevalue("redis_url")}
        ),
    }
    with Fakes() as fakes:
        variables = {
            **fakes.environment,
            "SAAS_DATABASE_URL": store.replace("postgresql:", "postgresql+psycopg:", 1),
            "LOGS_ENABLED": "true",
            "AFFILIATES_ENABLED": "true",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        env = {**os.environ, "PYTHONUNBUFFERED": "1"}
        env |= {f"JOBMANAGER_{name.upper()}": str(value) for name, value in settings.items()}
        data.create()
        with data.transaction() as db:
            seed.populate(db, GROUND, chance, data.now())
        settings.pop("app")
        manager = JobManager(Settings(**settings))  # type: ignore[arg-type]
        jobs.register(manager)
        jobs.plant(manager, pace(backend))
        crew = Crew(CREWS[backend], env, tmp_path)
        try:
            end = trouble(crew, chance)
            calm = time.monotonic()
            settle(store, end, crew)
            calm = time.monotonic() - calm
        finally:
            crew.end()
        verdict(backend, manager, store, end, crew, fakes, calm)
        manager.store.close()
        services.disconnect()
        data.engine_of(data.url()).dispose()


def trouble(crew: Crew, chance: random.Random) -> datetime:
    """Let the application live and its processes die for so long; return when that was over."""
    crew.fill()
    over = time.monotonic() + SECONDS
    kill_at = time.monotonic() + 15  # once all are there
    with visitors(chance):
        while time.monotonic() < over:
            time.sleep(0.1)
            if time.monotonic() >= kill_at:
                crew.kill_one(chance)
                kill_at = time.monotonic() + chance.uniform(3, 10)
                time.sleep(chance.uniform(0, 2))
            crew.fill()
    return datetime.now(UTC)


def asked(store: str, statement: str, *values: Any) -> list[dict[str, Any]]:
    with psycopg.connect(store, row_factory=dict_row) as database:
        return database.execute(statement, values).fetchall()  # type: ignore[arg-type]


def settle(store: str, end: datetime, crew: Crew) -> None:
    """Wait until each instant up to the end has been opened, and each run of one has ended; no process is killed any more."""
    deadline = time.monotonic() + PATIENCE
    while left := asked(store, LEFT, end, end, end):
        assert time.monotonic() < deadline, left
        crew.fill()
        time.sleep(0.2)


def verdict(
    backend: str, manager: JobManager, store: str, end: datetime, crew: Crew, fakes: Fakes, calm: float
) -> None:
    """Count, tell and judge."""
    runs = asked(
        store,
        "SELECT job_id, scheduled_for, first_for, ticks, status, reason, attempt, error->>'kind' AS error FROM jobmanager.runs"
        " WHERE scheduled_for <= %s",
        end,
    )
    since = {
        row["id"]: row["history_from"] for row in asked(store, "SELECT id, history_from FROM jobmanager.jobs")
    }
    due, lost, twice = account(manager, runs, since, end)
    live = mails_of(fakes)
    of_id = Counter(message_id for message_id, _, _ in live)
    rows = {f"<pending-{row['id']}@example.com>": row for row in asked(store, "SELECT * FROM pending_emails")}
    in_doubt = {message_id for message_id in of_id if rows[message_id]["status"] == "sending"}
    left = {message_id for message_id, row in rows.items() if row["status"] == "sending"}
    take_over()
    later = mails_of(fakes)[len(live) :]
    again = Counter(message_id for message_id, _, _ in live + later)
    after = {
        f"<pending-{row['id']}@example.com>": row for row in asked(store, "SELECT * FROM pending_emails")
    }
    print(
        f"\n{backend}: {SECONDS:.0f} s, settled {calm:.0f} s later\n"
        f"  instants due {due}, lost {len(lost)}, twice {len(twice)}\n"
        f"  runs {len(runs)}: {dict(Counter(row['status'] for row in runs))},"
        f" of more than one attempt {sum(row['attempt'] > 1 for row in runs)}\n"
        f"  not succeeded: {dict(Counter((row['status'], row['reason'], row['error']) for row in runs if row['status'] != 'succeeded'))}\n"
        f"  killed {crew.killed.total()}: {dict(crew.killed)}; ended by themselves: {crew.fallen}\n"
        f"  mails written {len(rows)}, sent {len(live)}, twice {sum(count > 1 for count in of_id.values())},"
        f" left by killed workers {len(left)}, of them taken by the server before the worker could note it {len(in_doubt)};"
        f" sent a quarter of an hour later {len(later)}, twice then {sum(count > 1 for count in again.values())}\n"
        f"  mails in the end: {dict(Counter(row['status'] for row in after.values()))}"
    )

    assert lost == []
    assert twice == []
    assert crew.fallen == []
    assert {message_id for message_id, count in of_id.items() if count > 1} == set()
    assert len({row["key"] for row in rows.values()}) == len(rows)
    # SMTP has no transactions: such a mail, and no other, may go out again when its worker's claim has run out.
    assert {message_id for message_id, count in again.items() if count > 1} <= in_doubt
    assert {message_id for message_id, row in after.items() if row["status"] == "sent"} == again.keys()
    assert "sending" not in {row["status"] for row in after.values()}
    assert {
        row["recipient"].rpartition("@")[2]
        for row in after.values()
        if row["status"] in ("failed", "pending")
    } <= {*("gone.example.com", "full.example.com", "greylist.example.com")}
    assert len(of_id) > SECONDS / 6
    assert crew.killed.total() > SECONDS / 60


def account(
    manager: JobManager, runs: Sequence[Mapping[str, Any]], since: Mapping[str, datetime], end: datetime
) -> tuple[int, list[Any], list[Any]]:
    """How many instants were due by the schedules alone; which of them have no run, and which have several."""
    due = 0
    lost: list[Any] = []
    twice: list[Any] = []
    for status in manager.get_all_job_statuses():
        job = manager.get_job(status.id)
        if job.schedule is None:
            continue
        expected = instants(job.schedule.next_after, since[job.id], end)
        due += len(expected)
        covered: Counter[datetime] = Counter()
        for row in runs:
            if row["job_id"] != job.id:
                continue
            first, last = row["first_for"] or row["scheduled_for"], row["scheduled_for"]
            within = [instant for instant in expected if first <= instant <= last]
            assert row["ticks"] == len(within), row
            covered.update(within)
        lost += [(job.id, instant) for instant in expected if not covered[instant]]
        twice += [(job.id, instant) for instant, count in covered.items() if count > 1]
    return due, lost, twice


def instants(
    next_after: Callable[[datetime], datetime | None], start: datetime, end: datetime
) -> list[datetime]:
    found: list[datetime] = []
    following = next_after(start)
    while following is not None and following <= end:
        found.append(following)
        following = next_after(following)
    return found


def take_over() -> None:
    """Send, as the application would a quarter of an hour later, what killed workers had claimed."""
    later = outbox.ABANDONED_AFTER + timedelta(minutes=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "now", lambda: datetime.now(UTC) + later)
        with outbox.Outbox("afterwards") as box, outbox.server() as smtp:
            while batch := box.claim(20):
                for letter in batch:
                    box.send(letter, smtp)
