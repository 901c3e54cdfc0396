"""Calls to the endpoint, as the database and others make them, over ASGI and WSGI; and a manager that remembers what it was asked."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote
from wsgiref.validate import validator

from standardwebhooks import Webhook

from jobmanager import Settings
from jobmanager.errors import JobNotFoundError, RunNotFoundError
from jobmanager.run import Accepted, RunStatus, Ticked, TickedJobs, Worked

SECRET = "whsec_" + base64.b64encode(bytes(range(7, 39))).decode()
OTHER_SECRET = "correct-horse-battery-staple-0123456789-XYZ"

RUNS = [f"0190c1d2-0000-7000-8000-{number:012x}" for number in range(2000)]


DUE = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


@dataclass
class Replied:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        return json.loads(self.body)


@dataclass
class Host:
    """A ledger that knows `known`, accepts what it is told, and raises each of `troubles` once, in their order."""

    known: set[str]
    jobs: Sequence[str] = ("report",)
    troubles: list[Exception] = field(default_factory=list)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    before_accept: Callable[[], object] = lambda: None
    ran: set[str] = field(default_factory=set)
    early: list[Ticked] = field(default_factory=list)

    def _note(self, verb: str, what: Any = None) -> None:
        self.asked.append((verb, what))
        if self.troubles:
            raise self.troubles.pop(0)

    def accept(self, run_ids: Sequence[str]) -> Accepted:
        self.before_accept()
        self._note("accept", list(run_ids))
        known = frozenset(self.known.intersection(run_ids))
        return Accepted(known, known)

    def execute(self, run_ids: Sequence[str]) -> None:
        self._note("execute", list(run_ids))
        self.ran.update(run_ids)

    def tick(self, job_id: str, *, scheduled_for: datetime | None = None) -> Ticked:
        self._note("tick", job_id if scheduled_for is None else (job_id, scheduled_for))
        if job_id not in self.jobs:
            raise JobNotFoundError(f"no job {job_id}", job_id=job_id)
        return self.early.pop(0) if self.early else Ticked("opened", RUNS[0], DUE)

    def tick_all(self, *, waited_for: datetime | None = None) -> TickedJobs:
        self._note("tick_all", waited_for)
        if self.early:
            early = self.early.pop(0)
            return TickedJobs({}, early.due_in, early.scheduled_for, early.may_be_held)
        return TickedJobs({job: Ticked("opened", RUNS[0], DUE, (RUNS[0],)) for job in self.jobs})

    def check_switch(self) -> None:
        if self.troubles:
            raise self.troubles.pop(0)

    def work(self, limit: int) -> Worked:
        self._note("work", limit)
        return Worked(processed=limit, failed=0, left=0)

    def plan(self) -> None:
        self._note("plan")

    def sweep(self) -> None:
        self._note("sweep")

    def verbs(self) -> list[str]:
        return [verb for verb, _ in self.asked]


class Jobs:
    """A manager in front of that host."""

    def __init__(self, *, known: Iterable[str] = RUNS, **settings: Any) -> None:
        self.settings = Settings(**{"secret": SECRET, **settings})
        self.host = Host(set(known))
        self.started = False
        self.starts = 0
        self.trouble: Exception | None = None
        self.report = SimpleNamespace(ok=True, ready=True, symptoms=())
        self.asked_for_health = 0

    def health(self) -> Any:
        self.asked_for_health += 1
        return self.report

    def start(self) -> None:
        self.starts += 1
        if self.trouble is not None:
            raise self.trouble
        self.started = True

    def stop(self) -> None:
        self.started = False

    def trigger_job(self, job_id: str, **words: Any) -> Any:
        self.host._note("trigger", (job_id, words))
        return SimpleNamespace(id=RUNS[0], job_id=job_id, status=RunStatus.PENDING)

    def get_all_job_statuses(self) -> list[Any]:
        return []

    def run(self, run_id: str) -> Any:
        if run_id not in self.host.known:
            raise RunNotFoundError("purged", run_id=run_id)
        return SimpleNamespace(status=RunStatus.SUCCEEDED if run_id in self.host.ran else RunStatus.PENDING)

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        self.start()
        yield
        self.stop()


def body_of(call: int = 17, runs: Any = RUNS[:2], kind: str = "ticks", **more: Any) -> bytes:
    """A call as PostgreSQL prints a jsonb: keys by length, a blank after each colon and comma."""
    return json.dumps({"v": 1, "call": call, "kind": kind, "runs": runs, **more}).encode()


def signed(
    body: bytes, secret: str = SECRET, *, call_id: str = "call_17", at: float | None = None
) -> dict[str, str]:
    """The headers of a call signed by PyPI's standardwebhooks."""
    moment = datetime.fromtimestamp(int(time.time() if at is None else at), UTC)
    hook = Webhook(secret if secret.startswith("whsec_") else secret.encode())
    return {
        "content-type": "application/json",
        "webhook-id": call_id,
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": hook.sign(call_id, moment, body.decode("utf-8", "surrogateescape"))
        if _is_text(body)
        else sign_bytes(secret, call_id, int(moment.timestamp()), body),
    }


