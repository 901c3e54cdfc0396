"""Stand-ins for the services of others: Stripe, language models, subscribers, the Git host, browsers' push, and mail.

    python -m examples.saas.fakes 8790 2525

Each can be told to fail, over HTTP or on the page of the application: PUT /failures/stripe with {"failure": "error"}.
"""

import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from . import plans
from .smtp_sink import SmtpSink, domain_policy

SERVICES = ("stripe", "llm", "subscribers", "git", "push", "smtp")
FAILURES = ("none", "error", "slow", "limit")
SLOW_SECONDS = 2.0
CUSTOMERS = 200
PROVIDERS = {"openai": 120.0, "anthropic": 8.0, "google": 0.0}
SUBSCRIBERS = 230

Answer = tuple[int, Any]


def utc_now() -> datetime:
    """Return the wall clock."""
    return datetime.now(UTC)


class Fakes:
    """All services on loopback while a `with` lasts. `url` is where HTTP is served, `smtp` the mail server."""

    def __init__(
        self,
        port: int = 0,
        smtp_port: int = 0,
        *,
        now: Callable[[], datetime] = utc_now,
        mails: Path | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.now = now
        self.begun = now()
        self.failures = dict.fromkeys(SERVICES, "none")
        self.calls: Counter[str] = Counter()
        self.cancelled: set[str] = set()
        self.pushed: set[tuple[str, str]] = set()
        self.smtp = SmtpSink(smtp_port, file=mails, policy=self._policy, host=host)
        self._http = _Server((host, port), _Request)
        self._http.fakes = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), name="fakes", daemon=True).start()
        self.smtp.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self.smtp.__exit__(kind, error, trace)

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which the application finds them."""
        return {
            "SAAS_SERVICES_URL": self.url,
            "SAAS_SMTP_HOST": "127.0.0.1",
            "SAAS_SMTP_PORT": str(self.smtp.port),
        }

    def answer(self, method: str, path: str, query: Mapping[str, str], body: Any, topic: str) -> Answer:
        """Return status and body of the response."""
        if path == "/failures":
            return 200, self.failures
        if found := re.fullmatch(r"PUT /failures/(\w+)", f"{method} {path}"):
            return self.fail(found[1], body.get("failure", ""))
        service = path.split("/")[1]
        self.calls[service] += 1
        match self.failures.get(service):
            case "error":
                return 503, {"error": f"{service} is down"}
            case "limit":
                return 429, {"error": "too many requests"}
            case "slow":
                time.sleep(SLOW_SECONDS)
        for pattern, route in _ROUTES.items():
            if found := re.fullmatch(pattern, f"{method} {path}"):
                return route(self, *found.groups(), query=query, topic=topic)
        return 404, {"error": f"{path} is not known"}

    def fail(self, service: str, failure: str) -> Answer:
        """Let a service fail from now on, or work again with "none"."""
        if service not in SERVICES or failure not in FAILURES:
            return 422, {"error": f"services are {SERVICES}, failures {FAILURES}"}
        self.failures[service] = failure
        return 200, self.failures

    def _policy(self, recipient: str, refusals: int) -> str | None:
        match self.failures["smtp"]:
            case "error":
                return "451 4.3.0 mail system is down"
            case "limit":
                return "452 4.5.3 too many recipients"
            case "slow":
                time.sleep(SLOW_SECONDS)
        return domain_policy(recipient, refusals)

    # ---------------------------------------------------------------- the services

    def subscriptions(self, *, query: Mapping[str, str], topic: str) -> Answer:
        """Return a page of Stripe's list."""
        numbers = [number for number in range(1, CUSTOMERS + 1) if plans.plan_of(number) != "free"]
        after = int(query.get("starting_after", "").removeprefix("sub_") or 0)
        rest = [number for number in numbers if number > after]
        page = rest[: int(query.get("limit", 10))]
        return 200, {
            "data": [self._subscription(number) for number in page],
            "has_more": len(rest) > len(page),
        }

    def _subscription(self, number: int) -> dict[str, Any]:
        name = f"sub_{number:04}"
        return {
            "id": name,
            "customer": f"cus_{number:04}",
            "status": "canceled" if name in self.cancelled else plans.status_of(number),
            "cents": plans.CENTS[plans.plan_of(number)],
            "period_end": plans.period_end_of(number, self.begun, self.now()).isoformat(),
        }

    def cancel(self, name: str, *, query: Mapping[str, str], topic: str) -> Answer:
        """Cancel a subscription."""
        if plans.plan_of(int(name.removeprefix("sub_"))) == "free":
            return 404, {"error": "no such subscription"}
        self.cancelled.add(name)
        return 200, {"id": name, "status": "canceled"}

    def credits(self, provider: str, *, query: Mapping[str, str], topic: str) -> Answer:
        """Return what is left of a provider's credits: a dollar less each day."""
        if provider not in PROVIDERS:
            return 404, {"error": "no such provider"}
        left = PROVIDERS[provider] - (self.now() - self.begun) // timedelta(days=1)
        return (200, {"remaining": left}) if left > 0 else (402, {"error": "credits exhausted"})

    def subscribers(self, project: str, *, query: Mapping[str, str], topic: str) -> Answer:
        """Return a page of a project's subscribers."""
        page, size = int(query["page"]), int(query["size"])
        numbers = range(page * size, min((page + 1) * size, SUBSCRIBERS))
        users = [{"id": f"rc_{project}_{n}", "entitlement": "pro" if n % 4 == 0 else "free"} for n in numbers]
        return 200, {"users": users, "total": SUBSCRIBERS}

    def commit(self, *, query: Mapping[str, str], topic: str) -> Answer:
        """Return the newest commit: there is one a day."""
        return 200, {"sha": f"{(self.now() - self.begun) // timedelta(days=1):040x}"}

    def contents(self, *, query: Mapping[str, str], topic: str) -> Answer:
        """Return the articles of a commit: each adds one, and changes one."""
        day = int(query["ref"], 16)
        return 200, [
            {
                "path": f"posts/{n}.md",
                "sha": f"{max(n, day) if n == day % 20 else n:040x}",
                "title": f"Post {n}",
            }
            for n in range(20 + day)
        ]

    def push(self, number: str, *, query: Mapping[str, str], topic: str) -> Answer:
        """Show a notification, unless the browser is gone, as each seventh is."""
        if int(number) % 7 == 0:
            return 410, {"error": "gone"}
        self.pushed.add((number, topic))
        return 201, {}


