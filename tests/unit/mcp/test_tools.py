"""The tools for agents: what they return, for whom they act, and what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from mcp import Client
from mcp.types import TextContent

from jobmanager import JobManager, RunContext, Settings
from jobmanager.access.principal import Principal
from jobmanager.errors import PermissionDeniedError
from jobmanager.mcp.server import server_of
from jobmanager.present.account import engine_record
from jobmanager.present.jobs import whole_job_record
from jobmanager.present.records import hide
from jobmanager.present.steps import whole_run_record
from jobmanager.testing import FakeClock

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
HUSH = "jm_" + "hush" * 10
READING = [
    "list_jobs",
    "get_job",
    "list_runs",
    "get_run",
    "explain_job",
    "get_stats",
    "check_health",
]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture
def jobs(clock: FakeClock) -> Iterator[JobManager]:
    """A manager whose starts by hand run inline, with a job that fails, one with steps, and one for administrators."""
    settings = Settings(database_url="memory://", backend="noop", mcp_key=HUSH)
    jobs = JobManager(settings, clock=clock)

    @jobs.job("nightly", cron="0 3 * * *", config={"days": 3, "api_token": "s3cret"})
    def nightly(context: RunContext, days: int, api_token: str = "", note: str = "") -> dict[str, int]:
        context.log.info("older than %d days", days)
        return {"days": context.step("count", lambda: days)}

    @jobs.job("fails")
    def fails() -> None:
        raise ValueError("it broke")

    jobs.add_job("hidden", print, visibility="system")
    jobs.add_job("campaign", print, every=60, until="2026-03-01T00:00Z")
    hide(settings.secret_values())
    with jobs:
        yield jobs
    hide([])


class Agent:
    """The client of the package on a server in this process."""

    def __init__(self, jobs: JobManager, principal: Principal, *, allow_start: bool = False) -> None:
        self.principal = principal
        self.server = server_of(jobs, lambda: self.principal, allow_start=allow_start)

    def tools(self) -> list[Any]:
        async def listed() -> list[Any]:
            async with Client(self.server) as client:
                return list((await client.list_tools()).tools)

        return asyncio.run(listed())

    def says(self, name: str, **arguments: Any) -> Any:
        """The whole result of a call."""

        async def called() -> Any:
            async with Client(self.server) as client:
                return await client.call_tool(name, arguments)

        return asyncio.run(called())

    def __call__(self, name: str, **arguments: Any) -> dict[str, Any]:
        """The document that a call returns; it is in the text, too, for clients that read texts alone."""
        result = self.says(name, **arguments)
        assert not result.is_error, result
        (text,) = result.content
        assert json.loads(text.text) == result.structured_content
        return dict(result.structured_content)

    def refused(self, name: str, **arguments: Any) -> str:
        result = self.says(name, **arguments)
        assert result.is_error
        (text,) = result.content
        assert isinstance(text, TextContent)
        return text.text


def agent(jobs: JobManager, role: str = "viewer", *, allow_start: bool = False) -> Agent:
    return Agent(jobs, Principal("mcp:ana", [role]), allow_start=allow_start)


def test_an_agent_reads_and_nothing_else(jobs: JobManager) -> None:
    """Fails if a tool that changes something is there without being asked for."""
    assert [tool.name for tool in agent(jobs).tools()] == READING
    assert all(tool.annotations.read_only_hint for tool in agent(jobs, "admin").tools())
    assert "start_job" in agent(jobs, "admin").refused("start_job", job_id="nightly")
    assert jobs.runs() == []


def test_a_start_is_offered_where_it_is_allowed_and_permitted(jobs: JobManager) -> None:
    assert [tool.name for tool in agent(jobs, "operator", allow_start=True).tools()] == [
        *READING,
        "start_job",
    ]
    with pytest.raises(PermissionDeniedError, match="Leave --allow-start out"):
        agent(jobs, "viewer", allow_start=True)


def test_jobs_are_listed_by_pages_and_filters(jobs: JobManager) -> None:
    ask = agent(jobs)
    first = ask("list_jobs", limit=2)
    assert ([job["id"] for job in first["items"]], first["next"]) == (["campaign", "fails"], "fails")
    assert first["items"][0]["ended"]
    rest = ask("list_jobs", cursor=first["next"])
    assert ([job["id"] for job in rest["items"]], rest["next"]) == (["nightly"], None)
    assert "hidden" in {job["id"] for job in agent(jobs, "admin")("list_jobs")["items"]}
    jobs.trigger_job("fails")
    assert [job["id"] for job in ask("list_jobs", health="failed")["items"]] == ["fails"]
    assert [job["id"] for job in ask("list_jobs", text="NIGHT", state="active")["items"]] == ["nightly"]


def test_the_documents_are_those_of_the_command_line_without_secrets(jobs: JobManager) -> None:
    """Fails if an agent reads a secret of a config, a payload or a setting."""
    ask = agent(jobs)
    run = jobs.trigger_job("nightly", {"days": 2, "api_token": "s3cret-too", "note": HUSH})

    job = ask("get_job", job_id="nightly")
    assert job == whole_job_record(jobs, jobs.get_job("nightly"))
    assert (job["config"], list(job["arguments"]["properties"])) == (
        {"days": 3, "api_token": "[redacted]"},
        ["days", "api_token", "note"],
    )
    found = ask("get_run", run_id=run.id[-8:])
    assert found == {**whole_run_record(jobs, run), "lines_left_out": 0}
    assert found["payload"] == {"days": 2, "api_token": "[redacted]", "note": "[redacted]"}
    assert [line["text"] for line in found["lines"]] == ["older than 2 days"]
    assert [(step["name"], step["output"]) for step in found["steps"]] == [("count", 2)]
    assert [each["id"] for each in ask("list_runs", job_id="nightly")["items"]] == [run.id]
    for name, given in (
        ("get_run", {"run_id": run.id}),
        ("get_job", {"job_id": "nightly"}),
        ("list_runs", {}),
    ):
        told = json.dumps(ask(name, **given))
        assert "s3cret" not in told
        assert HUSH not in told


def test_runs_are_searched(jobs: JobManager, clock: FakeClock) -> None:
    ask = agent(jobs)
    broken = jobs.trigger_job("fails")
    clock.advance(minutes=5)
    jobs.trigger_job("nightly")
    assert [run["id"] for run in ask("list_runs", status=["failed"], text="broke")["items"]] == [broken.id]
    assert [run["id"] for run in ask("list_runs", dead=True)["items"]] == [broken.id]
    late = (NOON + timedelta(minutes=4)).isoformat()
    assert [run["job"] for run in ask("list_runs", since=late)["items"]] == ["nightly"]
    assert [run["job"] for run in ask("list_runs", until=late)["items"]] == ["fails"]
    page = ask("list_runs", limit=1)
    assert [run["id"] for run in ask("list_runs", cursor=page["next"])["items"]] == [broken.id]


def test_why_statistics_and_health_are_told(jobs: JobManager) -> None:
    ask = agent(jobs)
    jobs.trigger_job("fails")
    assert ask("check_health") == engine_record(jobs)
    assert ask("get_stats", job_id="fails", period="1h")["counts"] == {"failed": 1}
    [last, coming] = ask("explain_job", job_id="nightly")["explanations"]
    assert (last["at"], coming["cause"]) == ("2026-03-02T03:00:00Z", "nobody_keeps_time")
    [then] = ask("explain_job", job_id="nightly", at="2026-03-02T04:00:00+01:00")["explanations"]
    assert then == last
    assert "findings" in agent(jobs, "admin")("run_doctor")
    assert "run_doctor" not in [tool.name for tool in agent(jobs, "operator").tools()]


def test_a_start_is_audited_under_the_name_of_the_principal(jobs: JobManager) -> None:
    """Fails if a start by an agent cannot be told from others."""
    start = agent(jobs, "operator", allow_start=True)
    run = start("start_job", job_id="nightly", payload={"days": 9}, key="monday")
    assert (run["requested_by"], run["payload"], run["status"]) == ("mcp:ana", {"days": 9}, "succeeded")
    assert start("start_job", job_id="nightly", key="monday")["id"] == run["id"]
    entry = jobs.audit()[-1]
    assert (entry.by, entry.action, entry.job_id, entry.user_agent) == (
        "mcp:ana",
        "trigger",
        "nightly",
        "jobmanager mcp",
    )


def test_a_permission_that_is_taken_away_counts_at_the_next_call(jobs: JobManager) -> None:
    """Fails if the permissions of the beginning hold for good."""
    start = agent(jobs, "operator", allow_start=True)
    start.principal = Principal("mcp:ana", ["viewer"])
    said = start.refused("start_job", job_id="nightly")
    assert "trigger: 'mcp:ana' needs jobs:write and has jobs:read." in said
    assert jobs.runs() == []
    assert [(entry.by, entry.outcome) for entry in jobs.audit()] == [("mcp:ana", "refused")]


def test_starts_are_limited_to_five_a_minute(jobs: JobManager) -> None:
    """Fails if an agent in a loop fills the queue."""
    start = agent(jobs, "operator", allow_start=True)
    for _ in range(5):
        start("start_job", job_id="nightly")
    assert "An agent may start 5 runs a minute." in start.refused("start_job", job_id="nightly")
    assert len(jobs.runs()) == 5


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("get_job", {"job_id": "hidden"}, "No such job: No job 'hidden' is declared or stored."),
        ("get_run", {"run_id": "nope"}, "No such run: "),
        ("explain_job", {"job_id": "nope"}, "The list of jobs shows the ids."),
        ("list_runs", {"since": "2026-03-02T12:00:00"}, "since"),
        ("list_runs", {"status": ["lost"]}, "status"),
        ("list_runs", {"cursor": "nope"}, "is no cursor"),
        ("list_jobs", {"limit": 0}, "limit"),
    ],
)
def test_what_cannot_be_meant_is_told_in_words(
    jobs: JobManager, name: str, given: dict[str, Any], told: str
) -> None:
    assert told in agent(jobs).refused(name, **given)


def test_what_breaks_unexpectedly_shows_nothing_of_it(
    jobs: JobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*arguments: object) -> None:
        raise OSError("/etc/shadow")

    monkeypatch.setattr("jobmanager.mcp.tools.engine_record", breaks)
    assert "shadow" not in agent(jobs).refused("check_health")


def test_of_a_long_log_the_newest_lines_are_shown(jobs: JobManager) -> None:
    def chatters(context: RunContext) -> None:
        for number in range(300):
            context.log.info("line %d", number)

    jobs.add_job("chatters", chatters)
    jobs.sync()
    run = jobs.trigger_job("chatters")
    found = agent(jobs)("get_run", run_id=run.id)
    assert (len(found["lines"]), found["lines"][-1]["text"], found["lines_left_out"]) == (
        200,
        "line 299",
        100,
    )
