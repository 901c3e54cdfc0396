"""At a million runs no statement of a living process reads the whole table: each is led by an index."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.servers import FreshDatabases

from jobmanager import Settings
from jobmanager.access.view import View
from jobmanager.clock import SystemClock
from jobmanager.ledger.statistics import statistics_of
from jobmanager.run import FAILED, Ending, Run, RunStatus, new_id
from jobmanager.search import Mark, RunFilter
from jobmanager.step import GATHERED, Awaited, Event
from jobmanager.stores import store_for
from jobmanager.stores.audit import AuditQuery
from jobmanager.stores.sql.sqlite_database import driver_of
from jobmanager.stores.values import Instance, JobRow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RUNS, JOBS = 1_000_000, 1000
OWNER = "01900000-0000-7000-8000-000000000001"

# Run i is the tick of job i % 1000 in minute i // 1000. The last 300 are open: 100 running, 100 pending, 100 waiting.
COLUMNS = """INSERT INTO {runs} (id, job_id, schedule_rev, scheduled_for, ticks, status, trigger, notify, due_at, attempt,
 max_attempts, retry_on_crash, owner, concurrency_key, turn, priority, opened_at, accepted_at, started_at, finished_at)"""
FILL_POSTGRES = (
    COLUMNS
    + """
SELECT CAST(lpad(to_hex(CAST(extract(epoch FROM at) * 1000 AS bigint)), 12, '0') || '7000' || '8000' || lpad(to_hex(i), 12, '0') AS uuid),
 'job-' || (i %% 1000), 1, at, 1, status, 'schedule', false, at, 1, 1, true,
 CASE WHEN status = 'pending' THEN NULL ELSE '01900000-0000-7000-8000-000000000001' END, 'job-' || (i %% 1000),
 CASE WHEN i >= 999900 THEN 'waits' WHEN i >= 999700 THEN 'holds' END, 0, at, at, at,
 CASE WHEN status NOT IN ('pending', 'running') THEN at END
FROM (SELECT i, %(first)s::timestamptz + i / 1000 * interval '1 minute' AS at, CASE WHEN i >= 999800 THEN 'pending'
 WHEN i >= 999700 THEN 'running' WHEN i %% 97 = 0 THEN 'failed' ELSE 'succeeded' END AS status
 FROM generate_series(0, 999999) i) made"""
)
FILL_SQLITE = (
    """WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999999), made AS (SELECT i,
 ? + i / 1000 * 60000000 AS at, CASE WHEN i >= 999800 THEN 'pending' WHEN i >= 999700 THEN 'running'
 WHEN i % 97 = 0 THEN 'failed' ELSE 'succeeded' END AS status FROM n) """
    + COLUMNS
    + """
