"""`POST /jobs/work` executes what is pending where no process lives between calls, and `POST /jobs/run` starts a run by hand."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.calls import SECRET

from jobmanager import JobManager, Retry, RunContext, RunStatus, Settings
from jobmanager.web import asgi, wsgi

pytestmark = pytest.mark.slow

Said = tuple[int, dict[str, Any]]


class Site:
    """An application on a host that sleeps, reached as ASGI or as WSGI; `first` lets the first attempt of each run fail."""

    def __init__(self, url: str, kind: str, **settings: Any) -> None:
        self.jobs = JobManager(
            Settings(
                **{"database_url": url, "backend": "external", "secret": SECRET, "wait": True, **settings}
            )
        )
        self.order: list[str] = []
        self.jobs.add_job("mail", self._mail, overlap="allow", retry=Retry(max_attempts=2, base=60))
        self.jobs.add_job("coroutine", self._coroutine, overlap="allow")
        self._kind = kind

    def _mail(self, context: RunContext, to: str, fails: bool = False) -> None:
        self.order.append(to)
        if fails:
            raise OSError("no")

    async def _coroutine(self) -> None:
        await asyncio.sleep(0.01)
        self.order.append("coroutine")

    def post(
        self,
        query: str = "",
        *,
        token: str = SECRET,
        method: str = "POST",
        path: str = "work",
        body: bytes = b"",
    ) -> Said:
        if self._kind == "asgi":
            return asyncio.run(self._post_asgi(query, token, method, f"/jobs/{path}", body))
        heard: list[str] = []
        environ = {
            "REQUEST_METHOD": method, "PATH_INFO": f"/jobs/{path}", "QUERY_STRING": query, "SCRIPT_NAME": "", "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body), "CONTENT_TYPE": "application/json", "REMOTE_ADDR": "127.0.0.1", "HTTP_AUTHORIZATION": f"Bearer {token}",
        }  # fmt: skip
        body = b"".join(wsgi(self.jobs)(environ, lambda status, _headers: heard.append(status)))
        return int(heard[0][:3]), json.loads(body)

    async def _post_asgi(self, query: str, token: str, method: str, path: str, body: bytes) -> Said:
        sent: list[Any] = []
        scope = {
            "type": "http", "method": method, "path": path, "query_string": query.encode(), "client": ("127.0.0.1", 1),
            "headers": [(b"authorization", f"Bearer {token}".encode()), (b"content-type", b"application/json")],
        }  # fmt: skip

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            sent.append(message)

        await asgi(self.jobs)(scope, receive, send)
        return sent[0]["status"], json.loads(sent[1]["body"])

    def start(self, job_id: str, *, token: str = SECRET, **words: Any) -> Said:
        return self.post(path="run", token=token, body=json.dumps({"job_id": job_id, **words}).encode())

    def close(self) -> None:
        self.jobs.stop()
        self.jobs.store.close()


@pytest.fixture(params=["asgi", "wsgi"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    made = Site(f"sqlite:///{tmp_path}/jobs.db", request.param)
    yield made
    made.close()


def test_a_call_executes_so_many_by_priority_then_age_and_says_what_is_left(site: Site) -> None:
    """Fails if a call takes what is not due, if it takes more than it was told, or if a failure fails the call."""
    for name, more in (
        ("old", {}), ("late", {"delay": 3600}), ("urgent", {"priority": 5}), ("bad", {"priority": 1}), ("new", {}),
    ):  # fmt: skip
        site.jobs.trigger_job("mail", {"to": name, "fails": name == "bad"}, **more)  # type: ignore[arg-type]
    assert not site.order
    assert site.post("limit=3") == (200, {"processed": 2, "failed": 1, "left": 1})
    assert site.order == ["urgent", "bad", "old"]
    assert site.post() == (200, {"processed": 1, "failed": 0, "left": 0})
    assert site.post() == (200, {"processed": 0, "failed": 0, "left": 0})
    assert [run.status for run in site.jobs.runs(status="pending")] == [
        RunStatus.PENDING
    ] * 2  # the retry, and the delayed one


def test_a_coroutine_has_ended_when_the_call_returns(site: Site) -> None:
    site.jobs.trigger_job("coroutine")
    assert site.post() == (200, {"processed": 1, "failed": 0, "left": 0})
    assert site.order == ["coroutine"]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=x",
        "limit=1&limit=2",
        "limti=1",
        "limit=",
        "limit=9" + "9" * 99,
    ],
)
def test_a_query_that_cannot_be_meant_is_refused(site: Site, query: str) -> None:
    status, said = site.post(query)
    assert status == 400
    assert "limit" in said["error"]


def test_only_a_post_with_the_secret_does_work(site: Site) -> None:
    site.jobs.trigger_job("mail", {"to": "x"})
    assert site.post(token="wrong")[0] == 401
    assert site.post(method="GET")[0] == 405
    assert not site.order


def test_a_call_begins_nothing_after_its_time(tmp_path: Path) -> None:
    site = Site(f"sqlite:///{tmp_path}/jobs.db", "wsgi", wait_seconds=0)
    site.jobs.trigger_job("mail", {"to": "x"})
    assert site.post() == (200, {"processed": 0, "failed": 0, "left": 1})
    site.close()


def test_a_process_that_lives_all_the_time_takes_the_call_too(tmp_path: Path) -> None:
    """Fails if a call and the process's own claims take the same run."""
    site = Site(f"sqlite:///{tmp_path}/jobs.db", "wsgi", wait=False, workers=1)
    gate = threading.Event()
    site.jobs.add_job("gate", gate.wait, overlap="allow")
    site.jobs.start()
    site.jobs.trigger_job("gate")
    for number in range(4):
        site.jobs.trigger_job("mail", {"to": str(number)})
    status, said = site.post("limit=2")  # what the process has taken ahead of its worker is not the call's
    assert (status, said["failed"]) == (200, 0)
    assert said["processed"] <= 2
    gate.set()
    for run in site.jobs.runs("mail"):
        assert site.jobs.wait(run.id).status is RunStatus.SUCCEEDED
    assert sorted(site.order) == ["0", "1", "2", "3"]
    site.close()


