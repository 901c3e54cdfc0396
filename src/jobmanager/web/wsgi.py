"""The endpoint as a WSGI application: mounted by a dispatcher, before another application, or alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from http import HTTPStatus
from typing import Any

from jobmanager.clock import Clock
from jobmanager.web.body import LARGEST, Call
from jobmanager.web.body_deadline import BodyDeadlines, give_up_body
from jobmanager.web.endpoint import Asked, Endpoint, Route, headers_of
from jobmanager.web.health import HealthProbes
from jobmanager.web.limit import Limits
from jobmanager.web.remembered import ResponseCache
from jobmanager.web.response import NOT_FOUND, TOO_SLOW, UNAVAILABLE, Response
from jobmanager.web.start import Start
from jobmanager.web.work import Manager, Work

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


class Wsgi:
    """Serves our paths; everything else goes to `otherwise`, or is not found. A call takes one of the server's threads."""

    def __init__(
        self, jobs: Manager, otherwise: Application | None, limits: Limits | None, clock: Clock
    ) -> None:
        self._otherwise = otherwise
        self._endpoint = Endpoint(jobs.settings, limits, clock=clock)
        self._remembered = ResponseCache(clock.monotonic)
        self._work = Work(jobs, clock)
        self._probes = HealthProbes(jobs, clock)
        self._deadlines = BodyDeadlines(clock.monotonic)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        asked = _asked(environ)
        route = self._endpoint.route(asked)
        if route is not None:
            response = self._respond(route, asked, environ)
        elif self._otherwise is None:
            response = NOT_FOUND
        else:
            return self._otherwise(environ, start_response)
        headers = [(name.decode().title(), value.decode()) for name, value in response.headers]
        start_response(f"{response.status} {HTTPStatus(response.status).phrase}", headers)
        return [b"" if asked.method == "HEAD" else response.body]

    def _respond(self, route: Route, asked: Asked, environ: Environ) -> Response:
        if route.probe is not None:
            return self._endpoint.refusal(route, asked) or self._probes.respond(route.probe)
        # Before the body is read: a stranger who sends none would keep this thread.
        refusal = self._endpoint.refusal(route, asked)
        if refusal is not None:
            give_up_body(environ)
            return refusal
        if route.is_tick and asked.method == "GET":
            return self._endpoint.told(route, asked, self._work.tick(route.job))
        try:
            with self._deadlines.bounding(environ):
                body = _body(environ)
        except OSError:  # the connection ended, or was ended for its silence
            return TOO_SLOW
        if route.work:
            limit = self._endpoint.limit(asked, body)
            return limit if isinstance(limit, Response) else self._work.work(limit)
        if route.is_tick:
            instant = self._endpoint.instant(route, asked, body)
            if isinstance(instant, Response):
                return instant
            return self._endpoint.told(route, asked, self._work.tick(route.job, instant))
        call = self._endpoint.call(asked, body)
        if isinstance(call, Start):
            return self._work.start(call)
        return call if isinstance(call, Response) else self._once(call)

    def _once(self, call: Call) -> Response:
        earlier = self._remembered.begin(call)
        if isinstance(earlier, Future):
            return earlier.result()
        if earlier is not None:
            return earlier
        response = UNAVAILABLE
        try:
            response = self._work.respond(call)
        finally:
            self._remembered.complete(call, response)
        return response


def _asked(environ: Environ) -> Asked:
    headers = {name[5:]: value for name, value in environ.items() if name.startswith("HTTP_")}
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        headers[name] = environ.get(name, "")
    pairs = [(_bytes(name.replace("_", "-")), _bytes(value)) for name, value in headers.items() if value]
    return Asked(
        method=environ["REQUEST_METHOD"],
        path=_text(environ.get("PATH_INFO", "")),
        mount=_text(environ.get("SCRIPT_NAME", "")),
        client=environ.get("REMOTE_ADDR", ""),
        headers=headers_of(pairs),
        query=_bytes(environ.get("QUERY_STRING", "")),
    )


def _body(environ: Environ) -> bytes:
    """Return as much of the body as a call may have, and one byte of what is too much."""
    declared = environ.get("CONTENT_LENGTH") or ""
    if declared.isdecimal() and len(declared) < 10:
        most = min(int(declared), LARGEST + 1)
    elif environ.get("wsgi.input_terminated"):  # sent in chunks, by a server that says where they end
        most = LARGEST + 1
    else:
        return b""
    chunks: list[bytes] = []
    while most > 0 and (chunk := environ["wsgi.input"].read(most)):
        chunks.append(chunk)
        most -= len(chunk)
    return b"".join(chunks)


def _bytes(header: str) -> bytes:
    return header.encode("latin-1", "replace")


def _text(path: str) -> str:
    """Return the path as ASGI gives it: WSGI hands over each byte as a character."""
    return path.encode("latin-1", "replace").decode("utf-8", "replace")