SELECT substr(printf('%012x', at / 1000), 1, 8) || '-' || substr(printf('%012x', at / 1000), 9) || '-7000-8000-' || printf('%012x', i),
 'job-' || (i % 1000), 1, at, 1, status, 'schedule', 0, at, 1, 1, 1,
 CASE WHEN status = 'pending' THEN NULL ELSE '01900000-0000-7000-8000-000000000001' END, 'job-' || (i % 1000),
 CASE WHEN i >= 999900 THEN 'waits' WHEN i >= 999700 THEN 'holds' END, 0, at, at, at,
 CASE WHEN status NOT IN ('pending', 'running') THEN at END FROM made"""
)


class Watched:
    """A store with a million runs, and what it costs to ask it something."""

    def __init__(self, url: str) -> None:
        self.store: Any = store_for(Settings(database_url=url), SystemClock())
        self.store.install()
        self.now = self.store.now().replace(microsecond=0)
        self.first = self.now - timedelta(minutes=RUNS // JOBS)
        self.costs: list[tuple[float, str]] = []
        self.store.jobs.add(
            [
                JobRow(
                    id=f"job-{number}",
                    namespace="default",
                    declared="{}",
                    schedule="every 60",
                    accounted_until=self.now,
                    next_due_at=self.now + timedelta(seconds=number),
                    history_from=self.first,
                )
                for number in range(JOBS)
            ]
        )
        self.store.processes.register(
            Instance(
                id=OWNER,
                namespace="default",
                host="here",
                pid=1,
                executes=True,
                started_at=self.first,
                seen_at=self.now,
            )
        )
        self._fill()
        self.of_job_7 = self.store.history.runs(job_id="job-7", limit=400)[-1].id

    def _fill(self) -> None:
        runs = self.store.database.tables.runs
        with self.store.database.changing_tables() as connection:
            for index in runs.indexes:  # built afterwards, which takes a third of the time
                index.drop(connection)
            if self.store.schema.name:
                fill = FILL_POSTGRES.format(runs="jobmanager.runs")
                connection.exec_driver_sql("ALTER TABLE jobmanager.runs SET UNLOGGED")
                connection.exec_driver_sql(fill, {"first": self.first})
            else:
                first = int(self.first.timestamp()) * 1_000_000
                connection.exec_driver_sql(FILL_SQLITE.format(runs="jobmanager_runs"), (first,))
            for index in runs.indexes:
                index.create(connection)
        with self.store.database.reading() as connection:
            connection.exec_driver_sql("ANALYZE")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Explain every statement before it is executed."""
        engine = self.store.database._engine
        sa.event.listen(engine, "before_cursor_execute", self._explain)
        try:
            yield
        finally:
            sa.event.remove(engine, "before_cursor_execute", self._explain)

    def _explain(self, _conn, cursor, statement, parameters, _context, many) -> None:
        if not many and statement.lstrip().split()[0] in ("SELECT", "WITH", "UPDATE", "DELETE"):
            self.explain(cursor.connection, statement, parameters)

    def explain(self, driver: Any, statement: str, parameters: Any) -> None: ...


class WatchedPostgres(Watched):
    too_much = 30_000  # planner's units; reading the table takes 60,000 and more

    def explain(self, driver: Any, statement: str, parameters: Any) -> None:
        plan = driver.execute(f"EXPLAIN (FORMAT JSON) {statement}", parameters).fetchone()[0]
        plan = json.loads(plan) if isinstance(plan, str) else plan
        self.costs.append((plan[0]["Plan"]["Total Cost"], f"{statement}\n{json.dumps(plan, indent=1)}"))


class WatchedSqlite(Watched):
    too_much = 600_000  # steps of its machine; reading the table takes 5,000,000 and more

    def explain(self, driver: Any, statement: str, parameters: Any) -> None:
        if statement.startswith("EXPLAIN"):
            return
        lines = [row[3] for row in driver.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]
        self.costs.append((0, f"{statement}\n{lines}"))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count the steps of the whole call, over all its connections."""
        steps = 0

        def step() -> int:
            nonlocal steps
            steps += 1000
            return 0

        def arm(driver: Any, *_: object) -> None:
            driver.set_progress_handler(step, 1000)

        engine = self.store.database._engine
        sa.event.listen(engine, "checkout", arm)
        if self.store.database._writer is not None:
            arm(driver_of(self.store.database._writer))
        try:
            with super().watching():
                yield
        finally:
            sa.event.remove(engine, "checkout", arm)
        told = "\n".join(text for _, text in self.costs)
        self.costs = [(steps, told)]


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A store with a million runs."""
    if request.param == "sqlite":
        folder: Path = tmp_path_factory.mktemp("plans")
        yield WatchedSqlite(f"sqlite:///{folder}/jobs.db")
        return
    with FreshDatabases(request.getfixturevalue("postgres_server")) as databases:
        watched = WatchedPostgres(databases.make())
        yield watched
        watched.store.close()


def scans(told: str, *tables: str) -> bool:
    """Return whether a plan of PostgreSQL reads one of the tables from its beginning to its end."""
    return re.search(rf'"Seq Scan",[^{{}}]*"Relation Name": "({"|".join(tables)})"', told) is not None


