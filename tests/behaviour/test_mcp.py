"""`jobmanager mcp`, as a client of the Model Context Protocol starts it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters, stdio_client

from jobmanager import JobManager, Settings
from jobmanager.cli import main

APPLICATION = """
from jobmanager import JobManager, RunContext

print("a greeting of the application")
jobs = JobManager()

@jobs.job("greet", cron="0 3 * * *")
def greet(context: RunContext, name: str = "world") -> str:
    print("not a message of the protocol")
    context.log.info("hello %s", name)
    return name
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobManager]:
    """The store of an application that has run before, seen from another process."""
    (tmp_path / "app.py").write_text(APPLICATION)
    settings = Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", backend="noop")
    jobs = JobManager(settings)
    jobs.add_job("greet", print, cron="0 3 * * *")
    jobs.sync()
    yield jobs
    jobs.store.close()


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "USER": "ana",
        "LOGNAME": "ana",
        "JOBMANAGER_DATABASE_URL": f"sqlite:///{folder}/jobs.db",
        "JOBMANAGER_BACKEND": "noop",
        **more,
    }


async def test_an_agent_finds_a_job_starts_it_and_reads_what_became_of_it(
    store: JobManager, tmp_path: Path
) -> None:
    """Fails if what an application prints breaks the protocol, or a start has no author."""
    command = ["-m", "jobmanager", "--app", "app:jobs", "mcp", "--allow-start"]
    parameters = StdioServerParameters(
        command=sys.executable, args=command, cwd=tmp_path, env=environment(tmp_path)
    )

    async with Client(stdio_client(parameters)) as client:

        async def ask(name: str, **arguments: Any) -> Any:
            result = await client.call_tool(name, arguments)
            assert not result.is_error, result
            return result.structured_content

        assert "start_job" in [tool.name for tool in (await client.list_tools()).tools]
        [job] = (await ask("list_jobs"))["items"]
        assert (job["id"], job["health"]) == ("greet", "never")
        started = await ask("start_job", job_id="greet", payload={"name": "Ben"})
        run = await ask("get_run", run_id=started["id"])
        assert (run["status"], run["output"], run["requested_by"]) == ("succeeded", "Ben", "mcp:ana")
        assert [line["text"] for line in run["lines"]] == ["hello Ben"]

    assert [(entry.by, entry.action) for entry in store.audit()] == [("mcp:ana", "trigger")]


@pytest.fixture
def called(
    store: JobManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Any]:
    """Call the verb in this process, where it is refused before it serves."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)

    def call(*words: str) -> str:
        sys.modules.pop("app", None)
        assert main(["--app", "app:jobs", "mcp", *words]) != 0
        said = capsys.readouterr()
        assert said.out == ""
        return said.err

    yield call
    sys.modules.pop("app", None)


def test_a_key_that_may_not_start_is_refused_the_tool(
    store: JobManager, called: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBMANAGER_MCP_KEY", store.create_key("agent", permissions=["jobs:read"]))
    assert "'key:agent' may not start a run: it has no jobs:write" in called("--allow-start")
    assert "--role and JOBMANAGER_MCP_KEY are both given" in called("--role", "admin")


def test_a_key_that_is_revoked_is_refused(
    store: JobManager, called: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBMANAGER_MCP_KEY", store.create_key("agent"))
    store.revoke_key("agent")
    assert "JOBMANAGER_MCP_KEY is no key of this store" in called()


def test_what_is_not_installed_is_named(called: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "jobmanager.mcp.server", raising=False)
    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)
    assert "pip install 'jobmanager-backends[mcp]'" in called()
