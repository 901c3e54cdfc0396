"""The endpoint of the database's calls and of other tickers: routing, authentication, and the responses that need no work.

Knows neither ASGI nor WSGI: method, path, headers and raw body in, a response or the work to do out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Literal, get_args
from urllib.parse import parse_qs

from jobmanager.clock import Clock
from jobmanager.process.throttled_log import ThrottledLogger
from jobmanager.settings import Settings
from jobmanager.validation.printable import get_logger
from jobmanager.web.auth import Keys, RefusedError, RequestHeaders, Signed
from jobmanager.web.body import LARGEST, BodyError, Call, read_call, read_instant
from jobmanager.web.limit import Limit, Limits
from jobmanager.web.qstash import QStashKeys, check_body, is_signed
from jobmanager.web.response import (
    NO_JSON,
    TOO_LARGE,
    UNAVAILABLE,
    Response,
    json_response,
    not_allowed,
    too_many,
    unauthorized,
    wrong,
)
from jobmanager.web.start import Start, read_start

logger = get_logger(__name__)

Probe = Literal["healthz", "readyz"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request without its body. `mount` is the prefix under which a framework, server or proxy put us."""

    method: str
    path: str
    mount: str
    client: str
    headers: RequestHeaders
    query: bytes = b""


@dataclass(frozen=True, slots=True)
class Route:
    """One of ours: the path of the database's calls, the tick of `job` or of all, `work`, or a `probe` of the host, which needs no key."""

    job: str | None = None
    probe: Probe | None = None
    all_jobs: bool = False
    work: bool = False

    @property
    def is_tick(self) -> bool:
        """True for the calls of tickers that are no database of ours."""
        return self.all_jobs or self.job is not None

    @property
    def methods(self) -> tuple[str, ...]:
        if self.probe is not None:
            return ("GET", "HEAD")
        return ("GET", "POST") if self.is_tick else ("POST",)


RUN, TICK_ALL, WORK = Route(), Route(all_jobs=True), Route(work=True)
USUAL_RUNS, MOST_RUNS_OF_A_CALL, LONGEST_QUERY = 10, 1000, 1000
PROBES: tuple[Probe, ...] = get_args(Probe)