def test_two_calls_at_once_share_the_work(tmp_path: Path) -> None:
    sites = [Site(f"sqlite:///{tmp_path}/jobs.db", "wsgi") for _ in range(2)]
    for number in range(10):
        sites[0].jobs.trigger_job("mail", {"to": str(number)})
    said: list[Said] = []
    threads = [
        threading.Thread(target=lambda site=site: said.append(site.post("limit=10"))) for site in sites
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counted["processed"] for _, counted in said) == 10
    assert sorted(sites[0].order + sites[1].order) == [str(number) for number in range(10)]
    for site in sites:
        site.close()


def test_where_nothing_is_to_run_or_others_execute_the_call_says_so(tmp_path: Path) -> None:
    for settings, status in (({"disabled": True}, 503), ({"backend": "noop"}, 503)):
        jobs = JobManager(
            Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", secret=SECRET, wait=True, **settings)
        )  # type: ignore[arg-type]
        site = Site(f"sqlite:///{tmp_path}/jobs.db", "wsgi")
        site.jobs = jobs
        assert site.post()[0] == status
        site.close()


# ---------------------------------------------------------------- starts by hand


@pytest.mark.parametrize("auth", ["signature", "bearer"])
@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_a_service_starts_a_run_with_the_secret_and_all_its_words(
    tmp_path: Path, kind: str, auth: str
) -> None:
    """Fails if a word is lost on the way, or if the caller is asked for a signature."""
    site = Site(f"sqlite:///{tmp_path}/jobs.db", kind, wait=False, auth=auth)
    status, said = site.start(
        "mail",
        triggered_by="shop",
        payload={"to": "x"},
        priority=4,
        delay=3600,
        max_attempts=5,
        key="k",
        scope="eu",
    )
    assert (status, said["job"], said["status"]) == (202, "mail", "pending")
    run = site.jobs.run(said["run_id"])
    assert (run.requested_by, run.payload, run.priority, run.max_attempts) == ("shop", {"to": "x"}, 4, 5)
    assert (run.idempotency_key, run.scope) == ("k", "eu")
    assert timedelta(minutes=59) < run.due_at - run.opened_at < timedelta(minutes=61)
    assert site.start("mail", payload={"to": "x"}, key="k")[1]["run_id"] == run.id
    assert site.start("mail", token="wrong", payload={"to": "x"})[0] == 401
    site.close()


def test_where_the_call_waits_it_says_how_the_run_ended(site: Site) -> None:
    status, said = site.start("mail", payload={"to": "x"})
    assert (status, said["outcomes"], site.order) == (200, {"succeeded": 1}, ["x"])


def test_a_job_may_be_named(site: Site) -> None:
    site.jobs.add_job("by-title", lambda: None, name="Send the letters")
    assert site.start("Send the letters")[1]["job"] == "by-title"


def test_a_start_that_is_refused_says_why_and_by_what(site: Site) -> None:
    site.jobs.add_job("alone", lambda: None)
    site.jobs.add_job("off", lambda: None)
    site.jobs.disable_job("off")
    held = site.jobs.trigger_job("alone").id
    assert site.start("alone") == (409, {"error": site.start("alone")[1]["error"], "run_id": held})
    assert site.start("nobody") == (404, {"error": "no such job", "job": "nobody"})
    assert site.start("off")[0] == 403
    for words, says in (
        ({"payload": {"too": "x"}}, "too"), ({"payload": [1]}, "payload"), ({"priority": "high"}, "priority='high'"), ({"delay": "soon"}, "delay='soon'"),
        ({"max_attempts": 0}, "max_attempts=0"), ({"job": "x"}, "a start has the keys"), ({"key": "k" * 501}, "key="),
    ):  # fmt: skip
        status, said = site.start("mail", **words)  # type: ignore[arg-type]
        assert (status, says in said["error"]) == (400, True), said
        assert "(at " not in said["error"]
    assert site.post(path="run", body=b'{"v": 1, "call": 1, "kind": "sweep"}')[0] == 401, (
        "that has to be signed"
    )
    assert site.post(path="run", body=b'{"job_id": 1}')[0] == 400


@pytest.mark.parametrize("settings", [{"disabled": True}, {"backend": "noop"}])
def test_where_nothing_is_to_run_a_start_says_so(tmp_path: Path, settings: dict[str, Any]) -> None:
    site = Site(f"sqlite:///{tmp_path}/jobs.db", "wsgi", wait=False, **settings)
    status, said = site.start("mail", payload={"to": "x"})
    assert (status, said["finding"]) == (503, "disabled" if "disabled" in settings else "no_time_kept")
    assert not site.order
    site.close()