_ROUTES: Mapping[str, Callable[..., Answer]] = {
    r"GET /stripe/v1/subscriptions": Fakes.subscriptions,
    r"DELETE /stripe/v1/subscriptions/(sub_\d+)": Fakes.cancel,
    r"GET /llm/(\w+)/credits": Fakes.credits,
    r"GET /subscribers/v1/projects/(\d+)/users": Fakes.subscribers,
    r"GET /git/repos/acme/content/commits/main": Fakes.commit,
    r"GET /git/repos/acme/content/contents": Fakes.contents,
    r"POST /push/(\d+)": Fakes.push,
}


class _Server(ThreadingHTTPServer):
    """A thread for each client; one that leaves in the middle, as a killed process does, is no error of ours."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Request(BaseHTTPRequestHandler):
    """One request of a client, whose connection stays open."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(length)
        if len(content) < length:
            return  # the client left in the middle
        body = json.loads(content) if content else {}
        fakes: Fakes = self.server.fakes  # type: ignore[attr-defined]
        status, answer = fakes.answer(self.command, parts.path, query, body, self.headers.get("Topic", ""))
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing on the screen."""


if __name__ == "__main__":
    ports = [int(word) for word in sys.argv[1:3]] or [8790, 2525]
    listen_on = sys.argv[3] if len(sys.argv) > 3 else "127.0.0.1"
    with Fakes(*ports, mails=Path("mails.mbox"), host=listen_on) as running:
        print(
            f"Services at {running.url}, mail at 127.0.0.1:{running.smtp.port}; Ctrl-C ends them.", flush=True
        )
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print(f"{running.calls.total()} calls, {len(running.smtp.received)} mails.")
