"""The endpoint as an ASGI application, on no framework: mounted in any of them, before another application, or alone."""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from jobmanager.beside_loop import DaemonThreads
from jobmanager.clock import Clock
from jobmanager.run import Accepted
from jobmanager.validation.printable import get_logger
from jobmanager.web.body import LARGEST, MOST_RUNS, Call
from jobmanager.web.body_deadline import LONGEST
from jobmanager.web.endpoint import Asked, Endpoint, Route, headers_of
from jobmanager.web.health import HealthProbes
from jobmanager.web.held import Early
from jobmanager.web.limit import Limits
from jobmanager.web.mount import path_and_mount
from jobmanager.web.remembered import ResponseCache
from jobmanager.web.response import NOT_FOUND, TOO_SLOW, UNAVAILABLE, Response
from jobmanager.web.start import Start
from jobmanager.web.work import Manager, Work, accepted_response

logger = get_logger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
T = TypeVar("T")

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

# So many ids go into one accept: it must be committed while the database still waits for the response.
MOST_AT_ONCE = 5 * MOST_RUNS

_Waiting = tuple[Call, "asyncio.Future[Accepted | Response]"]


class AcceptBatcher:
    """Hands calls of one event loop to threads of its own: what blocks in the application must keep no call waiting."""

    def __init__(self, work: Work, threads: int) -> None:
        self._work = work
        self._accepting = DaemonThreads(1, "jobmanager-accept")
        self._working = DaemonThreads(threads, "jobmanager-call")
        self._waiting: list[_Waiting] = []
        self._away = False

    async def accept(self, call: Call) -> Accepted | Response:
        """Return what became of its runs. Calls that come while an accept is under way are accepted together, after it."""
        result: asyncio.Future[Accepted | Response] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, result))
        if not self._away:
            self._send()
        return await result

    async def do(self, act: Callable[[], T]) -> T:
        """Return what `act` returns; it may take long."""
        return await asyncio.get_running_loop().run_in_executor(self._working, act)

    def _send(self) -> None:
        batch = self._waiting[: _fitting([call for call, _ in self._waiting])]
        del self._waiting[: len(batch)]
        self._away = True
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._accepting, self._work.accept, [call for call, _ in batch])
        future.add_done_callback(lambda done: self._on_done(batch, done))

    def _on_done(self, batch: Sequence[_Waiting], done: asyncio.Future[list[Accepted | Response]]) -> None:
        self._away = False
        for (_, waits), result in zip(batch, done.result(), strict=True):
            if not waits.done():  # else its caller went away
                waits.set_result(result)
        if self._waiting:
            self._send()


def _fitting(calls: Sequence[Call]) -> int:
    """Return how many of them, at least one, go into one accept."""
    runs = 0
    for count, call in enumerate(calls):
        runs += len(call.runs)
        if runs > MOST_AT_ONCE:
            return max(count, 1)
    return len(calls)


