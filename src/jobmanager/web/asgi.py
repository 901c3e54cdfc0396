"""The endpoint as an ASGI application, on no framework: mounted in any of them, before another application, or alone."""

from __future__ import annotations

import asyncio
import logging
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote
from weakref import WeakKeyDictionary

from jobmanager.clock import Clock
from jobmanager.run import Accepted
from jobmanager.web.answer import NOT_FOUND, UNAVAILABLE, Answer
from jobmanager.web.body import LARGEST, MOST_RUNS, Call
from jobmanager.web.endpoint import Asked, Endpoint, Route, headers_of
from jobmanager.web.health import HealthProbes
from jobmanager.web.limit import Limits
from jobmanager.web.remembered import ResponseCache
from jobmanager.web.work import Manager, Work, answered

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

# So many ids go into one accept: it must be committed while the database still waits for the answer.
MOST_AT_ONCE = 5 * MOST_RUNS

_Waiting = tuple[Call, "asyncio.Future[Accepted | Answer]"]


class AcceptBatcher:
    """Hands calls of one event loop to threads of its own: what blocks in the application must keep no call waiting."""

    def __init__(self, work: Work, threads: int) -> None:
        self._work = work
        self._accepting = ThreadPoolExecutor(1, "jobmanager-accept")
        self._working = ThreadPoolExecutor(threads, "jobmanager-call")
        self._waiting: list[_Waiting] = []
        self._away = False

    async def accept(self, call: Call) -> Accepted | Answer:
        """What became of its runs. What comes while an accept is under way is accepted together, after it."""
        result: asyncio.Future[Accepted | Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, result))
        if not self._away:
            self._send()
        return await result

    async def do(self, act: Callable[[], Answer]) -> Answer:
        """What `act` answers; it may take long."""
        return await asyncio.get_running_loop().run_in_executor(self._working, act)

    def _send(self) -> None:
        batch = self._waiting[: _fitting([call for call, _ in self._waiting])]
        del self._waiting[: len(batch)]
        self._away = True
        loop = asyncio.get_running_loop()
        flight = loop.run_in_executor(self._accepting, self._work.accept, [call for call, _ in batch])
        flight.add_done_callback(lambda landed: self._on_done(batch, landed))

    def _on_done(self, batch: Sequence[_Waiting], landed: asyncio.Future[list[Accepted | Answer]]) -> None:
        self._away = False
        for (_, waits), result in zip(batch, landed.result(), strict=True):
            if not waits.done():  # else its caller went away
                waits.set_result(result)
        if self._waiting:
            self._send()


def _fitting(calls: Sequence[Call]) -> int:
    """How many of them, at least one, go into one accept."""
    runs = 0
    for count, call in enumerate(calls):
        runs += len(call.runs)
        if runs > MOST_AT_ONCE:
            return max(count, 1)
    return len(calls)


class Asgi:
    """Answers on our paths; everything else goes to `otherwise`, or is not found."""

    def __init__(
        self, jobs: Manager, otherwise: Application | None, limits: Limits | None, clock: Clock
    ) -> None:
        self._jobs = jobs
        self._otherwise = otherwise
        self._endpoint = Endpoint(jobs.settings, limits, clock=clock)
        self._remembered = ResponseCache(clock.monotonic)
        self._work = Work(jobs, clock)
        self._probes = HealthProbes(jobs, clock)
        self._probing = ThreadPoolExecutor(1, "jobmanager-health")  # its own: calls may have taken all others
        self._desks: WeakKeyDictionary[AbstractEventLoop, AcceptBatcher] = WeakKeyDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            asked = _asked(scope)
            route = self._endpoint.route(asked)
            if route is not None:
                answer = await self._answer(route, asked, receive)
            elif self._otherwise is None:
                answer = NOT_FOUND
            else:
                await self._otherwise(scope, receive, send)
                return
            if answer is not None:
                await _send(answer, asked.method, send)
        elif self._otherwise is not None:
            await self._otherwise(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _answer(self, route: Route, asked: Asked, receive: Receive) -> Answer | None:
        refusal = self._endpoint.refusal(route, asked)
        if refusal is not None:
            return refusal
        probe = route.probe
        if probe is not None:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._probing, self._probes.respond, probe)
        job = route.job
        if job is not None:
            return await self._desk().do(lambda: self._work.tick(job))
        body = await _body(receive)
        if body is None:
            return None
        call = self._endpoint.call(asked, body)
        return call if isinstance(call, Answer) else await self._once(call)

    async def _once(self, call: Call) -> Answer:
        earlier = self._remembered.claim(call)
        if isinstance(earlier, Future):
            return await asyncio.wrap_future(earlier)
        if earlier is not None:
            return earlier
        answer = UNAVAILABLE
        try:
            answer = await self._work_on(call)
        finally:
            self._remembered.settle(call, answer)
        return answer

    async def _work_on(self, call: Call) -> Answer:
        desk = self._desk()
        if call.kind != "ticks":
            return await desk.do(lambda: self._work.order(call))
        accepted = await desk.accept(call)
        if isinstance(accepted, Answer):
            return accepted
        if self._work.waits:
            return await desk.do(lambda: self._work.execute(call, accepted))
        return answered(call, accepted)

    def _desk(self) -> AcceptBatcher:
        loop = asyncio.get_running_loop()
        desk = self._desks.get(loop)
        if desk is None:
            desk = self._desks[loop] = AcceptBatcher(self._work, self._jobs.settings.workers)
        return desk

    async def _live(self, receive: Receive, send: Send) -> None:
        """Where it serves alone, the manager starts and stops with the server."""
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
    path, mount = _path_and_mount(scope)
    return Asked(
        method=scope["method"],
        path=path,
        mount=mount,
        client=client[0] if client else "",
        headers=headers_of(scope["headers"]),
    )


def _path_and_mount(scope: Scope) -> tuple[str, str]:
    """Litestar takes the prefix of a mount off the path and says so nowhere; what came over the wire still has it."""
    path, mount, raw = scope["path"], scope.get("root_path", ""), scope.get("raw_path")
    if not mount and raw:
        whole = unquote(raw.partition(b"?")[0]).removesuffix("/")
        inner = "/" + path.strip("/")
        if whole != path.removesuffix("/") and whole.endswith(inner):
            return whole, whole.removesuffix(inner)
    return path, mount


async def _body(receive: Receive) -> bytes | None:
    """The body, of which no more is read once it is too large; None if the caller went away."""
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


async def _send(answer: Answer, method: str, send: Send) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": list(answer.headers)})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else answer.body})