def run_of(full: Watched, job_id: str = "job-1", **fields: Any) -> Run:
    return Run(
        **{
            "id": new_id(full.now),
            "job_id": job_id,
            "status": RunStatus.PENDING,
            "trigger": "manual",
            "due_at": full.now,
            "concurrency_key": f"{job_id}/x",
            "opened_at": full.now,
            "accepted_at": full.now,
            **fields,
        }
    )


def locked(ask: Callable[[Any], object]) -> Callable[[Watched], object]:
    """Ask a job's page."""

    def act(full: Watched) -> object:
        with full.store.jobs.lock("job-7") as page:
            return ask(page)

    return act


def middle(full: Watched) -> str:
    """The id of a run in the middle of the history."""
    return new_id(full.first + timedelta(minutes=RUNS // JOBS // 2))


TEAM = View("default")
SCOPED = View("default", scopes=frozenset({"acme"}))
QUESTIONS: dict[str, Callable[[Any], object]] = {
    "claim": lambda full: full.store.runs.claim(OWNER, "default", 10),
    "claim one": lambda full: full.store.runs.claim(OWNER, "default", 1, run_ids=[new_id(full.now)]),
    "to dispatch": lambda full: full.store.runs.to_dispatch("default", 10),
    "count of due runs": lambda full: full.store.runs.count_due("default", 1000),
    "due jobs": lambda full: full.store.jobs.due(full.now + timedelta(seconds=20), 50),
    "first page": lambda full: full.store.history.runs(),
    "page in the middle": lambda full: full.store.history.runs(before=middle(full)),
    "first page of a job": lambda full: full.store.history.runs(job_id="job-7"),
    "page of a job in the middle": lambda full: full.store.history.runs(job_id="job-7", before=full.of_job_7),
    "first page of failed": lambda full: full.store.history.runs(statuses=[FAILED]),
    "first page of skipped, of which there are none": lambda full: full.store.history.runs(
        statuses=[RunStatus.SKIPPED]
    ),
    "all that run": lambda full: full.store.history.runs(statuses=[RunStatus.RUNNING], limit=1000),
    "all that are open": lambda full: full.store.history.runs(
        statuses=[RunStatus.PENDING, RunStatus.RUNNING], limit=1000
    ),
    "all that are open for a team": lambda full: full.store.history.runs(
        statuses=[RunStatus.PENDING, RunStatus.RUNNING], limit=1000, seen=TEAM
    ),
    "what cannot be read": lambda full: full.store.history.unreadable(),
    "run": lambda full: full.store.history.run(middle(full)),
    "run for": lambda full: full.store.history.run_for("job-7", full.now),
    "last runs": lambda full: full.store.history.last_runs(["job-7", "job-999", "nobody"]),
    "cancel requests": lambda full: full.store.runs.cancel_requests(OWNER),
    "running of": lambda full: full.store.runs.running_of(OWNER),
    "take over": lambda full: full.store.maintenance.take_over(),
    "unaccepted runs": lambda full: full.store.maintenance.unaccepted_runs(
        full.now - timedelta(minutes=1), full.now, 1000
    ),
    "several unaccepted runs": lambda full: full.store.maintenance.jobs_with_several_unaccepted_runs(
        ["job-1", "job-7"], full.now
    ),
    "steps": lambda full: full.store.steps.of(middle(full)),
    "children": lambda full: full.store.steps.children(middle(full), key_prefix=GATHERED),
    "wake": lambda full: full.store.steps.wake("default"),
    "send an event": lambda full: full.store.steps.send(
        "default", Event(id="1", name="paid", key="7", sent_at=full.now)
    ),
    "event": lambda full: full.store.steps.event("default", Awaited("paid", "7", full.now)),
    "purge events": lambda full: full.store.steps.purge_events(full.now),
    "expire pending": lambda full: full.store.maintenance.expire_pending(),
    "taken": lambda full: full.store.runs.already_recorded(
        [run_of(full, scheduled_for=full.now) for _ in range(20)]
    ),
    "holder": locked(lambda page: page.holder("job-7")),
    "waiting": locked(lambda page: page.waiting("job-7")),
    "tick": locked(lambda page: page.run_for(page.now)),
    "key of a start": locked(lambda page: page.run_with_key("k")),
    "instants": locked(lambda page: page.instants(page.now - timedelta(minutes=9), page.now)),
    "newest instant": locked(lambda page: page.newest_instant()),
    "opened after": locked(lambda page: page.opened_after(page.now - timedelta(minutes=9))),
    "close pending": locked(lambda page: page.close_pending()),
    "hours to count": lambda full: full.store.statistics.unsettled(),
    "hours with runs": lambda full: full.store.statistics.hours_with_runs(0, 10_000_000),
    "first page of a team": lambda full: full.store.history.runs(seen=TEAM),
    "first page of a scope": lambda full: full.store.history.runs(seen=SCOPED),
    "page of a team in the middle": lambda full: full.store.history.runs(before=middle(full), seen=TEAM),
    "first page of a job for a team": lambda full: full.store.history.runs(job_id="job-7", seen=TEAM),
    "dead letters of a scope": lambda full: full.store.history.runs(dead=True, seen=SCOPED),
    "run for a team": lambda full: full.store.history.run(middle(full), seen=TEAM),
    "attempts for a team": lambda full: full.store.history.attempts(middle(full), seen=TEAM),
    "lines for a scope": lambda full: full.store.history.lines(middle(full), seen=SCOPED),
    "due instants": lambda full: full.store.history.due_instants(["job-7", "job-999", "nobody"]),
    "due instants for a scope": lambda full: full.store.history.due_instants(["job-7"], seen=SCOPED),
    "last runs for a scope": lambda full: full.store.history.last_runs(["job-7", "job-999"], seen=SCOPED),
    "search": lambda full: full.store.search.runs(RunFilter()),
    "search failed": lambda full: full.store.search.runs(RunFilter(statuses=[FAILED])),
    "search missed": lambda full: full.store.search.runs(RunFilter(statuses=[RunStatus.MISSED])),
    "search open": lambda full: full.store.search.runs(
        RunFilter(statuses=[RunStatus.PENDING, RunStatus.RUNNING])
    ),
    "search dead for a team": lambda full: full.store.search.runs(RunFilter(dead=True), seen=TEAM),
    "search a job": lambda full: full.store.search.runs(RunFilter(job="job-7")),
    "search a job for a scope": lambda full: full.store.search.runs(
        RunFilter(job="job-7", late=True), seen=SCOPED
    ),
    "search a range": lambda full: full.store.search.runs(
        RunFilter(since=full.now - timedelta(hours=9), until=full.now)
    ),
    "search a page in the middle": lambda full: full.store.search.runs(
        RunFilter(), before=Mark(full.now, middle(full))
    ),
    "count": lambda full: full.store.search.counts(RunFilter()),
    "count of a job": lambda full: full.store.search.counts(RunFilter(job="job-7")),
    "beside": lambda full: full.store.search.beside("job-7", full.now - timedelta(hours=3)),
    "dead letters by error": lambda full: full.store.search.dead_letters(RunFilter()),
    "totals": lambda full: full.store.statistics.totals(
        "default", 0, 10_000_000, job_ids=[f"job-{number}" for number in range(50)]
    ),
    "standings": lambda full: full.store.history.standings("default"),
    "standings of some": lambda full: full.store.history.standings("default", ids=["job-7", "job-8"]),
    "standings for a scope": lambda full: full.store.history.standings("default", seen=SCOPED),
    "key": lambda full: full.store.keys.with_digest("default", "digest"),
    "forget dead": lambda full: full.store.maintenance.forget_dead(full.first),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_index_leads_to_the_answer(full, question):
    full.costs.clear()
    with full.watching():
        QUESTIONS[question](full)

    assert full.costs
    cost, told = max(full.costs)
    assert cost < full.too_much, told


@pytest.mark.parametrize(
    "wanted",
    [RunFilter(requested_by="nobody"), RunFilter(text="no such text"), RunFilter(job="job-7", scope="no")],
    ids=["by", "text", "scope"],
)
def test_a_search_that_finds_nothing_takes_small_steps_and_few(full, wanted):
    """Fails if one statement reads more than a chunk, or the search more rows than it says."""
    full.costs.clear()
    with full.watching():
        found = full.store.search.runs(wanted)

    assert not found.runs
    cost, told = max(full.costs)
    if isinstance(full, WatchedSqlite):
        assert cost < 20 * full.too_much, told  # the steps of all statements together
    else:
        assert cost < full.too_much, told
        assert len(full.costs) < 50


PAGES_OF_THE_AUDIT: dict[str, dict[str, Any]] = {
    "all": {},
    "a job": {"job_id": "job-7"},
    "a target": {"target": "run", "target_id": "4711"},
    "an actor": {"by": "user-7"},
    "an actor since": {"by": "user-7", "since": datetime(1970, 1, 1, tzinfo=UTC)},
    "refused": {"outcome": "refused"},
    "of yore": {"until": datetime(1971, 1, 1, tzinfo=UTC), "before": "00000000-0000-7000-8000-000000000100"},
}
FILL_AUDIT = """
INSERT INTO {audit} (id, at, namespace, by, action, job_id, target, target_id, outcome)
SELECT {id}, {at}, 'default', 'user-' || (n - n / 50 * 50), 'trigger', 'job-' || (n - n / 1000 * 1000), 'run', cast(n AS text), 'done' FROM {numbers}"""


@pytest.fixture(scope="module")
def audited(full: Any) -> Any:
    """The same store with two hundred thousand entries of the audit."""
    with full.store.database.changing_tables() as connection:
        if full.store.schema.name:
            made = "('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid"
            parts = {
                "audit": "jobmanager.audit",
                "id": made,
                "at": "now()",
                "numbers": "generate_series(1, 200000) n",
            }
            connection.exec_driver_sql(FILL_AUDIT.format(**parts))
        else:
            made = "printf('00000000-0000-7000-8000-%012x', n)"
            parts = {"audit": "jobmanager_audit", "id": made, "at": "n", "numbers": "numbers"}
            numbers = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 200000) "
            connection.exec_driver_sql(FILL_AUDIT.format(**parts).replace("\nSELECT", f"\n{numbers}SELECT"))
    with full.store.database.reading() as connection:
        connection.exec_driver_sql("ANALYZE")
    return full


@pytest.mark.parametrize("seen", [None, TEAM, SCOPED], ids=["all", "team", "scope"])
@pytest.mark.parametrize("page", PAGES_OF_THE_AUDIT)
def test_a_page_of_the_audit_reads_little_more_than_it_shows(audited, page, seen):
    audited.costs.clear()
    with audited.watching():
        audited.store.audit.entries(
            AuditQuery(namespace="default", limit=50, **PAGES_OF_THE_AUDIT[page]), seen=seen
        )
    cost, told = max(audited.costs)
    assert cost < audited.too_much / 10, told  # of all entries it would be that and more
    assert not scans(told, "audit"), told


def test_a_purge_reads_what_it_deletes_and_an_hour_more(full):
    full.costs.clear()
    with full.watching():
        assert full.store.maintenance.purge(full.first + timedelta(minutes=5), job_id="job-3") == 5
        assert full.store.maintenance.purge(full.first + timedelta(minutes=2)) == 2 * JOBS - 2
        assert full.store.maintenance.purge(full.first, job_id="job-4", keep=700) == 298

    for cost, told in full.costs:
        assert cost < 60 * JOBS * 60, told  # a minute of the test's history is a thousand rows
        assert not scans(told, "runs"), told  # the tables beside it are empty here


def test_opening_and_ending_read_a_row_for_each_run(full):
    if not full.store.schema.name:
        full.costs.clear()
        with full.watching():
            runs = [run_of(full) for _ in range(100)]
            assert len(full.store.runs.write(runs, ()).opened) == 100
        assert full.costs[0][0] < full.too_much
        return
    from jobmanager.stores.sql import postgres_writes as writes

    runs = [run_of(full, owner=OWNER, attempt=1) for _ in range(100)]
    endings = [Ending(run=run, status=FAILED, started_at=full.now, finished_at=full.now) for run in runs]
    values = {
        "opens": writes.open_many(runs),
        "endings": writes.end_many(endings),
        "grace": timedelta(seconds=60),
    }
    full.costs.clear()
    with full.store.database.reading() as connection:
        full.explain(connection.connection.driver_connection, writes.OPEN_AND_END, values)
    assert full.costs[0][0] < full.too_much, full.costs[0][1]


@pytest.fixture
def limited(full: Any) -> Iterator[Any]:
    """The same store, where all jobs but one show a principal the runs of its scopes only: two hundred of a million."""
    jobs = full.store.database.tables.jobs
    projects = sa.update(jobs).where(jobs.c.id != "job-7")
    with full.store.database.writing() as connection:
        connection.execute(projects.values(visibility="project"))
    full.store.runs.write([run_of(full, concurrency_key="job-1/acme") for _ in range(200)], ())
    yield full
    with full.store.database.writing() as connection:
        connection.execute(projects.values(visibility="team"))


OF_A_SCOPE: dict[str, Callable[[Any], object]] = {
    "first page": lambda full: full.store.history.runs(seen=SCOPED),
    "page in the middle": lambda full: full.store.history.runs(before=middle(full), seen=SCOPED),
    "first page of a job": lambda full: full.store.history.runs(job_id="job-1", seen=SCOPED),
    "first page of a job without any": lambda full: full.store.history.runs(job_id="job-2", seen=SCOPED),
    "failed": lambda full: full.store.history.runs(statuses=[FAILED], seen=SCOPED),
    "dead letters": lambda full: full.store.history.runs(dead=True, seen=SCOPED),
    "open": lambda full: full.store.history.runs(
        statuses=[RunStatus.PENDING, RunStatus.RUNNING], seen=SCOPED
    ),
    "last runs": lambda full: full.store.history.last_runs(["job-1", "job-2", "job-7"], seen=SCOPED),
    "run for": lambda full: full.store.history.run_for("job-1", full.now, seen=SCOPED),
    "due instants": lambda full: full.store.history.due_instants(["job-1", "job-7"], seen=SCOPED),
    "metrics": lambda full: full.store.history.metrics(seen=SCOPED),
}


@pytest.mark.parametrize("question", OF_A_SCOPE)
def test_what_a_scope_sees_little_of_is_found_by_an_index(limited, question):
    limited.costs.clear()
    with limited.watching():
        found = OF_A_SCOPE[question](limited)

    assert found is not None or question == "run for"
    cost, told = max(limited.costs)
    assert cost < limited.too_much, told


def test_counting_an_hour_reads_the_runs_of_that_hour(full):
    hour = int(full.first.timestamp()) // 3600 + 3
    full.costs.clear()
    with full.watching():
        found = full.store.statistics.count(hour)
        assert full.store.statistics.hours_with_runs(hour, hour + 5) == [hour + more for more in range(5)]

    assert sum(cell.count for cell in found.cells) > 59 * JOBS  # a sixteenth of the table
    for cost, told in full.costs:
        assert cost < 60 * JOBS * 100, told
        assert not scans(told, "runs"), told
        assert "SCAN jobmanager_runs" not in told


def test_statistics_of_a_day_and_more_read_no_run_but_the_backlog(full):
    """A page over ten million runs costs what it costs over ten thousand."""
    full.store.statistics.recount([int(full.now.timestamp()) // 3600])
    for period in ("24h", "7d", "30d"):
        full.costs.clear()
        with full.watching():
            found = statistics_of(full.store, "default", None, period)
            statistics_of(full.store, "default", "job-7", period)
        assert found.backlog > 0
        for cost, told in full.costs:
            assert cost < full.too_much, told
            reads = re.findall(r"(?:FROM|JOIN) (?:jobmanager\.|jobmanager_)runs\b[^)]*", told)
            assert all("status = 'pending'" in read for read in reads), told


@pytest.fixture(scope="module")
def eventful(full: Any) -> Any:
    """The same store with 200,000 events, of which a hundred are to start jobs, and a run that waits for some of its 400 children."""
    tables = full.store.database.tables
    event = (
        "INSERT INTO {events} (namespace, id, name, key, sent_at, is_new) SELECT 'default', 'event-' || n,"
        " 'paid/' || (n - n / 50 * 50), 'key-' || (n / 100), {at}, n > 199900 FROM {numbers}"
    )
    with full.store.database.changing_tables() as connection:
        if full.store.schema.name:
            parts = {"events": "jobmanager.events", "at": "now()", "numbers": "generate_series(1, 200000) n"}
        else:
            at = f"{int(full.now.timestamp()) * 1_000_000} + n"
            parts = {"events": "jobmanager_events", "at": at, "numbers": "numbers"}
            event = event.replace(
                " SELECT",
                " WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 200000) SELECT",
            )
        connection.exec_driver_sql(event.format(**parts))
    full.parent = run_of(full, "job-9", reason="children")
    full.store.runs.write([full.parent], ())
    children = [
        run_of(
            full,
            "job-9",
            parent_id=full.parent.id,
            idempotency_key=f"{GATHERED}{full.parent.id}/all#0/{number}",
        )
        for number in range(400)
    ]
    below = [run_of(full, "job-9", parent_id=child.id) for child in children[:100]]
    full.store.runs.write([*children, *below], ())
    waits = {
        "run_id": full.parent.id, "name": "all", "occurrence": 0, "kind": "gather", "status": "waiting", "attempt": 1,
        "output": {"limit": 400}, "started_at": full.now,
    }  # fmt: skip
    with full.store.database.writing() as connection:
        jobs, runs = tables.jobs.c, tables.runs.c
        for number in range(50):
            starts = sa.update(tables.jobs).where(jobs.id == f"job-{number + 100}")
            connection.execute(starts.values(on=f"paid/{number}"))
        rests = sa.update(tables.runs).where(runs.id == full.parent.id)
        connection.execute(rests.values(reason="children", due_at=full.now + timedelta(days=9)))
        connection.execute(sa.insert(tables.run_steps), waits)
    with full.store.database.reading() as connection:
        connection.exec_driver_sql("ANALYZE")
    assert len(full.store.steps.new_events("default", [f"job-{number}" for number in range(200)], 500)) == 100
    return full


OF_FLOWS: dict[str, Callable[[Any], object]] = {
    "new events": lambda full: full.store.steps.new_events(
        "default", [f"job-{number}" for number in range(200)], 500
    ),
    "settle events": lambda full: full.store.steps.settle_events("default"),
    "wake": lambda full: full.store.steps.wake("default"),
    "send": lambda full: full.store.steps.send(
        "default", Event(id=new_id(full.now), name="paid/7", key="key-7", sent_at=full.now)
    ),
    "sent events": lambda full: full.store.events.sent("default", before="event-199000", limit=50),
    "sent events of a name": lambda full: full.store.events.sent("default", name="paid/7", limit=50),
    "waits": lambda full: full.store.events.waits("default", limit=50),
    "child keys": lambda full: full.store.steps.child_keys(full.parent.id, GATHERED),
    "cancel a tree": lambda full: full.store.runs.cancel(full.parent.id),
}


@pytest.mark.parametrize("question", OF_FLOWS)
def test_an_index_leads_to_events_and_to_what_runs_have_started(eventful, question):
    """Fails if one of them reads all runs, or all events."""
    eventful.costs.clear()
    with eventful.watching():
        OF_FLOWS[question](eventful)

    assert eventful.costs
    for cost, told in eventful.costs:
        assert not scans(told, "runs", "events"), told
        # PostgreSQL guesses from a sample how deep a tree is: a call of it costs it 25,000 to 35,000 units.
        assert cost < 2 * eventful.too_much, told