class Asgi:
    """Serves our paths; everything else goes to `otherwise`, or is not found."""

    def __init__(
        self, jobs: Manager, otherwise: Application | None, limits: Limits | None, clock: Clock
    ) -> None:
        self._jobs = jobs
        self._otherwise = otherwise
        self._endpoint = Endpoint(jobs.settings, limits, clock=clock)
        self._remembered = ResponseCache(clock.monotonic)
        self._work = Work(jobs, clock)
        self._probes = HealthProbes(jobs, clock)
        self._probing = DaemonThreads(1, "jobmanager-health")  # its own: calls may have taken all others
        self._batchers: WeakKeyDictionary[AbstractEventLoop, AcceptBatcher] = WeakKeyDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            asked = _asked(scope)
            route = self._endpoint.route(asked)
            if route is not None:
                response = await self._respond(route, asked, receive)
            elif self._otherwise is None:
                response = NOT_FOUND
            else:
                await self._otherwise(scope, receive, send)
                return
            if response is not None:
                await _send(response, asked.method, send)
        elif self._otherwise is not None:
            await self._otherwise(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _respond(self, route: Route, asked: Asked, receive: Receive) -> Response | None:
        refusal = self._endpoint.refusal(route, asked)
        if refusal is not None:
            return refusal
        probe = route.probe
        if probe is not None:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._probing, self._probes.respond, probe)
        if route.is_tick and asked.method == "GET":
            return await self._tick(route, asked, None)
        try:
            async with asyncio.timeout(LONGEST):
                body = await _body(receive)
        except TimeoutError:
            return TOO_SLOW
        if body is None:
            return None
        if route.work:
            limit = self._endpoint.limit(asked, body)
            if isinstance(limit, Response):
                return limit
            return await self._batcher().do(lambda: self._work.work(limit))
        if route.is_tick:
            instant = self._endpoint.instant(route, asked, body)
            return instant if isinstance(instant, Response) else await self._tick(route, asked, instant)
        call = self._endpoint.call(asked, body)
        if isinstance(call, Start):
            return await self._batcher().do(lambda: self._work.start(call))
        return call if isinstance(call, Response) else await self._once(call)

    async def _tick(self, route: Route, asked: Asked, instant: datetime | None) -> Response:
        return self._endpoint.told(route, asked, await self._ticked(route.job, instant))

    async def _ticked(self, job: str | None, instant: datetime | None) -> Response:
        """Return the response to a ticker; a call that came a little early waits here, and takes no thread meanwhile."""
        do = self._batcher().do
        ticked = await do(lambda: self._work.tick_now(job, instant))
        if isinstance(ticked, Response):
            return ticked
        with self._work.holding() as held:
            while isinstance(ticked, Early) and (seconds := held.wait(ticked)):
                await asyncio.sleep(seconds)
                ticked = await do(ticked.again)
            return held.response(ticked)

    async def _once(self, call: Call) -> Response:
        earlier = self._remembered.begin(call)
        if isinstance(earlier, Future):
            return await asyncio.wrap_future(earlier)
        if earlier is not None:
            return earlier
        response = UNAVAILABLE
        try:
            response = await self._work_on(call)
        finally:
            self._remembered.complete(call, response)
        return response

    async def _work_on(self, call: Call) -> Response:
        batcher = self._batcher()
        if call.kind != "ticks":
            return await batcher.do(lambda: self._work.order(call))
        accepted = await batcher.accept(call)
        if isinstance(accepted, Response):
            return accepted
        if self._work.waits:
            return await batcher.do(lambda: self._work.execute(call, accepted))
        return accepted_response(call, accepted)

    def _batcher(self) -> AcceptBatcher:
        loop = asyncio.get_running_loop()
        batcher = self._batchers.get(loop)
        if batcher is None:
            batcher = self._batchers[loop] = AcceptBatcher(self._work, self._jobs.settings.workers)
        return batcher

    async def _live(self, receive: Receive, send: Send) -> None:
        """Start and stop the manager with the server, where it serves alone."""
        await receive()
        at = "startup"
        try:
            async with self._jobs.lifespan():
                await send({"type": "lifespan.startup.complete"})
                at = "shutdown"
                await receive()
        except Exception as error:
            logger.exception("the job manager fails at the server's %s", at)
            await send({"type": f"lifespan.{at}.failed", "message": str(error)})
        else:
            await send({"type": "lifespan.shutdown.complete"})


def _asked(scope: Scope) -> Asked:
    client = scope.get("client")
    path, mount = path_and_mount(scope)
    return Asked(
        method=scope["method"],
        path=path,
        mount=mount,
        client=client[0] if client else "",
        headers=headers_of(scope["headers"]),
        query=scope.get("query_string", b""),
    )


async def _body(receive: Receive) -> bytes | None:
    """Return the body, of which no more is read once it is too large; None if the caller went away."""
    chunks: list[bytes] = []
    size = 0
    while size <= LARGEST:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if not message.get("more_body", False):
            break
    return b"".join(chunks)


async def _send(response: Response, method: str, send: Send) -> None:
    await send({"type": "http.response.start", "status": response.status, "headers": list(response.headers)})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else response.body})
