"""Changes of runs and jobs as server-sent events, to be resumed by the id of the last one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Annotated, Any

from fastapi import Header, Query, Request, Response
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse, SendTimeoutError

from jobmanager.access.principal import READ
from jobmanager.errors import SlowListenerError
from jobmanager.manager.listening import Change, Events
from jobmanager.validation.printable import get_logger
from jobmanager.web.api.routing import Routes
from jobmanager.web.problems import Problem, ProblemError
from jobmanager.web.site import Streams, site_of

logger = get_logger(__name__)
router = Routes(tags=["events"])

HEARTBEAT = 15.0
SLOWEST = 10.0
"""Seconds that a client may take to accept one event."""
LONGEST = 15 * 60.0
"""Seconds after which a stream ends: its client connects again, and shows again who it is."""
MOST_STREAMS = 1_000
BETWEEN = 0.02
"""Seconds between two chunks of one client."""
LARGEST_CHUNK = 32 * 1024
RETRY = 2_000


async def stream_events(
    request: Request,
    job: Annotated[str | None, Query(max_length=128, description="Only of this job.")] = None,
    run: Annotated[
        str | None, Query(max_length=100, description="Only of this run; its present state comes first.")
    ] = None,
    after: Annotated[str | None, Query(max_length=100, description="As the header `Last-Event-ID`.")] = None,
    last_event_id: Annotated[str | None, Header(max_length=100)] = None,
) -> Response:
    """Stream the changes of runs and jobs that the principal sees, as they come.

    An event is named `run` or `job`; its data is JSON with `kind`, `run_id`, `job_id` and `status`. The first one, `hello`, says where the stream begins.
    With `Last-Event-ID` nothing since is left out, and changes of some seconds may come twice. A heartbeat comes every 15 seconds. A
    client that reads too slowly is dropped, and any stream ends after 15 minutes: connect again.
    """
    site = site_of(request)
    if site.streams.total >= MOST_STREAMS:
        raise ProblemError(
            Problem(
                status=503,
                kind="too-many-streams",
                title="Too many streams",
                hint="Try again in a moment.",
                headers={"retry-after": "5"},
            )
        )
    events = await site.jobs.aio.events(last_event_id or after, run, job)
    return Stream(
        _told(events, site.streams),
        ping=HEARTBEAT,
        ping_message_factory=lambda: ServerSentEvent(comment="still here"),
        send_timeout=SLOWEST,
        sep="\n",
    )


class Stream(EventSourceResponse):
    """A stream whose slow reader is dropped without a traceback."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            logger.info("a listener of the API read nothing for %g s and was dropped", SLOWEST)


async def _told(events: Events, streams: Streams) -> AsyncIterator[ServerSentEvent | bytes]:
    streams.total += 1
    try:
        yield ServerSentEvent("{}", event="hello", id=events.cursor, retry=RETRY)
        ends_at = asyncio.get_running_loop().time() + LONGEST
        while True:
            async with asyncio.timeout_at(ends_at):
                chunk = encoded(await anext(events))
            while len(chunk) < LARGEST_CHUNK and (change := events.take(0)) is not None:
                chunk += encoded(change)
            yield chunk
            # In a burst the next chunk is larger, instead of one more for each change and client.
            await asyncio.sleep(BETWEEN)
    except (StopAsyncIteration, TimeoutError):
        return
    except SlowListenerError:
        logger.info("a listener of the API took its changes too slowly and was dropped")
    finally:
        streams.total -= 1
        events.close()


@lru_cache(maxsize=10_000)
def encoded(change: Change) -> bytes:
    """Return a change as an event on the wire; made once for all clients."""
    data = {
        "kind": change.kind,
        "run_id": change.id if change.kind == "run" else None,
        "job_id": change.job_id,
        "status": change.status,
    }
    return ServerSentEvent(json.dumps(data), event=change.kind, id=change.cursor, sep="\n").encode()


router.add(
    "GET",
    "/events",
    READ,
    stream_events,
    response_class=EventSourceResponse,
    also={
        200: {"description": "The stream", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
    },
)