def sign_bytes(secret: str, call_id: str, at: int, body: bytes) -> str:
    """A signature over bytes that are no text, which standardwebhooks refuses to sign."""
    import hashlib
    import hmac

    key = base64.b64decode(secret.removeprefix("whsec_")) if secret.startswith("whsec_") else secret.encode()
    digest = hmac.new(key, f"{call_id}.{at}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def bearer(token: str = SECRET) -> dict[str, str]:
    return {"content-type": "application/json", "authorization": f"Bearer {token}"}


Headers = dict[str, str] | Sequence[tuple[str, str]]


def _pairs(headers: Headers) -> list[tuple[bytes, bytes]]:
    pairs = headers.items() if isinstance(headers, dict) else headers
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs]


async def ask(
    app: Any,
    body: bytes = b"",
    headers: Headers = (),
    *,
    path: str = "/jobs/run",
    method: str = "POST",
    mount: str = "",
    client: str = "10.0.0.1",
    query: str = "",
    raw: str | None = None,
    chunks: Iterable[bytes] | None = None,
) -> Replied:
    """One request over ASGI; `chunks` instead of `body` are sent as they are taken."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": quote(path).encode() if raw is None else raw.encode(),
        "root_path": mount,
        "scheme": "http",
        "query_string": query.encode(),
        "headers": _pairs(headers),
        "client": (client, 40000),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    parts: Iterator[bytes] = iter(chunks if chunks is not None else [body])
    sent: list[dict[str, Any]] = []
    ahead = next(parts, b"")
    is_over = False

    async def receive() -> dict[str, Any]:
        nonlocal ahead, is_over
        if is_over:
            await asyncio.get_running_loop().create_future()  # as a server does while the caller waits
        part, ahead = ahead, next(parts, None)  # type: ignore[assignment]
        is_over = ahead is None
        return {"type": "http.request", "body": part, "more_body": not is_over}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *rest = sent
    return Replied(
        start["status"],
        {name.decode(): value.decode() for name, value in start["headers"]},
        b"".join(message.get("body", b"") for message in rest),
    )


def ask_wsgi(
    app: Any,
    body: bytes = b"",
    headers: Headers = (),
    *,
    path: str = "/jobs/run",
    method: str = "POST",
    mount: str = "",
    client: str = "10.0.0.1",
    query: str = "",
    watched: bool = True,
    **more: Any,
) -> Replied:
    """One request over WSGI, watched by the standard library's validator, which refuses some odd requests itself."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": mount,
        "PATH_INFO": path.encode().decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": client,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "CONTENT_LENGTH": str(len(body)),
    }
    for name, value in headers.items() if isinstance(headers, dict) else headers:
        key = name.upper().replace("-", "_")
        environ[key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"] = value
    environ.update(more)
    told: list[Any] = []

    def start_response(
        status: str, head: list[tuple[str, str]], error: Any = None
    ) -> Callable[[bytes], object]:
        told.append((status, head))
        return lambda data: None

    answer = validator(app)(environ, start_response) if watched else app(environ, start_response)
    content = b"".join(answer)
    if watched:
        answer.close()
    ((status, head),) = told
    return Replied(int(status.split()[0]), {name.lower(): value for name, value in head}, content)


def canary() -> str:
    """A secret that stands nowhere else."""
    return "whsec_" + base64.b64encode(os.urandom(32)).decode()
