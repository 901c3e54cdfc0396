"""Server-sent events of a real server: changes as they come, resumed after a break, and no listener that holds up others."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.api import Api, declare, problem
from tests.serving import WAIT, served

from jobmanager import JobManager, Settings
from jobmanager.web.api import events as streaming


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobManager]:
    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", backend="noop"))
    declare(jobs)
    yield jobs
    jobs.stop()
    jobs.store.close()


@pytest.fixture
def address(jobs: JobManager) -> Iterator[str]:
    with served(Api(jobs).app) as url:
        yield f"{url}/api/v1/events"


class Event(dict[str, Any]):
    """One event: its `name`, `id`, and what its data says."""


@contextmanager
def listening(address: str, *, by: str = "admin", **headers: str) -> Iterator[Iterator[Event]]:
    """Open a stream, and yield its events; those of an open stream are taken one by one."""
    named = {"x-test-principal": by, **{name.replace("_", "-"): value for name, value in headers.items()}}
    with httpx.Client(timeout=WAIT) as client, client.stream("GET", address, headers=named) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield events_of(response.iter_lines())


def events_of(lines: Iterator[str]) -> Iterator[Event]:
    told: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line and name:
            told[name] = value
        elif "data" in told:
            yield Event(name=told["event"], id=told["id"], **json.loads(told["data"]))
            told = {}


def next_of(events: Iterator[Event], run_id: str, status: str) -> Event:
    """Take events up to this state of this run."""
    return next(event for event in events if (event.get("run_id"), event.get("status")) == (run_id, status))


def test_runs_and_jobs_are_told_as_they_change(jobs: JobManager, address: str) -> None:
    with listening(address) as events:
        hello = next(events)
        assert hello["name"] == "hello"
        run = jobs.trigger_job("greet")
        told = next_of(events, run.id, "succeeded")
        assert (told["name"], told["kind"], told["job_id"]) == ("run", "run", "greet")
        jobs.stop_job("greet")
        paused = next(event for event in events if event["name"] == "job")
        assert (paused["job_id"], paused["run_id"], paused["status"]) == ("greet", None, "paused")


def test_a_stream_goes_on_where_the_last_one_broke(jobs: JobManager, address: str) -> None:
    """Fails if what changes between two streams is lost, also before the first event."""
    with listening(address) as events:
        last = next(events)["id"]
    between = jobs.trigger_job("greet")
    with listening(address, last_event_id=last) as events:
        last = next_of(events, between.id, "succeeded")["id"]
    later = jobs.trigger_job("bad")
    with listening(address, last_event_id=last) as events:
        next_of(events, later.id, "failed")
    with listening(f"{address}?after={last}") as events:
        next_of(events, later.id, "failed")


def test_one_run_is_told_from_its_present_state_on(jobs: JobManager, address: str) -> None:
    run = jobs.trigger_job("greet")
    with listening(f"{address}?run={run.id}") as events:
        next_of(events, run.id, "succeeded")
    with listening(f"{address}?job=bad") as events:
        next(events)
        jobs.trigger_job("greet")
        bad = jobs.trigger_job("bad")
        assert next(events)["run_id"] == bad.id


def test_a_principal_hears_of_what_it_sees(jobs: JobManager, address: str) -> None:
    with listening(address, by="viewer") as events:
        next(events)
        hidden = jobs.trigger_job("hidden")
        seen = jobs.trigger_job("greet")
        heard = next(events)
        assert hidden.id not in (heard["run_id"], seen.id)
        assert heard["run_id"] == seen.id


def test_a_heartbeat_comes_while_nothing_changes(
    jobs: JobManager, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "HEARTBEAT", 0.05)
    with (
        httpx.Client(timeout=WAIT, headers={"x-test-principal": "viewer"}) as client,
        client.stream("GET", address) as response,
    ):
        assert ": still here" in (line for line in response.iter_lines() if line)


def test_a_stream_ends_after_a_while_so_that_its_listener_is_asked_again(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "LONGEST", 0.05)
    with listening(address) as events:
        assert [event["name"] for event in events] == ["hello"]


def test_a_client_that_reads_nothing_is_dropped(
    jobs: JobManager, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if a stalled client keeps its stream, or what it does not take, for ever."""
    monkeypatch.setattr(streaming, "SLOWEST", 0.2)
    monkeypatch.setattr(streaming, "encoded", lambda _change: b": " + b"x" * 500_000 + b"\n\n")
    host, port = address.removeprefix("http://").partition("/")[0].split(":")
    request = b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nX-Test-Principal: viewer\r\n\r\n"
    with socket.create_connection((host, int(port))) as stalled, jobs.events() as other:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.sendall(request)
        assert stalled.recv(16).startswith(b"HTTP/1.1 200")
        listeners = jobs._assembly.feed._listeners
        eventually(lambda: len(listeners) == 2)
        eventually(lambda: jobs.trigger_job("greet") and len(listeners) == 1)
        last = jobs.trigger_job("greet")
        while (change := other.take(WAIT)) is not None and change.id != last.id:
            pass
        assert change is not None


def eventually(condition: Callable[[], object]) -> None:
    until = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_cursor_of_nothing_is_refused(jobs: JobManager) -> None:
    api = Api(jobs)
    assert problem(api("GET", "/events?after=nowhere")) == (422, "payload")
    assert problem(api("GET", "/events", headers={"last-event-id": "nowhere"})) == (422, "payload")
    assert problem(api("GET", "/events?run=nope")) == (404, "run-not-found")


def test_no_more_than_so_many_streams_are_served(jobs: JobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "MOST_STREAMS", 0)
    refused = Api(jobs)("GET", "/events")
    assert problem(refused) == (503, "too-many-streams")
    assert refused.headers["retry-after"] == "5"