class Endpoint:
    """Routes and authenticates requests. Any thread.

    The order: is the path ours, the method right, a secret set; then authentication, by headers alone as far as that goes; then the
    body's size, its signature, its type, and only then what it says.
    """

    def __init__(self, settings: Settings, limits: Limits | None = None, *, clock: Clock) -> None:
        limits = limits or Limits()
        self._keys = Keys(settings.secrets)
        self._qstash = QStashKeys.of(settings)
        self._signs = settings.auth == "signature"
        self._run_path = settings.run_path
        folder = settings.run_path.rpartition("/")[0]
        self._tick_path = f"{folder}/tick/"
        self._other_paths = {f"{folder}/{probe}": Route(probe=probe) for probe in PROBES}
        self._other_paths[f"{folder}/tick"] = TICK_ALL
        self._other_paths[f"{folder}/work"] = WORK
        self._clock = clock
        self._calls = Limit(limits.calls_per_second, limits.calls_at_once, clock.monotonic)
        self._failures = Limit(limits.failures_per_second, limits.failures_at_once, clock.monotonic)
        # Of all addresses together: a header that a server believes, or a large network, is a new address each time.
        self._all_failures = Limit(
            2 * limits.failures_per_second, 2 * limits.failures_at_once, clock.monotonic
        )
        self._locked, self._refused = ThrottledLogger(logger), ThrottledLogger(logger)

    def route(self, asked: Asked) -> Route | None:
        """Return what the path means; None if it is not ours. Never a redirect: a POST would arrive as a GET."""
        mount = asked.mount.rstrip("/")
        path = asked.path.removesuffix("/")
        whole = path if path.startswith(mount) else mount + path
        before, ours, after = whole.rpartition(self._run_path)
        # What stands before it must be where we are mounted, or a part of that: a mount may hold the path's beginning.
        if ours and not after and mount.startswith(before):
            return RUN
        for other_path, route in self._other_paths.items():
            before, ours, after = whole.rpartition(other_path)
            if ours and not after and mount.startswith(before):
                return route
        before, ours, job = whole.rpartition(self._tick_path)
        return Route(job) if ours and job and mount.startswith(before) else None

    def refusal(self, route: Route, asked: Asked) -> Response | None:
        """Return the response, if there is one before the body is read."""
        if asked.method not in route.methods:
            return not_allowed(route.methods)
        if route.probe is not None:
            return None
        if not self._keys and not (route.is_tick and self._qstash):
            self._locked.warning("JOBMANAGER_SECRET is not set: every call to the endpoint is refused")
            return UNAVAILABLE
        try:
            if self._is_of_qstash(route, asked):
                self._digest_of(route, asked)
            elif self._takes_bearer(route, asked):
                self._keys.check_bearer(asked.headers)
            else:
                self._signed_by(asked)
        except RefusedError as error:
            return self._refusal(route, asked, error)
        if self._takes_bearer(route, asked) and (wait := self._calls.take(asked.client)):
            return too_many(wait)
        has_body = asked.method == "POST"
        return TOO_LARGE if has_body and _is_declared_too_large(asked.headers) else None

    def call(self, asked: Asked, body: bytes) -> Call | Start | Response:
        """Return the call on the path of the database's calls, or the start by hand, which `refusal` let pass, or the response that says why not.

        A start comes with the secret itself, also where the database has to sign its calls.
        """
        if len(body) > LARGEST:
            return TOO_LARGE
        is_start = self._takes_bearer(RUN, asked) and b'"job_id"' in body
        if self._signs and not is_start:
            try:
                self._keys.check_signature(self._signed_by(asked), body)
            except RefusedError as error:
                return self._refusal(RUN, asked, error)
            if wait := self._calls.take(asked.client):
                return too_many(wait)
        if not _is_json(asked.headers):
            return NO_JSON
        try:
            return read_start(body) if is_start else read_call(body)
        except BodyError as error:
            return wrong(str(error))

    def instant(self, route: Route, asked: Asked, body: bytes) -> datetime | Response | None:
        """Return the instant that the body of a tick names, None if it names none, or the response that says what is wrong."""
        if len(body) > LARGEST:
            return TOO_LARGE
        if self._is_of_qstash(route, asked):
            try:
                check_body(self._digest_of(route, asked), body)
            except RefusedError as error:
                return self._refusal(route, asked, error)
        try:
            instant = read_instant(body)
        except BodyError as error:
            return wrong(str(error))
        if instant is not None and route.job is None:
            return wrong(f"scheduled_for needs a job: call {self._tick_path}JOB")
        return instant

    def told(self, route: Route, asked: Asked, response: Response) -> Response:
        """Return the response to a tick as its caller is to have it: a service that repeats whatever fails is not told 404."""
        if response.status == 404 and self._is_of_qstash(route, asked):
            return json_response(200, {"job": route.job, "finding": "unknown_job"})
        return response

    def _is_of_qstash(self, route: Route, asked: Asked) -> bool:
        return bool(self._qstash) and route.is_tick and is_signed(asked.headers)

    def _digest_of(self, route: Route, asked: Asked) -> str:
        return self._qstash.body_digest(asked.headers, route.job, self._clock.now().timestamp())

    def limit(self, asked: Asked, body: bytes) -> int | Response:
        """Return how many runs a call for work may execute, or the response that says what is wrong."""
        if len(body) > LARGEST:
            return TOO_LARGE
        given = parse_qs(asked.query.decode("latin-1")[:LONGEST_QUERY], keep_blank_values=True)
        limits = given.pop("limit", [str(USUAL_RUNS)])
        if given or len(limits) != 1 or not limits[0].isascii() or not limits[0].isdigit():
            return wrong("the query may say limit=N, and no more")
        limit = int(limits[0][:9])
        return limit if 1 <= limit <= MOST_RUNS_OF_A_CALL else wrong("limit must be 1 to 1000")

    def _signed_by(self, asked: Asked) -> Signed:
        return self._keys.signed(asked.headers, self._clock.now().timestamp())

    def _takes_bearer(self, route: Route, asked: Asked) -> bool:
        """Return True for callers that are no database of ours and cannot sign, and where the setting says bearer."""
        headers = asked.headers
        is_start = route is RUN and b"authorization" in headers and b"webhook-signature" not in headers
        return is_start or route.is_tick or route.work or not self._signs

    def _refusal(self, route: Route, asked: Asked, error: RefusedError) -> Response:
        address = _address(asked.client)
        self._refused.warning("a call from %s is refused: %s", address or "an unknown address", error)
        if wait := self._failures.take(address) or self._all_failures.take(""):
            return too_many(wait)
        return unauthorized(b"Signature" if self._signs and route is RUN else b"Bearer")


def _address(client: str) -> str:
    """Return the address in its one spelling; nothing if it is none: servers believe what a caller writes into X-Forwarded-For."""
    try:
        return str(ip_address(client[:100].partition("%")[0]))
    except ValueError:
        return ""


def headers_of(pairs: Sequence[tuple[bytes, bytes]]) -> RequestHeaders:
    """Return the values of each header, by its name in lower case."""
    headers: dict[bytes, list[bytes]] = {}
    for name, value in pairs:
        headers.setdefault(name.lower(), []).append(value)
    return headers


def _is_declared_too_large(headers: RequestHeaders) -> bool:
    return any(
        len(length) > 9 or (length.isdigit() and int(length) > LARGEST)
        for length in headers.get(b"content-length", ())
    )


def _is_json(headers: RequestHeaders) -> bool:
    """Return True for plain JSON in UTF-8, declared once."""
    encodings = headers.get(b"content-encoding", ())
    types = headers.get(b"content-type", ())
    if len(types) != 1 or any(encoding.strip().lower() != b"identity" for encoding in encodings):
        return False
    media, *parameters = (part.strip().lower() for part in types[0].split(b";"))
    return media == b"application/json" and all(
        parameter in {b"", b"charset=utf-8", b'charset="utf-8"'} for parameter in parameters
    )
